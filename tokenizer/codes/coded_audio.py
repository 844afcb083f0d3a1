"""Codes of whole signals, with all that is needed to decode them: the content of a `.cat` file."""

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenizer.model import AudioTokenizer

HASH_BYTES = 8
MAX_LAYERS = 255
MAX_CODEBOOK_SIZE = 2**16
MAX_FRAMES = 2**20
"""This is 23 hours of 12.5 frames a second."""
MAX_CODES = 2**24
"""Codes of all layers together: 11.6 hours of 32 layers, 128 MiB as a tensor."""
CHUNK_FRAMES = 750
"""Audio longer than this, a minute, is encoded and decoded in a stream, so that memory does not grow."""


class CodesError(ValueError):
    """Codes cannot be read, written or decoded; one line says what is wrong, and what helps."""


@dataclass(frozen=True, kw_only=True)
class CodedAudio:
    """The codes of one signal; the first columns of `codes` alone are the signal at a lower bitrate."""

    codes: Int[Tensor, "t k"]
    """On the CPU, a column for each codebook."""
    codebook_size: int
    sample_rate: int
    frame_size: int
    num_samples: int
    """Samples of the signal; the last frame may reach beyond it."""
    tokenizer: bytes
    """The `fingerprint` of the tokenizer that encoded them."""
    generated: bool = False
    """Synthesised speech, not a recording."""

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.is_floating_point():
            raise CodesError(f"codes of shape {tuple(self.codes.shape)}: give integers [frames, layers]")
        if not 2 <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise CodesError(f"a codebook of {self.codebook_size} codes: 2 to {MAX_CODEBOOK_SIZE} can be")
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
        """Number of codebooks."""
        return self.codes.shape[1]

    @property
    def seconds(self) -> float:
        """Duration of the signal in seconds."""
        return self.num_samples / self.sample_rate

    @property
    def bitrate(self) -> float:
        """Bitrate of the codes in bit/s."""
        return self.depth * math.log2(self.codebook_size) * self.sample_rate / self.frame_size

    def at_depth(self, depth: int | None) -> "CodedAudio":
        """Return the codes of the first `depth` layers, all where it is None.

        Args:
            depth: Number of codebooks.

        Returns:
            The signal at this depth.

        Raises:
            CodesError: If there are fewer layers.
        """
        if depth is None:
            return self
        if not 1 <= depth <= self.depth:
            raise CodesError(f"depth {depth}: these codes have {self.depth} layers, choose 1 to {self.depth}")
        return replace(self, codes=self.codes[:, :depth])


def check_size(frames: int, layers: int) -> None:
    """Raise CodesError for more codes than one file may hold, or none."""
    if not 1 <= layers <= MAX_LAYERS:
        raise CodesError(f"{layers} layers of codes: 1 to {MAX_LAYERS} can be")
    if frames > MAX_FRAMES or frames * layers > MAX_CODES:
        raise CodesError(
            f"{frames} frames of {layers} layers: at most {MAX_FRAMES} frames, {MAX_CODES} codes can be, "
            "so cut the audio"
        )


def num_frames(num_samples: int, frame_size: int) -> int:
    """Return the number of frames that hold `num_samples`, the last of which may be partly empty."""
    return -(-num_samples // frame_size)


def fingerprint(tokenizer: AudioTokenizer) -> bytes:
    """Return the first bytes of the SHA-256 of the quantizer's weights: they alone define what a code means.

    The layout of the checkpoint does not matter. A tokenizer whose decoder was trained further, with encoder
    and quantizer frozen, has the same fingerprint, and rightly: it decodes the same codes.

    Args:
        tokenizer: The tokenizer.

    Returns:
        `HASH_BYTES` bytes.
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
    """Add to codes what a file says about them.

    Args:
        tokenizer: The tokenizer that the codes are of.
        codes: [t, k].
        num_samples: Samples of the signal; by default all frames are full.
        generated: Whether the codes are synthesised speech.

    Returns:
        The codes with all that is needed to decode them.
    """
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
    """Encode audio of any length.

    Args:
        tokenizer: The tokenizer.
        audio: [s] samples in [-1, 1] at the tokenizer's sample rate.
        depth: Number of codebooks; all when None.

    Returns:
        The codes.
    """
    missing = -len(audio) % tokenizer.config.frame_size
    padded = torch.nn.functional.pad(audio, (0, missing)).to(_device(tokenizer))
    cache = tokenizer.encoder_cache()
    chunks = padded[None].split(CHUNK_FRAMES * tokenizer.config.frame_size, 1)
    codes = torch.cat([tokenizer.encode(chunk, depth, cache).cpu() for chunk in chunks], 1)[0]
    return coded(tokenizer, codes, len(audio))


def decode_audio(
    tokenizer: AudioTokenizer, audio: CodedAudio, depth: int | None = None
) -> Float[Tensor, " s"]:
    """Decode codes of any length.

    Args:
        tokenizer: The tokenizer that encoded them.
        audio: The codes.
        depth: Number of codebooks to decode; all when None.

    Returns:
        The signal [num_samples] at the tokenizer's sample rate.

    Raises:
        CodesError: If the codes are of another tokenizer, or have fewer layers.
    """
    check_origin(tokenizer, audio)
    cache = tokenizer.decoder_cache()
    chunks = audio.at_depth(depth).codes.long()[None].split(CHUNK_FRAMES, 1)
    parts = [tokenizer.decode(chunk.to(_device(tokenizer)), cache).float().cpu() for chunk in chunks]
    return torch.cat(parts, 1)[0, : audio.num_samples]


def check_origin(tokenizer: AudioTokenizer, audio: CodedAudio, ours: bytes | None = None) -> None:
    """Check that codes are of a tokenizer, which otherwise cannot decode them.

    Args:
        tokenizer: The tokenizer.
        audio: The codes.
        ours: The `fingerprint` of the tokenizer, where it is known; it is computed if None.

    Raises:
        CodesError: They are of another tokenizer.
    """
    config, ours = tokenizer.config, ours or fingerprint(tokenizer)
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
