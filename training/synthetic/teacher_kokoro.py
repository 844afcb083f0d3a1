"""Synthesize with the teacher Kokoro-82M (Apache-2.0): many voices, at about real time on a CPU core.

Its folder holds `weights.int8.safetensors`, `voices.safetensors` and `config.json`, see
`training.synthetic.fetch_kokoro`.
"""

import importlib.util
import io
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cat_tts.text.phonemes import dictionary
from training.synthetic.speakers import Blend, Speaker

SOURCE = "Kokoro-82M"
WEIGHTS, VOICES, CONFIG = "weights.int8.safetensors", "voices.safetensors", "config.json"
SCALE, ZERO = ".scale", ".zero"
MAX_PHONEMES = 508
"""Longest input; it is cut off there."""
TIMBRE_SIZE = 128
"""Size of the first half of a style vector, which is timbre; the second half is prosody."""


class KokoroTeacher:
    """The teacher Kokoro, loaded onto a device.

    Args:
        folder: what `training.synthetic.fetch_kokoro` wrote.
        device: a PyTorch device.

    Raises:
        ValueError: the folder is not complete, or Kokoro's code is not installed.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        for name in (WEIGHTS, VOICES, CONFIG):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder} lacks {name}: make the folder with `python -m training.synthetic.fetch_kokoro`"
                )
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        self.device, self.vocabulary = torch.device(device), config["vocab"]
        self.voices = {name: rows.float() for name, rows in load_file(folder / VOICES).items()}
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        model = skeleton(config)
        model.load_state_dict(dequantize(load_file(folder / WEIGHTS)))
        self.model: Any = model.eval().to(self.device)

    @torch.inference_mode()
    def speak(self, spoken: str, speaker: Speaker, seed: int) -> np.ndarray:
        """Synthesize phonemes at speed / alpha, to be played alpha times faster.

        Args:
            spoken: the phonemes.
            speaker: the pseudo-speaker.
            seed: of the noise in the voice's source.

        Returns:
            Samples [s] float32 at 24 kHz.

        Raises:
            ValueError: there is no phoneme that the teacher knows.
        """
        ids = [self.vocabulary[sign] for sign in spoken if sign in self.vocabulary][:MAX_PHONEMES]
        if not ids:
            raise ValueError(f"{spoken!r} holds no phoneme that the teacher knows")
        torch.manual_seed(seed)  # of the noise in the voice's source
        tokens = torch.tensor([[0, *ids, 0]], device=self.device)
        vector = style(self.voices, speaker, len(ids)).to(self.device)
        audio, _ = self.model.forward_with_tokens(tokens, vector, speaker.speed / speaker.alpha)
        return audio.float().cpu().numpy().reshape(-1)


def style(voices: Mapping[str, Tensor], speaker: Speaker, phonemes: int) -> Tensor:
    """Return the style vector [1, 256] of a speaker.

    Args:
        voices: Kokoro's voices, [510, 256] each.
        speaker: the pseudo-speaker.
        phonemes: length of the utterance, on which the style depends.

    Raises:
        ValueError: the speaker's blend names an unknown voice.
    """
    timbre = _blend(voices, speaker.voice_blend, phonemes)
    prosody = _blend(voices, speaker.prosody_blend, phonemes)
    return torch.cat([timbre[:, :TIMBRE_SIZE], prosody[:, TIMBRE_SIZE:]], 1)


def _blend(voices: Mapping[str, Tensor], blend: Blend, phonemes: int) -> Tensor:
    if missing := [voice for voice, _ in blend if voice not in voices]:
        raise ValueError(f"no voice {', '.join(missing)}; there are {', '.join(sorted(voices))}")
    styles = [weight * style_at_length(voices[voice], phonemes) for voice, weight in blend]
    return torch.stack(styles).sum(0) / sum(weight for _, weight in blend)


def style_at_length(voice: Tensor, phonemes: int) -> Tensor:
    """Return a voice's style vector [1, 256] for an utterance of so many phonemes.

    Of a voice with fewer than 510 vectors, the two nearest are interpolated.
    """
    length, count = 510, len(voice)
    at = min(phonemes - 1, length - 1) * (count - 1) / (length - 1)
    low = min(int(at), count - 2) if count > 1 else 0
    high = min(low + 1, count - 1)
    return torch.lerp(voice[low], voice[high], at - low).reshape(1, -1)


def spell(text: str, speaker: Speaker) -> str:
    """Return the text's phonemes in the speaker's English; it takes about a millisecond a sentence."""
    return dictionary(speaker.british)(text)


def skeleton(config: dict) -> nn.Module:
    """Return `kokoro.KModel` with random weights and without weight norm.

    The package's `__init__` is not run: it would need a phonemizer with hundreds of megabytes of models,
    which the model itself does not use.

    Args:
        config: Kokoro's config.json.

    Raises:
        ValueError: Kokoro's code is not installed.
    """
    if "kokoro" not in sys.modules:
        spec = importlib.util.find_spec("kokoro")
        if spec is None or importlib.util.find_spec("loguru") is None:
            raise ValueError(
                "Kokoro's code is missing: pip install --no-deps kokoro==0.9.4 && pip install attrs loguru"
            )
        package = importlib.util.module_from_spec(spec)
        sys.modules["kokoro"] = package
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is written for an older PyTorch
        model_class = importlib.import_module("kokoro.model").KModel
        model = model_class(repo_id="hexgrad/Kokoro-82M", config=config, model=nothing)
    for module in model.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return model


def dequantize(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 weights of a file that `training.synthetic.convert_kokoro` wrote.

    They are (integers - NAME.zero) * NAME.scale.
    """
    weights = {}
    for name, tensor in stored.items():
        if name.endswith((SCALE, ZERO)):
            continue
        weights[name] = tensor.float()
        if name + SCALE in stored:
            shape = (-1, *[1] * (tensor.ndim - 1))
            zero, scale = (stored[name + part].float().view(shape) for part in (ZERO, SCALE))
            weights[name] = (weights[name] - zero) * scale
    return weights
