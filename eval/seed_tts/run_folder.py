"""What a run of `eval.seed_tts` keeps while it is under way, so that it can be killed and go on."""

import json
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from tqdm import tqdm

from eval.common.results import write_json
from eval.seed_tts.groups import Spoken
from eval.seed_tts.judge import Judge, Score, as_record, file_digest, from_record


def prepare(out: Path, identity: dict) -> None:
    """Make the folder of a run, or mend it to go on, if it is of this run. Nobody may be at work in it.

    Raises:
        ValueError: the folder holds something else; the message names what differs.
    """
    path = out / "work" / "identity.json"
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        if differing := [name for name in identity if there.get(name) != identity[name]]:
            was, now = (json.dumps(one.get(differing[0]), ensure_ascii=False) for one in (there, identity))
            message = f"--out {out}: holds a run of another {differing[0]} ({was}, and now {now})"
            raise ValueError(f"{message}; name another folder")
    elif out.exists() and (not out.is_dir() or any(entry.name != "work" for entry in out.iterdir())):
        raise ValueError(f"--out {out}: holds something else than a run; name another folder")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)
    for kept in path.parent.glob("scores-*.jsonl"):
        mend(kept)
    for torn in out.rglob(".*.partial"):
        torn.unlink()


def judge_share(judge: Judge, spoken: list[Spoken], out: Path, state: PartialState) -> None:
    """Judge this process's share of what was not judged yet."""
    share = spoken[state.process_index :: state.num_processes]
    kept = kept_scores(share, out)
    mine = out / "work" / f"scores-{state.process_index}.jsonl"
    for number, take in enumerate(tqdm(share, unit="take", disable=not state.is_main_process)):
        if number not in kept:
            append(mine, as_record(judge.score(take)))


def kept_scores(spoken: list[Spoken], out: Path) -> dict[int, Score]:
    """What was judged of these takes, by their number, if the file is still what it was then."""
    found = {}
    for path in sorted((out / "work").glob("scores-*.jsonl")):
        for record in records(path):
            found[record["depth"], record["seed"], record["utt"], record["wav_sha256"]] = record
    kept = {}
    for number, take in enumerate(spoken):
        digest = None if take.error else file_digest(take.wav)
        record = found.get((take.depth, take.seed, take.line.utt, digest))
        if record is not None:
            kept[number] = from_record(record)
    return kept


def append(path: Path, record: dict) -> None:
    """Add a line in one write; a process that is killed in it leaves a line without end."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())


def records(path: Path) -> Iterator[dict]:
    """Of all lines that have an end."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def mend(path: Path) -> None:
    """Cut off a last line without end, so that the next begins on its own. Nobody may be appending."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
