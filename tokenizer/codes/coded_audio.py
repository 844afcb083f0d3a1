"""Audio as codes, with all that is needed to decode them: what a `.cat` file holds."""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.model import AudioTokenizer

HASH_BYTES = 8
MOST_LAYERS = 255
MOST_CODEBOOK_SIZE = 2**16
MOST_FRAMES = 2**20
"""23 hours of 12.5 frames a second."""
MOST_CODES = 2**24
"""Of all layers together: 11.6 hours of 32 layers, 128 MiB as tensor."""
CHUNK_FRAMES = 750
"""Longer audio, a minute, goes through the tokenizer in a stream, so that memory does not grow with it."""


class CodesError(ValueError):
    """Codes that cannot be read, written or decoded: one line that says what is wrong, and the cure."""


@dataclass(frozen=True, kw_only=True)
class CodedAudio:
    """The codes of one signal. `codes` of its first columns only are the same signal at a lower bitrate."""

    codes: Int[Tensor, "t k"]
    """On the CPU."""
    codebook_size: int
    sample_rate: int
    frame_size: int
    num_samples: int
    """Of the signal; the last frame may reach beyond it."""
    tokenizer: bytes
    """The `fingerprint` of what made the codes."""
    generated: bool = False
    """Synthesised speech, not a recording."""

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.is_floating_point():
            raise CodesError(f"codes of shape {tuple(self.codes.shape)}: give integers [frames, layers]")
        if not 2 <= self.codebook_size <= MOST_CODEBOOK_SIZE:
            raise CodesError(f"a codebook of {self.codebook_size} codes: 2 to {MOST_CODEBOOK_SIZE} can be")
        if not (0 < self.sample_rate < 2**32 and 0 < self.frame_size < 2**32 and self.num_samples > 0):
            raise CodesError(
                f"{self.num_samples} samples at {self.sample_rate} Hz, {self.frame_size} a frame: cannot be"
            )
        frames, layers = self.codes.shape
        check_size(frames, layers)
        if frames != num_frames(self.num_samples, self.frame_size):
            raise CodesError(f"{frames} frames of {self.frame_size} samples for {self.num_samples} samples")
        if self.codes.min() < 0 or self.codes.max() >= self.codebook_size:
            raise CodesError(f"a code outside the codebook of {self.codebook_size}")
        if len(self.tokenizer) != HASH_BYTES:
            raise CodesError(f"a tokenizer hash of {len(self.tokenizer)} bytes, not {HASH_BYTES}")

    @property
    def depth(self) -> int:
        return self.codes.shape[1]

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def bitrate(self) -> float:
        """Of the codes, in bit/s."""
        return self.depth * math.log2(self.codebook_size) * self.sample_rate / self.frame_size

    def at_depth(self, depth: int | None) -> "CodedAudio":
        """The first `depth` layers, all where it is None."""
        if depth is None:
            return self
        if not 1 <= depth <= self.depth:
            raise CodesError(f"depth {depth}: these codes have {self.depth} layers, choose 1 to {self.depth}")
        return replace(self, codes=self.codes[:, :depth])


def check_size(frames: int, layers: int) -> None:
    """CodesError for more codes than one file may hold."""
    if not 1 <= layers <= MOST_LAYERS:
        raise CodesError(f"{layers} layers of codes: 1 to {MOST_LAYERS} can be")
    if frames > MOST_FRAMES or frames * layers > MOST_CODES:
        raise CodesError(
            f"{frames} frames of {layers} layers: at most {MOST_FRAMES} frames, {MOST_CODES} codes can be, "
            "so cut the audio"
        )


def num_frames(num_samples: int, frame_size: int) -> int:
    return -(-num_samples // frame_size)


def fingerprint(tokenizer: AudioTokenizer) -> bytes:
    """The first bytes of the SHA-256 of the quantizer's weights: they alone say what a code means.

    The layout of the checkpoint does not matter. A tokenizer whose decoder was trained further while encoder
    and quantizer stood still has the same one, and rightly: it decodes the same codes.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(tokenizer.quantizer.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)} ".encode())
        digest.update(weight.float().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.digest()[:HASH_BYTES]


def coded(
    tokenizer: AudioTokenizer,
    codes: Int[Tensor, "t k"],
    num_samples: int | None = None,
    *,
    generated: bool = False,
) -> CodedAudio:
    """Codes of `tokenizer` with what a file has to say about them; by default all frames are full."""
    config = tokenizer.config
    return CodedAudio(
        codes=codes.cpu(),
        codebook_size=config.codebook_size,
        sample_rate=config.sample_rate,
        frame_size=config.frame_size,
        num_samples=len(codes) * config.frame_size if num_samples is None else num_samples,
        tokenizer=fingerprint(tokenizer),
        generated=generated,
    )


def encode_audio(
    tokenizer: AudioTokenizer, audio: Float[Tensor, " s"], depth: int | None = None
) -> CodedAudio:
    """Audio at the tokenizer's sample rate as codes; any length."""
    missing = -len(audio) % tokenizer.config.frame_size
    padded = torch.nn.functional.pad(audio, (0, missing)).to(_device(tokenizer))
    cache = tokenizer.encoder_cache()
    chunks = padded[None].split(CHUNK_FRAMES * tokenizer.config.frame_size, 1)
    codes = torch.cat([tokenizer.encode(chunk, depth, cache).cpu() for chunk in chunks], 1)[0]
    return coded(tokenizer, codes, len(audio))


def decode_audio(
    tokenizer: AudioTokenizer, audio: CodedAudio, depth: int | None = None
) -> Float[Tensor, " s"]:
    """The signal again, from the first `depth` layers; CodesError for codes of another tokenizer."""
    check_origin(tokenizer, audio)
    cache = tokenizer.decoder_cache()
    chunks = audio.at_depth(depth).codes.long()[None].split(CHUNK_FRAMES, 1)
    parts = [tokenizer.decode(chunk.to(_device(tokenizer)), cache).float().cpu() for chunk in chunks]
    return torch.cat(parts, 1)[0, : audio.num_samples]


def check_origin(tokenizer: AudioTokenizer, audio: CodedAudio) -> None:
    """CodesError where `tokenizer` did not make the codes and cannot decode them."""
    config, ours = tokenizer.config, fingerprint(tokenizer)
    if audio.tokenizer != ours:
        raise CodesError(
            f"made by the tokenizer {audio.tokenizer.hex()}, but this one is {ours.hex()}: "
            "choose the model that made it"
        )
    expected = (config.codebook_size, config.sample_rate, config.frame_size)
    if (audio.codebook_size, audio.sample_rate, audio.frame_size) != expected or (
        audio.depth > config.num_codebooks
    ):
        raise CodesError(f"cannot be of the tokenizer {ours.hex()} that it names: encode it again")


def _device(tokenizer: AudioTokenizer) -> torch.device:
    return next(tokenizer.parameters()).device
