"""What a synthesizer is made of, from the embedded model, a folder or a hub id."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cat_tts import CatTTS, SamplingOptions
from cat_tts.asr.model import CatASR
from cat_tts.generation.sampling import SAMPLING_FILE
from cat_tts.text.tokenizers import TextTokenizer
from inference.device import usable_device
from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators
from tokenizer.io.checkpoint import local_folder, read_config
from tokenizer.model import Parts

DEFAULT_MODEL = Path(__file__).parents[2] / "cat_tts" / "pretrained" / "mini"
"""The embedded model."""
PUBLISHED_SAMPLING = SamplingOptions(repetition_penalty=1.1)
"""As the published models recommend, but for the decision to stop, which they draw at temperature 1.5."""
PUBLISHED_TOKENIZER = "OpenMOSS-Team/MOSS-Audio-Tokenizer"
"""The tokenizer whose codes the published TTS speaks."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Models on their device, ready to speak."""

    tts: CatTTS
    text: TextTokenizer
    tokenizer: AudioTokenizer
    sampling: SamplingOptions
    load_encoder: Callable[[], AudioTokenizer] | None
    """Brings the tokenizer's encoder where `tokenizer` came without."""
    listener: CatASR | None
    """Tells of a take how plainly it says its text, where the model brings one."""
    judge: Discriminators | None
    """Tells real speech from rebuilt, where the model brings one."""


def load(
    model: str | Path | None, tokenizer: str | Path | None, device: str | None, low_memory: bool
) -> Loaded:
    """Read the models.

    `model` (by default the embedded one) holds `tts/`, `tokenizer/` and perhaps `asr/`, `judge/` and
    `sampling.json`, as training.bundle writes them, or is a TTS model alone: one of this project's layout, or
    the published MOSS-TTS-Local-Transformer. Then `tokenizer` names the audio tokenizer; by default it is the
    published one. `device` is cuda where there is one; there the TTS runs in bfloat16. With `low_memory` the
    encoder is loaded for each prompt that is new, and dropped.
    """
    device = usable_device(device)
    folder = local_folder(DEFAULT_MODEL if model is None else model)
    bundle = (folder / "tts").is_dir()
    if tokenizer is None:
        tokenizer = folder / "tokenizer" if bundle else PUBLISHED_TOKENIZER
    codec_folder = local_folder(tokenizer)
    tts, text = CatTTS.from_pretrained(folder / "tts" if bundle else folder)
    sampling = SamplingOptions() if tts.config.chat is None else PUBLISHED_SAMPLING
    if (folder / SAMPLING_FILE).exists():
        sampling = read_config(SamplingOptions, folder / SAMPLING_FILE)

    def codec(parts: Parts) -> AudioTokenizer:
        return AudioTokenizer.from_pretrained(codec_folder, parts).to(device)

    asr, judge = folder / "asr", folder / "judge"
    return Loaded(
        tts=tts.to(device, torch.bfloat16 if device.startswith("cuda") else torch.float32),
        text=text,
        tokenizer=codec("decoder" if low_memory else "both"),
        sampling=sampling,
        load_encoder=(lambda: codec("encoder")) if low_memory else None,
        listener=CatASR.from_pretrained(asr)[0].to(device) if asr.is_dir() else None,
        judge=Discriminators.from_pretrained(judge).to(device) if judge.is_dir() else None,
    )
