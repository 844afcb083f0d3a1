"""A journal of the work that a long evaluation finished before it was killed, and need not do again."""

import json
import os
from pathlib import Path


class Journal:
    """A JSONL file beside the results with one line for each finished piece of work.

    It is deleted when the results are written. A line that a killed process left unfinished is cut off.

    Args:
        path: The file; None keeps everything in memory.
        identity: What the work belongs to: the command, the metric models.

    Raises:
        ValueError: If the file holds the work of something else.
    """

    def __init__(self, path: Path | None, identity: dict) -> None:
        self.path, self.done = path, dict[str, dict]()
        if path is None:
            return
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        lines = [json.loads(line) for line in whole.splitlines()]
        identity = json.loads(json.dumps(identity))
        if lines and lines[0] != identity:
            raise ValueError(
                f"{path}: holds what another command began; finish that one, or delete the file to begin anew"
            )
        self.done = {line["key"]: line["record"] for line in lines[1:]}
        os.truncate(path, len(whole.encode())) if text else None
        if not lines:
            self._write(identity)

    def append(self, key: str, record: dict) -> None:
        """Store the record of one piece of work.

        Args:
            key: Its name in `done`.
            record: What JSON can hold, without NaN and infinity.
        """
        self._write({"key": key, "record": record})
        self.done[key] = record

    def finish(self) -> None:
        """Delete the file, for the results hold everything."""
        if self.path is not None:
            self.path.unlink()

    def _write(self, line: dict) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
