"""Loading of the models of a synthesizer, from the embedded model, a folder or a hub id."""

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
from tokenizer.codes.coded_audio import fingerprint
from tokenizer.discriminators import Discriminators
from tokenizer.io.checkpoint import local_folder, read_config
from tokenizer.io.checksums import expected_tokenizer
from tokenizer.model import Parts

DEFAULT_MODEL = Path(__file__).parents[2] / "cat_tts" / "pretrained" / "mini"
"""The embedded model."""
PUBLISHED_SAMPLING = SamplingOptions(repetition_penalty=1.1)
"""What the published models recommend, except for the stop decision, which they sample at temperature 1.5."""
PUBLISHED_TOKENIZER = "OpenMOSS-Team/MOSS-Audio-Tokenizer"
"""The audio tokenizer of the published TTS model."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Models on their device, ready for synthesis."""

    tts: CatTTS
    text_tokenizer: TextTokenizer
    tokenizer: AudioTokenizer
    sampling: SamplingOptions
    load_encoder: Callable[[], AudioTokenizer] | None
    """Loads the tokenizer's encoder where `tokenizer` came without."""
    asr_model: CatASR | None
    """Scores how intelligible a result is, where the model folder has one."""
    discriminators: Discriminators | None
    """Distinguish real from reconstructed speech, where the model folder has them."""


def load(
    model: str | Path | None, tokenizer: str | Path | None, device: str | None, low_memory: bool
) -> Loaded:
    """Load the models of a synthesizer.

    Args:
        model: A folder or hub id; None is the embedded model. It holds `tts/`, `tokenizer/` and perhaps
            `asr/`, `discriminators/` and `sampling.json`, as `training.bundle` writes them. Or it is a TTS
            model alone, in the layout of this project or of the published MOSS-TTS-Local-Transformer.
        tokenizer: A folder or hub id of the audio tokenizer; by default the one in `model`, or the published
            one for a TTS model alone.
        device: A torch device name; by default cuda where there is one. There the TTS model runs in bfloat16.
        low_memory: Whether to load the encoder only for each new prompt, and drop it afterwards.

    Returns:
        The models on `device`.

    Raises:
        ValueError: a folder holds no such model, or the device does not exist.
    """
    device = usable_device(device)
    folder = local_folder(DEFAULT_MODEL if model is None else model)
    bundle = (folder / "tts").is_dir()
    if tokenizer is None:
        tokenizer = folder / "tokenizer" if bundle else PUBLISHED_TOKENIZER
    codec_folder = local_folder(tokenizer)
    tts, text_tokenizer = CatTTS.from_pretrained(folder / "tts" if bundle else folder)
    sampling = SamplingOptions() if tts.config.chat is None else PUBLISHED_SAMPLING
    if (folder / SAMPLING_FILE).exists():
        sampling = read_config(SamplingOptions, folder / SAMPLING_FILE)

    def codec(parts: Parts) -> AudioTokenizer:
        loaded = AudioTokenizer.from_pretrained(codec_folder, parts)
        expected = expected_tokenizer(folder)
        if expected not in (None, found := fingerprint(loaded).hex()):
            raise ValueError(
                f"{codec_folder}: is tokenizer {found}, and the model speaks codes of {expected}: "
                "leave the tokenizer out, or give the one that belongs to the model"
            )
        return loaded.to(device)

    asr, discriminators = folder / "asr", folder / "discriminators"
    return Loaded(
        tts=tts.to(device, torch.bfloat16 if device.startswith("cuda") else torch.float32),
        text_tokenizer=text_tokenizer,
        tokenizer=codec("decoder" if low_memory else "both"),
        sampling=sampling,
        load_encoder=(lambda: codec("encoder")) if low_memory else None,
        asr_model=CatASR.from_pretrained(asr)[0].to(device) if asr.is_dir() else None,
        discriminators=Discriminators.from_pretrained(discriminators).to(device)
        if discriminators.is_dir()
        else None,
    )
