"""The files of a take: its audio, and a JSON beside it that says how it was made."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from inference.take import Take
from tokenizer.audio import save_audio
from tokenizer.checkpoint import write_text


def describe(take: Take) -> dict[str, object]:
    """All that made a take but the model; the voice by the hash of its codes."""
    about: dict[str, object] = {
        "ai_generated": True,
        "seconds": round(take.seconds, 3),
        "sample_rate": take.sample_rate,
        "depth": take.depth,
        "bit_per_second": take.bitrate,
        "seed": take.seed,
        "stop_reason": take.stop_reason,
    }
    if take.request is not None:
        about |= {
            "text": take.request.text,
            "prompt_text": take.request.voice.text,
            "voice_sha256": take.request.voice.key,
            "mode": take.request.mode,
            "sampling": asdict(take.request.sampling),
            "mastered": take.request.draft is not None,
        }
    return about


def write_take(take: Take, folder: Path, name: str, **more: object) -> list[Path]:
    """Write `name`.wav, .flac and .json, the last with `more` beside the description."""
    folder.mkdir(parents=True, exist_ok=True)
    wav, flac, about = (folder / f"{name}{suffix}" for suffix in (".wav", ".flac", ".json"))
    for path in (wav, flac):
        save_audio(path, torch.from_numpy(take.audio), take.sample_rate)
    write_text(about, json.dumps(describe(take) | more, indent=2, ensure_ascii=False) + "\n")
    return [wav, flac, about]
