"""Build a training corpus: real and synthetic speech as 24 kHz mono files under one manifest.

    python -m training.synthetic.build OUT --human FOLDER --changes 3 --synthetic-hours 8 --texts FILE
    python -m training.synthetic.build OUT --synthetic-hours 50 --teacher kokoro --kokoro FOLDER --workers 8

Real speech comes from folders, each with a manifest. Synthetic speech comes from a teacher (an existing TTS
system) turned into many pseudo-speakers: `hibari`, small and fast, has one voice; `kokoro` has many voices,
and blends of them. Either synthesizes at speed / alpha, and its output is played alpha times faster, so that
pitch and formants move by alpha while the tempo stays. Real speech may be played at several speeds, and its
formants and its pitch may be shifted independently (`training.synthetic.voice_changes`), which turns few
speakers into more.

Every clip is trimmed to about 0.15 s of silence at both ends and scaled to -23 dBFS RMS, less where its peak
would exceed -1 dBFS. The corpus is a function of the inputs and the seed. Synthetic files are named by their
content, every file is written whole or not at all, and existing files are left alone: an interrupted build
continues where it stopped. SIGTERM and Ctrl-C stop it with a manifest of the clips so far.
"""

import argparse
import logging
import multiprocessing
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from training.common.run import StopRequest
from training.data.manifest import Clip, write_manifest
from training.synthetic.jobs import SyntheticJob, make_real, make_synthetic, real_jobs
from training.synthetic.script import ScriptLine, deal
from training.synthetic.teachers import TeacherChoice
from training.synthetic.texts import WORDNET, utterances

logger = logging.getLogger(__name__)

MANIFEST_INTERVAL, TYPICAL_SECONDS = 256, 3.0
"""Clips between two writings of the manifest; duration of a typical synthetic clip."""


def build(
    out: Path,
    *,
    human: Iterable[Path] = (),
    synthetic_hours: float = 0.0,
    lines: Iterable[ScriptLine] = (),
    teacher: TeacherChoice | None = None,
    workers: int = 1,
    suffix: str = ".flac",
    speeds: Sequence[float] = (1.0,),
    changes: int = 0,
    seed: int = 0,
) -> list[Clip]:
    """Build or complete the corpus in `out`; `out/manifest.jsonl` is updated after every batch.

    Real speech comes first. Then `lines` are synthesized until they add up to `synthetic_hours`, or end.

    Args:
        out: the corpus's folder.
        human: folders of real speech.
        synthetic_hours: how much synthetic speech to add.
        lines: what the pseudo-speakers say.
        teacher: the TTS system; by default hibari.
        workers: number of processes.
        suffix: the format of the files.
        speeds: speeds of real speech.
        changes: changed voices of each real speaker.
        seed: decides the changes.

    Returns:
        The clips of the manifest.

    Raises:
        ValueError: `synthetic_hours` or `changes` is negative, or a speed is not from 0.5 to 2.
    """
    if synthetic_hours < 0:
        raise ValueError(f"synthetic_hours={synthetic_hours} is negative; give 0 or more")
    if not speeds or not all(0.5 <= speed <= 2 for speed in speeds):
        raise ValueError(f"speeds {list(speeds)}: give some, from 0.5 to 2, where 1 is as recorded")
    if changes < 0:
        raise ValueError(f"changes={changes} is negative; give 0 or more")
    teacher = teacher or TeacherChoice()
    clips: list[Clip] = []
    out.mkdir(parents=True, exist_ok=True)
    pools = multiprocessing.get_context("spawn")
    with StopRequest() as stop, pools.Pool(workers, _ignore_interrupts) as pool:
        clips += pool.imap(make_real, real_jobs(human, out, suffix, speeds, changes, seed), chunksize=16)
        write_manifest(out / "manifest.jsonl", clips)
        logger.info("real speech: %s", summary(clips))
        missing = synthetic_hours * 3600
        jobs = (
            SyntheticJob(
                line=line,
                teacher=teacher,
                target=out / "audio" / "synthetic" / line.speaker.name / f"{line.key}{suffix}",
            )
            for line in lines
        )
        while missing > 0 and not stop:
            batch = list(islice(jobs, min(MANIFEST_INTERVAL, 1 + int(missing / TYPICAL_SECONDS))))
            if not batch:
                logger.warning("the lines ended %.2f hours early", missing / 3600)
                break
            for clip in pool.imap(make_synthetic, batch, chunksize=2):
                if clip and missing > 0:
                    clips.append(clip)
                    missing -= clip.duration
                if stop:
                    logger.warning("stopped: %.2f hours are missing", max(missing, 0) / 3600)
                    break
            write_manifest(out / "manifest.jsonl", clips)
            done = synthetic_hours - max(missing, 0) / 3600
            logger.info("%.2f of %.2f synthetic hours", done, synthetic_hours)
    return clips


def summary(clips: Iterable[Clip]) -> str:
    """Return the number of clips, hours and speakers of each source, in one line."""
    by_source: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_source[clip.source].append(clip)
    return "; ".join(
        f"{source}: {len(part)} clips, {sum(clip.duration for clip in part) / 3600:.2f} h, "
        f"{len({clip.speaker for clip in part})} speakers"
        for source, part in by_source.items()
    )


def _ignore_interrupts() -> None:
    """Ignore Ctrl-C in workers, which must keep running until the build has written its manifest."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: `python -m training.synthetic.build --help`."""
    parser = argparse.ArgumentParser(description="Build a training corpus of real and synthetic speech.")
    parser.add_argument("out", type=Path, help="folder to fill, or to finish")
    parser.add_argument("--human", type=Path, action="append", default=[], help="real speech; repeatable")
    parser.add_argument(
        "--speeds", type=float, nargs="+", default=[1.0], help="of real speech; each is another speaker"
    )
    parser.add_argument(
        "--changes",
        type=int,
        default=0,
        help="further speakers out of each real one: its formants, its pitch, or both are shifted",
    )
    parser.add_argument("--synthetic-hours", type=float, default=0.0)
    parser.add_argument("--texts", type=Path, default=WORDNET, help="WordNet folder, or a file of sentences")
    parser.add_argument("--teacher", choices=("hibari", "kokoro"), default="hibari")
    parser.add_argument(
        "--kokoro", type=Path, help="the teacher's folder, see training.synthetic.fetch_kokoro"
    )
    parser.add_argument("--speakers", type=int, default=400, help="pseudo-speakers of the teacher")
    parser.add_argument("--device", default="cpu", help="device of the teacher")
    parser.add_argument("--format", choices=("flac", "wav"), default="flac", help="wav is read faster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with a copy of the teacher")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        teacher = TeacherChoice(
            name=options.teacher, folder=options.kokoro, device=options.device, speakers=options.speakers
        )
        texts = utterances(options.texts, options.seed)
        lines = deal(texts, teacher.inventory(options.seed), teacher.spell, options.seed)
        clips = build(
            options.out,
            human=options.human,
            synthetic_hours=options.synthetic_hours,
            lines=lines,
            teacher=teacher,
            workers=options.workers,
            suffix=f".{options.format}",
            speeds=options.speeds,
            changes=options.changes,
            seed=options.seed,
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logger.info("done: %s", summary(clips))


if __name__ == "__main__":
    main()
