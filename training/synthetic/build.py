"""Build a training corpus: real and synthetic speech as 24 kHz mono files under one manifest.

    python -m training.synthetic.build OUT --human FOLDER --synthetic-hours 8 --texts FOLDER-OR-FILE
    python -m training.synthetic.build OUT --synthetic-hours 50 --teacher kokoro --kokoro FOLDER --workers 8

Real speech comes from folders, each with a manifest. Synthetic speech comes from a teacher (an existing TTS
system) turned into many pseudo-speakers: `hibari`, small and fast, has one voice; `kokoro` has many voices,
and blends of them. Either synthesizes at speed / alpha, and its output is played alpha times faster, so that
pitch and formants move by alpha while the tempo stays. Real speech may be played at several speeds, which
turns few speakers into more.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from tokenizer.io.audio import load_audio, save_audio, trim_silence
from training.common.run import StopRequest
from training.data.manifest import Clip, read_manifest, write_manifest
from training.synthetic.script import ScriptLine, deal
from training.synthetic.teachers import TeacherChoice, open_teacher
from training.synthetic.texts import WORDNET, utterances

logger = logging.getLogger(__name__)

SAMPLE_RATE = 24_000
MIN_SECONDS, MAX_SECONDS = 1.0, 12.0
"""Synthetic clips that are shorter or longer are dropped."""
MANIFEST_INTERVAL, TYPICAL_SECONDS = 256, 3.0
"""Clips between two writings of the manifest; duration of a typical synthetic clip."""


@dataclass(frozen=True, kw_only=True)
class RealJob:
    """One clip of an existing corpus, to be copied to `target` and played at `speed`."""

    clip: Clip
    target: Path
    speed: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SyntheticJob:
    """One line of the script, to be synthesized into `target`."""

    line: ScriptLine
    teacher: TeacherChoice
    target: Path


def normalize_loudness(audio: np.ndarray, rms: float = -23.0, peak: float = -1.0) -> np.ndarray:
    """Scale audio to a level, or less where its peak would be too high.

    Args:
        audio: samples [s]; silence is returned as it is.
        rms: the level to reach, in dBFS.
        peak: the highest peak, in dBFS.

    Returns:
        Samples [s] float32.
    """
    power = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0
    if power == 0.0:
        return audio
    gain = min(10 ** (rms / 20) / power, 10 ** (peak / 20) / float(np.abs(audio).max()))
    return (audio * gain).astype(np.float32)


def real_jobs(
    folders: Iterable[Path], out: Path, suffix: str = ".flac", speeds: Iterable[float] = (1.0,)
) -> Iterator[RealJob]:
    """Yield a job for each clip of each folder's `manifest.jsonl` and each speed.

    Speed changes pitch and formants too, as that of a tape does: at another speed, a speaker is another one.

    Args:
        folders: folders of real speech.
        out: the corpus's folder.
        suffix: the format of its files.
        speeds: factors; 1 is as recorded.

    Raises:
        ValueError: a clip is outside its manifest's folder.
    """
    for folder in (folder.resolve() for folder in folders):
        for clip in read_manifest(folder / "manifest.jsonl"):
            if not clip.audio.is_relative_to(folder):
                raise ValueError(f"{clip.audio} lies outside {folder}; move the audio beside its manifest")
            name, parent = clip.audio.relative_to(folder), out / "audio" / folder.name
            for speed in speeds:
                mark = "" if speed == 1 else f"@{speed:g}"
                yield RealJob(
                    clip=replace(clip, speaker=clip.speaker and clip.speaker + mark),
                    target=parent / name.with_name(name.stem + mark + suffix),
                    speed=speed,
                )


def make_real(job: RealJob) -> Clip:
    """Write a clip at 24 kHz and its speed, trimmed and normalized, unless it exists; return the new clip."""
    if not job.target.exists():
        audio = load_audio(job.clip.audio, SAMPLE_RATE).numpy()
        _save(job.target, soxr.resample(audio, SAMPLE_RATE * job.speed, SAMPLE_RATE))
    return replace(job.clip, audio=job.target, duration=_duration(job.target))


def make_synthetic(job: SyntheticJob) -> Clip | None:
    """Synthesize a line by its pseudo-speaker, unless its file exists.

    Returns:
        The clip; None where it is shorter than `MIN_SECONDS` or longer than `MAX_SECONDS`.
    """
    line, alpha = job.line, job.line.speaker.alpha
    if not job.target.exists():
        torch.set_num_threads(1)  # the processes are the parallelism
        audio = open_teacher(job.teacher).speak(line.spoken, line.speaker, line.seed)
        _save(job.target, soxr.resample(audio, SAMPLE_RATE * alpha, SAMPLE_RATE))
    duration = _duration(job.target)
    if not MIN_SECONDS <= duration <= MAX_SECONDS:
        return None
    return Clip(
        audio=job.target,
        text=line.text,
        speaker=line.speaker.name,
        language="en",
        duration=duration,
        source=job.teacher.source,
        license="Apache-2.0",
    )


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

    Returns:
        The clips of the manifest.

    Raises:
        ValueError: `synthetic_hours` is negative, or a speed is not from 0.5 to 2.
    """
    if synthetic_hours < 0:
        raise ValueError(f"synthetic_hours={synthetic_hours} is negative; give 0 or more")
    if not speeds or not all(0.5 <= speed <= 2 for speed in speeds):
        raise ValueError(f"speeds {list(speeds)}: give some, from 0.5 to 2, where 1 is as recorded")
    teacher = teacher or TeacherChoice()
    clips: list[Clip] = []
    out.mkdir(parents=True, exist_ok=True)
    pools = multiprocessing.get_context("spawn")
    with StopRequest() as stop, pools.Pool(workers, _ignore_interrupts) as pool:
        clips += pool.imap(make_real, real_jobs(human, out, suffix, speeds), chunksize=16)
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


def _save(target: Path, audio: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    trimmed = trim_silence(torch.from_numpy(audio), SAMPLE_RATE).numpy()
    save_audio(target, torch.from_numpy(normalize_loudness(trimmed)), SAMPLE_RATE)


def _duration(path: Path) -> float:
    return round(soundfile.info(path).duration, 3)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: `python -m training.synthetic.build --help`."""
    parser = argparse.ArgumentParser(description="Build a training corpus of real and synthetic speech.")
    parser.add_argument("out", type=Path, help="folder to fill, or to finish")
    parser.add_argument("--human", type=Path, action="append", default=[], help="real speech; repeatable")
    parser.add_argument(
        "--speeds", type=float, nargs="+", default=[1.0], help="of real speech; each is another speaker"
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
        )
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    logger.info("done: %s", summary(clips))


if __name__ == "__main__":
    main()
