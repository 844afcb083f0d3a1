"""Store the progress of a run of `eval.seed_tts`, so that it can be killed and resumed."""

import json
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from tqdm import tqdm

from eval.common.results import write_json
from eval.seed_tts.groups import Spoken
from eval.seed_tts.scorer import Score, Scorer, as_record, file_digest, from_record


def prepare(out: Path, identity: dict) -> None:
    """Create the folder of a run, or repair it if it is of this run; no process may be writing to it.

    Args:
        out: The folder.
        identity: All that decides the results.

    Raises:
        ValueError: If the folder holds something else; the message names what differs.
    """
    path = out / "work" / "identity.json"
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        if differing := [name for name in identity if there.get(name) != identity[name]]:
            was, now = (json.dumps(run.get(differing[0]), ensure_ascii=False) for run in (there, identity))
            message = f"--out {out}: holds a run of another {differing[0]} ({was}, and now {now})"
            raise ValueError(f"{message}; name another folder")
    elif out.exists() and (not out.is_dir() or any(entry.name != "work" for entry in out.iterdir())):
        raise ValueError(f"--out {out}: holds something else than a run; name another folder")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)
    for scores in path.parent.glob("scores-*.jsonl"):
        mend(scores)
    for partial in out.rglob(".*.partial"):
        partial.unlink()


def score_share(scorer: Scorer, spoken: list[Spoken], out: Path, state: PartialState) -> None:
    """Score this process's share of the utterances that have no score yet.

    Args:
        scorer: What scores the utterances.
        spoken: All outputs of the run.
        out: The folder of the run.
        state: The processes.
    """
    share = spoken[state.process_index :: state.num_processes]
    stored = stored_scores(share, out)
    mine = out / "work" / f"scores-{state.process_index}.jsonl"
    for number, take in enumerate(tqdm(share, unit="take", disable=not state.is_main_process)):
        if number not in stored:
            append(mine, as_record(scorer.score(take)))


def stored_scores(spoken: list[Spoken], out: Path) -> dict[int, Score]:
    """Return the stored scores of utterances whose files have not changed since.

    Args:
        spoken: The outputs to look up.
        out: The folder of the run.

    Returns:
        Scores by the index of the output in `spoken`.
    """
    records_by_file = {}
    for path in sorted((out / "work").glob("scores-*.jsonl")):
        for record in records(path):
            records_by_file[record["depth"], record["seed"], record["utt"], record["wav_sha256"]] = record
    stored = {}
    for number, take in enumerate(spoken):
        digest = None if take.error else file_digest(take.wav)
        record = records_by_file.get((take.depth, take.seed, take.line.utt, digest))
        if record is not None:
            stored[number] = from_record(record)
    return stored


def append(path: Path, record: dict) -> None:
    """Append a line in one write; a process that is killed during it leaves a line without end.

    Args:
        path: The JSONL file.
        record: What JSON can hold.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())


def records(path: Path) -> Iterator[dict]:
    """Yield the records of all complete lines.

    Args:
        path: The JSONL file.
    """
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def mend(path: Path) -> None:
    """Cut off a last line without end, so that the next starts a new line; no process may be appending.

    Args:
        path: The JSONL file.
    """
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
