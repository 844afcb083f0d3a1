"""Codecs to compare, behind one interface.

Ours, any codec of `transformers` that can decode the codes of the first k codebooks alone (EnCodec, DAC,
Mimi, ...), Opus and MP3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F
from transformers import AutoModel

from tokenizer import AudioTokenizer


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of a table: a codec at one of its bitrates."""

    codec: str
    depth: int | None = None
    """Codebooks in use; None where the codec has none."""
    kbps: int | None = None
    """Target, where there is no depth."""
    frame_rate: float | None = None

    @property
    def name(self) -> str:
        """The name of the setting, such as "mimi, depth 4" or "opus 6"."""
        return f"{self.codec} {self.kbps}" if self.depth is None else f"{self.codec}, depth {self.depth}"


@dataclass(frozen=True, kw_only=True)
class CodecReconstruction:
    """A recording after a codec at one setting."""

    setting: Setting
    bitrate: float
    """bit/s: of the codes, or of the whole file where the codec writes one."""
    audio: Float[np.ndarray, " s"]


@dataclass(frozen=True, kw_only=True)
class CodecOutput:
    """The codes of a recording, and the number of codes in a codebook."""

    codes: Int[np.ndarray, "t k"]
    codebook_size: int


class Codec(Protocol):
    """A codec that takes audio at `sample_rate` through each setting and cuts it to its length."""

    sample_rate: int
    settings: Sequence[Setting]

    def reconstruct(
        self, audio: Float[np.ndarray, " s"]
    ) -> tuple[list[CodecReconstruction], CodecOutput | None]:
        """Encode and decode audio at each setting.

        Args:
            audio: Mono audio [s] at `sample_rate`.

        Returns:
            The reconstruction [s] at each setting, and the codes if there are any.
        """
        ...


class CatCodec:
    """A tokenizer of this project: it encodes once, and decodes from the first codebooks.

    Args:
        name: The name of the codec in tables.
        model: The tokenizer.
        depths: The numbers of codebooks to measure.

    Raises:
        ValueError: If there is no depth, or the tokenizer has fewer codebooks.
    """

    def __init__(self, name: str, model: AudioTokenizer, depths: Sequence[int]) -> None:
        self.model, self.sample_rate = model, model.config.sample_rate
        _require_depths(name, depths, model.config.num_codebooks)
        rate = model.config.frame_rate
        self.settings: Sequence[Setting] = [
            Setting(codec=name, depth=depth, frame_rate=rate) for depth in depths
        ]

    @torch.inference_mode()
    def reconstruct(
        self, audio: Float[np.ndarray, " s"]
    ) -> tuple[list[CodecReconstruction], CodecOutput | None]:
        """Encode and decode audio at each setting, see `Codec`.

        Args:
            audio: Mono audio [s] at `sample_rate`.

        Returns:
            The reconstruction [s] at each setting, and the codes [t, k] at the deepest.
        """
        config, outputs = self.model.config, []
        device = next(self.model.parameters()).device
        deepest = max(setting.depth or 0 for setting in self.settings)
        codes = self.model.encode(torch.from_numpy(audio)[None].to(device), deepest)
        for setting in self.settings:
            decoded = self.model.decode(codes[..., : setting.depth])[0, : len(audio)].float().cpu().numpy()
            bitrate = config.bitrate(setting.depth or 0)
            outputs.append(CodecReconstruction(setting=setting, bitrate=bitrate, audio=decoded))
        return outputs, CodecOutput(codes=codes[0].cpu().numpy(), codebook_size=config.codebook_size)


