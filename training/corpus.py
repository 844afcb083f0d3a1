"""Build a training corpus: real and synthetic speech as 24 kHz mono FLAC under one manifest.

    python -m training.corpus OUT --human FOLDER --synthetic-hours 8 --texts FOLDER-OR-FILE

Real speech comes from folders with a manifest of their own. Synthetic speech comes from a small one-voice
teacher (`hibari-tts`) turned into many pseudo-speakers: synthesise at speed / alpha, then play back alpha
times faster, so that pitch and formants move by alpha while the tempo stays.

Every clip is trimmed to about 0.15 s of silence at both ends and brought to -23 dBFS RMS, less where its peak
would pass -1 dBFS. The corpus is a function of the inputs and the seed. Synthetic files are named by their
content, every file is written whole or not at all, and those that exist are kept: an interrupted build goes
on where it stopped.
"""

import argparse
import logging
import multiprocessing
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha1
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from tokenizer.audio import load_audio, save_audio, trim_silence
from training.manifest import Clip, read_manifest, write_manifest
from training.texts import WORDNET, utterances

logger = logging.getLogger(__name__)

SAMPLE_RATE = 24_000
SHORTEST, LONGEST = 1.0, 12.0
"""Seconds; synthetic clips outside are dropped."""
ALPHAS = tuple(percent / 100 for percent in range(80, 121))
SPEEDS = (0.85, 0.93, 1.0, 1.07, 1.15)
BATCH, TYPICAL = 256, 3.0
"""Clips between two writings of the manifest; seconds of a typical synthetic clip."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A pseudo-speaker: the teacher's voice, pitch and formants times `alpha`, tempo times `speed`."""

    name: str
    alpha: float
    speed: float


@dataclass(frozen=True, kw_only=True)
class RealJob:
    """One clip of a given corpus to be copied to `target`."""

    clip: Clip
    target: Path


@dataclass(frozen=True, kw_only=True)
class SyntheticJob:
    """One text to be read by one pseudo-speaker into `target`."""

    text: str
    speaker: Speaker
    seed: int
    target: Path


def pseudo_speakers() -> list[Speaker]:
    """41 speakers: alpha 0.80, 0.81, ... 1.20, neighbours at different speeds."""
    return [
        Speaker(name=f"hibari_a{round(alpha * 100):03d}", alpha=alpha, speed=SPEEDS[i * 2 % len(SPEEDS)])
        for i, alpha in enumerate(ALPHAS)
    ]


def normalise(audio: np.ndarray, rms: float = -23.0, peak: float = -1.0) -> np.ndarray:
    """Audio [s] float32 scaled to `rms` dBFS, or to `peak` dBFS where the louder samples leave no room."""
    power = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0
    if power == 0.0:
        return audio
    gain = min(10 ** (rms / 20) / power, 10 ** (peak / 20) / float(np.abs(audio).max()))
    return (audio * gain).astype(np.float32)


def real_jobs(folders: Iterable[Path], out: Path) -> Iterator[RealJob]:
    """One job for each clip of each folder's `manifest.jsonl`."""
    for folder in (folder.resolve() for folder in folders):
        for clip in read_manifest(folder / "manifest.jsonl"):
            if not clip.audio.is_relative_to(folder):
                raise ValueError(f"{clip.audio} lies outside {folder}; move the audio beside its manifest")
            name = clip.audio.relative_to(folder).with_suffix(".flac")
            yield RealJob(clip=clip, target=out / "audio" / folder.name / name)


def synthetic_jobs(texts: Path, out: Path, seed: int) -> Iterator[SyntheticJob]:
    """Texts without end, dealt to the pseudo-speakers round after round in shuffled order."""
    speakers, generator = pseudo_speakers(), random.Random(seed + 1)
    turn: list[Speaker] = []
    for text in utterances(texts, seed):
        turn = turn or generator.sample(speakers, len(speakers))
        speaker = turn.pop()
        key = sha1(f"{text}|{speaker}|{seed}".encode()).hexdigest()
        target = out / "audio" / "synthetic" / speaker.name / f"{key[:16]}.flac"
        yield SyntheticJob(text=text, speaker=speaker, seed=int(key[:8], 16), target=target)


