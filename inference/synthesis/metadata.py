"""The files of a take: its audio, its codes, and a JSON beside them that says how it was made."""

import json
from dataclasses import asdict
from pathlib import Path

from inference.engine.result import Take
from inference.synthesis.save import save_take
from tokenizer import AudioTokenizer
from tokenizer.io.checkpoint import write_text


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


def write_take(take: Take, tokenizer: AudioTokenizer, folder: Path, name: str, **more: object) -> list[Path]:
    """Write `name`.wav, .flac, .cat and .json, the last with `more` beside the description."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{suffix}" for suffix in (".wav", ".flac", ".cat", ".json")]
    for path in paths[:-1]:
        save_take(path, take, tokenizer)
    write_text(paths[-1], json.dumps(describe(take) | more, indent=2, ensure_ascii=False) + "\n")
    return paths