class TransformersCodec:
    """A codec of `transformers`, which gets audio whose last frame is completed with silence.

    Args:
        name: The name of the codec in tables.
        model: The model, with `encode` and `decode`; the highest of its target bandwidths is used.
        depths: The numbers of codebooks to measure.

    Raises:
        ValueError: If the model is no codec of mono audio, there is no depth, or it has fewer codebooks.
    """

    def __init__(self, name: str, model: Any, depths: Sequence[int]) -> None:
        if not (hasattr(model, "encode") and hasattr(model, "decode")):
            raise ValueError(f"{name}: {type(model).__name__} does not encode and decode; name a codec")
        self.model, config = model, model.config
        if getattr(config, "audio_channels", 1) != 1:
            raise ValueError(f"{name}: codes {config.audio_channels} channels; name a codec of mono audio")
        self.sample_rate = getattr(config, "sampling_rate", None) or config.sample_rate
        hop = getattr(config, "hop_length", None)  # DAC's frame_rate is rounded up
        self.frame_rate = self.sample_rate / hop if hop else config.frame_rate
        bandwidths = getattr(config, "target_bandwidths", None)
        self._options = {"bandwidth": max(bandwidths)} if bandwidths else {}
        codes, _ = self._encode(np.zeros(self.sample_rate, dtype=np.float32))
        _require_depths(name, depths, codes.shape[-2])
        self.settings: Sequence[Setting] = [
            Setting(codec=name, depth=depth, frame_rate=self.frame_rate) for depth in depths
        ]

    @torch.inference_mode()
    def _encode(self, audio: Float[np.ndarray, " s"]) -> tuple[torch.Tensor, Callable[[int], torch.Tensor]]:
        """Return codes [..., k, t], and a function that decodes the first so many codebooks."""
        whole = F.pad(torch.from_numpy(audio), (0, -len(audio) % round(self.sample_rate / self.frame_rate)))
        output = self.model.encode(whole[None, None].to(self.model.device), **self._options)
        scales = getattr(output, "audio_scales", None)
        if scales is None:
            return (
                output.audio_codes,
                lambda depth: self.model.decode(audio_codes=output.audio_codes[:, :depth]).audio_values,
            )
        last = {"last_frame_pad_length": output.last_frame_pad_length}  # EnCodec: [chunk, b, k, t]
        return (
            output.audio_codes,
            lambda depth: self.model.decode(output.audio_codes[:, :, :depth], scales, **last).audio_values,
        )

    @torch.inference_mode()
    def reconstruct(
        self, audio: Float[np.ndarray, " s"]
    ) -> tuple[list[CodecReconstruction], CodecOutput | None]:
        """Encode and decode audio at each setting, see `Codec`.

        Args:
            audio: Mono audio [s] at `sample_rate`.

        Returns:
            The reconstruction [s] at each setting, and the codes [t, k] at the deepest.
        """
        codes, decode = self._encode(audio)
        size, outputs = self.model.config.codebook_size, []
        for setting in self.settings:
            depth = setting.depth or 0
            decoded = decode(depth).flatten()[: len(audio)].float().cpu().numpy()
            bitrate = depth * self.frame_rate * float(np.log2(size))
            outputs.append(CodecReconstruction(setting=setting, bitrate=bitrate, audio=decoded))
        deepest = max(setting.depth or 0 for setting in self.settings)
        table = codes.transpose(-1, -2).reshape(-1, codes.shape[-2])[:, :deepest].cpu().numpy()
        return outputs, CodecOutput(codes=table, codebook_size=size)


class PlainCodec:
    """A codec without a model.

    Args:
        name: The name of the codec in tables.
        code: A function that takes audio [s], its rate in Hz and kbit/s, and returns audio [s] and bit/s.
        kbps: The target bitrates in kbit/s.
        sample_rate: The rate in Hz at which the codec takes audio.
    """

    def __init__(
        self,
        name: str,
        code: Callable[[np.ndarray, int, int], tuple[np.ndarray, float]],
        kbps: Sequence[int],
        sample_rate: int = 24_000,
    ) -> None:
        self.code, self.sample_rate = code, sample_rate
        self.settings: Sequence[Setting] = [Setting(codec=name, kbps=rate) for rate in kbps]

    def reconstruct(
        self, audio: Float[np.ndarray, " s"]
    ) -> tuple[list[CodecReconstruction], CodecOutput | None]:
        """Encode and decode audio at each setting, see `Codec`.

        Args:
            audio: Mono audio [s] at `sample_rate`.

        Returns:
            The reconstruction [s] at each setting, and None: there are no codes.
        """
        outputs = []
        for setting in self.settings:
            decoded, bitrate = self.code(audio, self.sample_rate, setting.kbps or 0)
            outputs.append(CodecReconstruction(setting=setting, bitrate=bitrate, audio=decoded))
        return outputs, None


def load_transformers_codec(name: str, place: str, depths: Sequence[int], device: str) -> TransformersCodec:
    """Load a codec of `transformers`; from safetensors only, and without running code that comes with it.

    Args:
        name: The name of the codec in tables.
        place: A folder or a hub id.
        depths: The numbers of codebooks to measure.
        device: The device of the model.

    Raises:
        ValueError: If it is no codec, or does not have that many codebooks.
        OSError: If there is no such model.
    """
    model = AutoModel.from_pretrained(place, use_safetensors=True)
    return TransformersCodec(name, model.eval().to(device), depths)


def _require_depths(name: str, depths: Sequence[int], deepest: int) -> None:
    wrong = [depth for depth in depths if not 1 <= depth <= deepest]
    if wrong or not depths:
        raise ValueError(f"{name} at depths {list(depths)}: it has depths 1 to {deepest}")