def make_real(job: RealJob) -> Clip:
    """The clip at 24 kHz, trimmed and levelled, on disk."""
    if not job.target.exists():
        _save(job.target, load_audio(job.clip.audio, SAMPLE_RATE).numpy())
    return replace(job.clip, audio=job.target, duration=_duration(job.target))


def make_synthetic(job: SyntheticJob) -> Clip | None:
    """The text read by the pseudo-speaker, on disk; None where it came out too short or too long."""
    if not job.target.exists():
        alpha = job.speaker.alpha
        audio = _teacher()(job.text, speed=job.speaker.speed / alpha, seed=job.seed)
        _save(job.target, soxr.resample(audio, SAMPLE_RATE * alpha, SAMPLE_RATE))
    duration = _duration(job.target)
    if not SHORTEST <= duration <= LONGEST:
        return None
    return Clip(
        audio=job.target,
        text=job.text,
        speaker=job.speaker.name,
        language="en",
        duration=duration,
        source="hibari-tts",
        license="Apache-2.0",
    )


def build(
    out: Path,
    *,
    human: Iterable[Path] = (),
    synthetic_hours: float = 0.0,
    texts: Path = WORDNET,
    seed: int = 0,
    workers: int = 1,
) -> list[Clip]:
    """Make or finish the corpus in `out`; `out/manifest.jsonl` lists what is there after every batch.

    Real speech comes first. Synthetic clips follow until they add up to `synthetic_hours`.
    """
    if synthetic_hours < 0:
        raise ValueError(f"synthetic_hours={synthetic_hours} is negative; give 0 or more")
    clips: list[Clip] = []
    out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        clips += pool.imap(make_real, real_jobs(human, out), chunksize=16)
        write_manifest(out / "manifest.jsonl", clips)
        logger.info("real speech: %s", summary(clips))
        left = synthetic_hours * 3600
        jobs = synthetic_jobs(texts, out, seed)
        while left > 0:
            batch = islice(jobs, min(BATCH, 1 + int(left / TYPICAL)))
            for clip in pool.imap(make_synthetic, batch, chunksize=8):
                if clip and left > 0:
                    clips.append(clip)
                    left -= clip.duration
            write_manifest(out / "manifest.jsonl", clips)
            done = synthetic_hours - max(left, 0) / 3600
            logger.info("%.2f of %.2f synthetic hours", done, synthetic_hours)
    return clips


def summary(clips: Iterable[Clip]) -> str:
    """Clips, hours and speakers of each source, in one line."""
    by_source: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_source[clip.source].append(clip)
    return "; ".join(
        f"{source}: {len(part)} clips, {sum(clip.duration for clip in part) / 3600:.2f} h, "
        f"{len({clip.speaker for clip in part})} speakers"
        for source, part in by_source.items()
    )


@cache
def _teacher():
    """The teacher of this process; loading it takes about a second."""
    try:
        from hibari import Hibari  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("synthetic speech needs its teacher: pip install hibari-tts==0.2.1") from error
    return Hibari()


def _save(target: Path, audio: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    trimmed = trim_silence(torch.from_numpy(audio), SAMPLE_RATE).numpy()
    save_audio(target, torch.from_numpy(normalise(trimmed)), SAMPLE_RATE)


def _duration(path: Path) -> float:
    return round(soundfile.info(path).duration, 3)


def main(arguments: list[str] | None = None) -> None:
    """The command line: `python -m training.corpus --help`."""
    parser = argparse.ArgumentParser(description="Build a training corpus of real and synthetic speech.")
    parser.add_argument("out", type=Path, help="folder to fill, or to finish")
    parser.add_argument("--human", type=Path, action="append", default=[], help="real speech; repeatable")
    parser.add_argument("--synthetic-hours", type=float, default=0.0)
    parser.add_argument("--texts", type=Path, default=WORDNET, help="WordNet folder, or a file of sentences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    clips = build(
        options.out,
        human=options.human,
        synthetic_hours=options.synthetic_hours,
        texts=options.texts,
        seed=options.seed,
        workers=options.workers,
    )
    logger.info("done: %s", summary(clips))


if __name__ == "__main__":
    main()
