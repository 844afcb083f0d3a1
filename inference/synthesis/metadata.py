"""The files of a result: its audio, its codes, and a JSON file that describes how it was synthesized."""

import json
from dataclasses import asdict
from pathlib import Path

from inference.engine.result import SynthesisResult
from inference.synthesis.save import save_result
from tokenizer import AudioTokenizer
from tokenizer.io.checkpoint import write_text


def describe(result: SynthesisResult) -> dict[str, object]:
    """Describe everything that determined a result but the model; the voice by the hash of its codes.

    Args:
        result: What was synthesized.

    Returns:
        Values that can be written as JSON.
    """
    description: dict[str, object] = {
        "ai_generated": True,
        "seconds": round(result.seconds, 3),
        "sample_rate": result.sample_rate,
        "depth": result.depth,
        "bit_per_second": result.bitrate,
        "seed": result.seed,
        "stop_reason": result.stop_reason,
        "attempts": result.attempts,
        "intelligibility": result.intelligibility,
        "acceptable": result.acceptable,
    }
    if result.request is not None:
        description |= {
            "text": result.request.text,
            "prompt_text": result.request.voice.text,
            "voice_sha256": result.request.voice.key,
            "mode": result.request.options.mode,
            "sampling": asdict(result.request.sampling),
            "depth_extended": result.request.forced_codes is not None,
        }
    if result.segments:
        lead, *pauses = result.pauses
        segments = zip(result.segments, pauses, strict=True)
        description["lead_seconds"] = lead
        description["segments"] = [describe(part) | {"pause_seconds": pause} for part, pause in segments]
    return description


def write_result(
    result: SynthesisResult, tokenizer: AudioTokenizer, folder: Path, name: str, **more: object
) -> list[Path]:
    """Write the files of a result.

    Args:
        result: What was synthesized.
        tokenizer: The audio tokenizer of its codes.
        folder: Where to write; it is created.
        name: Name of the files without suffix.
        more: Entries for the JSON file beside those of `describe`.

    Returns:
        The paths of the .wav, .flac, .cat and .json file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{suffix}" for suffix in (".wav", ".flac", ".cat", ".json")]
    for path in paths[:-1]:
        save_result(path, result, tokenizer)
    write_text(paths[-1], json.dumps(describe(result) | more, indent=2, ensure_ascii=False) + "\n")
    return paths
