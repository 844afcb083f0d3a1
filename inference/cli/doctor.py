"""`cat-tts doctor`: print what is installed and what a model runs on, and test the model."""

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import soundfile
import torch
from torch import nn

from inference.device import peak_bytes
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.engine.result import SynthesisResult
from inference.synthesis.loading import DEFAULT_MODEL
from inference.synthesizer import Synthesizer
from tokenizer import load_audio
from tokenizer.codes.cat_file import pack_codes, unpack_codes
from tokenizer.codes.coded_audio import decode_audio, encode_audio
from tokenizer.io.checkpoint import local_folder
from tokenizer.io.checksums import damaged_files, has_checksums
from tokenizer.layers import attention

REQUIRED = ("torch", "transformers", "accelerate", "numpy", "soundfile", "soxr", "safetensors", "tyro")
OPTIONAL = {
    "flash-attn": "faster attention on CUDA",
    "wetext": "numbers and dates in words",
    "gradio": "the demo",
    "fastapi": "the server",
    "datasets": "training",
    "faster-whisper": "transcripts of prompts on the page",
}
PROMPT = DEFAULT_MODEL / "prompt.flac"
TEXT = "Good morning, this is a short test of the voice, and it takes about two seconds to say."
OPTIONS = SynthesisOptions(max_seconds=2.0, policy=UNWATCHED)
TOLERANCE = 1e-3
"""Largest RMS difference between a stream and audio decoded at once, -60 dBFS. A vocoder adds up its phases,
so that rounding alone moves single samples by as much."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Print what is installed and what the model runs on, and test it in a few seconds."""

    model: str | None = None
    """Folder or hub id; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not include one."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""


class CheckFailed(Exception):
    """Says how a check failed."""


def doctor(options: Doctor) -> None:
    """Run the command; the exit code is 1 if a check fails.

    Args:
        options: The options of the command line.
    """
    print(f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPUs")
    print(f"packages: {', '.join(f'{name} {_version(name)}' for name in REQUIRED)}")
    print(f"libsndfile: {soundfile.__libsndfile_version__}")
    for name, use in OPTIONAL.items():
        print(f"optional: {name} {_version(name)} ({use})")
    loaded: list[Synthesizer] = []

    def files() -> str:
        folder = local_folder(options.model or DEFAULT_MODEL)
        if damaged := damaged_files(folder):
            raise CheckFailed(f"{folder}: {', '.join(damaged)}; install it again")
        return "the files of the model are as they were bundled" if has_checksums(folder) else "no checksums"

    def load() -> str:
        loaded.append(Synthesizer.from_pretrained(options.model, options.tokenizer, options.device))
        return "the model is loaded"

    failures = sum([_failed(check) for check in (files, load)])
    for synthesizer in loaded:
        _describe(synthesizer)
        failures += self_test(synthesizer)
        print(f"peak memory: {peak_bytes(synthesizer.device) / 1e6:.0f} MB")
    if failures:
        print(f"{failures} of the checks failed")
        sys.exit(1)
    print("all is well")


def self_test(synthesizer: Synthesizer) -> int:
    """Synthesize two seconds of speech and check them; print a line for each check.

    Args:
        synthesizer: The model to test.

    Returns:
        How many checks failed.
    """
    voice = synthesizer.load_voice(PROMPT, PROMPT.with_suffix(".txt").read_text(encoding="utf-8"))
    takes: list[SynthesisResult] = []

    def speak() -> str:
        synthesizer.synthesize(TEXT, voice, OPTIONS)  # computes what is cached
        start, first = time.perf_counter(), 0.0
        with synthesizer.stream(TEXT, voice, OPTIONS) as stream:
            for _ in stream:
                first = first or time.perf_counter() - start
        takes.append(stream.result)
        elapsed = time.perf_counter() - start
        summary = f"{takes[0].seconds:.2f} s of audio, first audio after {first:.2f} s"
        if not np.isfinite(takes[0].audio).all():
            raise CheckFailed(f"{summary}, with NaN or infinite samples")
        return f"{summary}, RTF {elapsed / takes[0].seconds:.2f}"

    def repeat() -> str:
        take = synthesizer.synthesize(TEXT, voice, OPTIONS)
        if not (torch.equal(take.codes, takes[0].codes) and np.array_equal(take.audio, takes[0].audio)):
            raise CheckFailed("the stream and the take of the same seed differ")
        return "the stream is the take, sample for sample"

    def decode() -> str:
        codes = torch.cat([voice.codes[:, : takes[0].depth], takes[0].codes.cpu()])[None]
        cache = synthesizer.tokenizer.decoder_cache(1)
        if voice.decoder_adaptation is not None:  # the stream was decoded with it
            cache.set_adaptation(0, voice.decoder_adaptation.to(synthesizer.device))
        whole = synthesizer.tokenizer.decode(codes.to(synthesizer.device), cache)[0]
        whole = whole.float().clamp(-1, 1).cpu()
        difference = float(np.sqrt(np.mean((whole.numpy()[-len(takes[0].audio) :] - takes[0].audio) ** 2)))
        if not difference <= TOLERANCE:
            raise CheckFailed(f"audio decoded at once is {difference:.1e} off the stream, {TOLERANCE} may be")
        return f"audio decoded at once is the stream, within {difference:.1e}"

    def listen() -> str:
        if synthesizer.asr_model is None:
            return "this model has no recognizer to listen with"
        take = synthesizer.synthesize("Good morning, how are you today?", voice)
        if not take.acceptable:
            raise CheckFailed(
                f"{take.attempts} attempts at a short text failed (stopped: {take.stop_reason}, "
                f"intelligibility {take.intelligibility}): the models do not fit together"
            )
        return f"the recognizer understands the speech, intelligibility {take.intelligibility:.2f}"

    def pack() -> str:
        audio = load_audio(PROMPT, synthesizer.sample_rate)
        coded = encode_audio(synthesizer.tokenizer, audio)
        data = pack_codes(coded)
        unpacked = unpack_codes(data)
        decoded = decode_audio(synthesizer.tokenizer, unpacked)
        same_codes = torch.equal(unpacked.codes, coded.codes)
        if not same_codes or len(decoded) != len(audio) or not decoded.isfinite().all():
            raise CheckFailed("the prompt does not come back from its codes")
        return f"{unpacked.seconds:.2f} s of prompt went through {len(data)} bytes of codes"

    return sum([_failed(check) for check in (speak, repeat, decode, listen, pack)])


def _failed(check: Callable[[], str]) -> bool:
    """Run a check, print its outcome, and return whether it failed, by whatever exception."""
    try:
        print(f"ok: {check()}")
        return False
    except Exception as error:
        reason = str(error) if isinstance(error, CheckFailed) else f"{type(error).__name__}: {error}"
        print(f"BROKEN: {check.__name__}: {' '.join(reason.split())}")
        return True


def _describe(synthesizer: Synthesizer) -> None:
    tts, codec = synthesizer.tts, synthesizer.tokenizer
    on_cuda = synthesizer.device.type == "cuda"
    threads = f"threads: {torch.get_num_threads()}"
    device = torch.cuda.get_device_name(synthesizer.device) if on_cuda else threads
    half = next(codec.parameters()).dtype in (torch.float16, torch.bfloat16)
    flash = attention.flash_attn_func is not None and on_cuda and half
    print(f"device: {synthesizer.device} ({device}), {str(synthesizer.dtype).removeprefix('torch.')}")
    print(f"attention: tokenizer {'FlashAttention 2' if flash else 'SDPA'}, TTS SDPA")
    temporal, depth, codes = tts.config.temporal, tts.config.depth, codec.config
    print(
        f"TTS: {_millions(tts)}, temporal {temporal.num_layers} x {temporal.dim}, "
        f"depth {depth.num_layers} x {depth.dim}, {tts.config.num_codebooks} codebooks, "
        f"prompts of up to {synthesizer.max_prompt_seconds:.0f} s"
    )
    print(
        f"tokenizer: {_millions(codec)}, {codes.num_codebooks} codebooks of {codes.codebook_size}, "
        f"{codes.sample_rate} Hz, {codes.frame_rate:g} frames/s, {codes.bitrate(1):g} bit/s a codebook"
    )


def _millions(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M parameters"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
