"""The files of a training corpus: clips copied from real speech, and lines that a teacher speaks.

Both are trimmed, scaled to one loudness and written at 24 kHz; a file that exists is left alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from tokenizer.io.audio import load_audio, save_audio, trim_silence
from training.data.manifest import Clip, read_manifest
from training.synthetic.script import ScriptLine
from training.synthetic.teachers import TeacherChoice, open_teacher
from training.synthetic.voice_changes import VoiceChange, change_voice, draw_changes

SAMPLE_RATE = 24_000
MIN_SECONDS, MAX_SECONDS = 1.0, 12.0
"""Synthetic clips that are shorter or longer are dropped."""
UNCHANGED = VoiceChange()
"""The voice as recorded."""


@dataclass(frozen=True, kw_only=True)
class RealJob:
    """One clip of an existing corpus, to be copied to `target`, played at `speed`, in a changed voice."""

    clip: Clip
    target: Path
    speed: float = 1.0
    change: VoiceChange = UNCHANGED


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
    folders: Iterable[Path],
    out: Path,
    suffix: str = ".flac",
    speeds: Iterable[float] = (1.0,),
    changes: int = 0,
    seed: int = 0,
) -> Iterator[RealJob]:
    """Yield a job for each clip of each folder's `manifest.jsonl`, each speed, and each change of its voice.

    Speed changes pitch and formants too, as that of a tape does: at another speed, a speaker is another one.
    So is a speaker whose voice is changed.

    Args:
        folders: folders of real speech.
        out: the corpus's folder.
        suffix: the format of its files.
        speeds: factors; 1 is as recorded.
        changes: number of changed voices of each speaker, all as fast as recorded.
        seed: decides the changes.

    Raises:
        ValueError: a clip is outside its manifest's folder.
    """
    for folder in (folder.resolve() for folder in folders):
        for clip in read_manifest(folder / "manifest.jsonl"):
            if not clip.audio.is_relative_to(folder):
                raise ValueError(f"{clip.audio} lies outside {folder}; move the audio beside its manifest")
            name, parent = clip.audio.relative_to(folder), out / "audio" / folder.name
            variants = [("" if speed == 1 else f"@{speed:g}", speed, UNCHANGED) for speed in speeds]
            drawn = draw_changes(clip.speaker or str(name), changes, seed)
            variants += [(change.mark, 1.0, change) for change in drawn]
            for mark, speed, change in variants:
                yield RealJob(
                    clip=replace(clip, speaker=clip.speaker and clip.speaker + mark),
                    target=parent / name.with_name(name.stem + mark + suffix),
                    speed=speed,
                    change=change,
                )


def make_real(job: RealJob) -> Clip:
    """Write a clip at 24 kHz, in its speed and voice, trimmed and normalized, unless it exists; return it."""
    if not job.target.exists():
        torch.set_num_threads(1)  # the processes are the parallelism
        audio = change_voice(load_audio(job.clip.audio, SAMPLE_RATE), SAMPLE_RATE, job.change).numpy()
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


def _save(target: Path, audio: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    trimmed = trim_silence(torch.from_numpy(audio), SAMPLE_RATE).numpy()
    save_audio(target, torch.from_numpy(normalize_loudness(trimmed)), SAMPLE_RATE)


def _duration(path: Path) -> float:
    return round(soundfile.info(path).duration, 3)
