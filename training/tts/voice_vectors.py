"""Voice vectors of the sequences of a TTS training, by a frozen encoder."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cat_tts import CatTTS
from cat_tts.speakers.voice_vector import VoiceVectorEncoder


class VoiceClips(NamedTuple):
    """The clips of which the voice vectors of a batch are computed, padded on the right with zeros."""

    codes: Int[Tensor, "b f k"]
    frames: Int[Tensor, " b"]
    """Frames of each clip; 0 for a sequence that goes without a vector."""

    def to(self, device: torch.device) -> "VoiceClips":
        """Return the clips on another device."""
        return VoiceClips(*(part.to(device, non_blocking=True) for part in self))


def voice_clips(codes: Sequence[Int[Tensor, "_ k"]], dropped: Bool[Tensor, " b"] | None = None) -> VoiceClips:
    """Collect the clips of a batch; those that are `dropped` become empty."""
    left_out = [False] * len(codes) if dropped is None else dropped.tolist()
    clips = [clip[:0] if out else clip for clip, out in zip(codes, left_out, strict=True)]
    return VoiceClips(pad_sequence(clips, True), torch.tensor([len(clip) for clip in clips]))


@torch.no_grad()
def voice_vectors(
    encoder: VoiceVectorEncoder | None, clips: VoiceClips | None, depth: Int[Tensor, " b"]
) -> Float[Tensor, "b e"] | None:
    """Compute the voice vectors of a batch, each at the depth of its sequence.

    Args:
        encoder: The encoder, on the device of the batch; None where the model reads no vectors.
        clips: The clips; None where the model reads no vectors.
        depth: Depth [b] of each sequence. An encoder of fewer codebooks reads those that it has.

    Returns:
        Vectors [b, e] of length 1, zeros for sequences that go without; None without an encoder.
    """
    if encoder is None or clips is None:
        return None
    vectors = torch.zeros(len(depth), encoder.config.vector_dim, device=depth.device)
    present = clips.frames.nonzero()[:, 0]
    if len(present):
        depth = depth[present].clamp(max=encoder.config.num_codebooks)
        vectors[present] = encoder(clips.codes[present], clips.frames[present], depth)
    return vectors


def load_speaker_encoder(source: str | None, codebook_size: int) -> VoiceVectorEncoder | None:
    """Load the encoder of a folder or hub id, frozen; None where there is none to load.

    Raises:
        ValueError: There is no such encoder, or its codebooks have another size.
    """
    if source is None:
        return None
    encoder = VoiceVectorEncoder.from_pretrained(source)
    if encoder.config.codebook_size != codebook_size:
        raise ValueError(
            f"{source} reads codebooks of {encoder.config.codebook_size} codes, but these have "
            f"{codebook_size}: give an encoder that was trained on codes of the same tokenizer"
        )
    return encoder.requires_grad_(False)


def weights_sha256(encoder: VoiceVectorEncoder | None) -> str | None:
    """Return the SHA-256 of an encoder's weights, by which a run knows its encoder; None without one."""
    if encoder is None:
        return None
    return hashlib.sha256(save(dict(sorted(encoder.state_dict().items())))).hexdigest()


def condition_on_voice(model: CatTTS, encoder: VoiceVectorEncoder | None, *, adapters_only: bool) -> None:
    """Let the model that a training starts from read the vectors of an encoder, in place.

    Args:
        model: The model; one that reads none gets a projection.
        encoder: The encoder; None for a model that reads none.
        adapters_only: Whether nothing but adapters will be trained.

    Raises:
        ValueError: The model reads vectors, but there is no encoder, or one of another width; or adapters
            alone would be trained, and the new projection would stay zero.
    """
    has, wanted = model.config.speaker_dim, None if encoder is None else encoder.config.vector_dim
    if has == wanted:
        return
    if wanted is None:
        raise ValueError(
            f"the model reads voice vectors of {has} numbers: name their encoder with --speaker-encoder"
        )
    if has is not None:
        raise ValueError(
            f"the model reads voice vectors of {has} numbers, those of this speaker_encoder have {wanted}"
        )
    if adapters_only:
        raise ValueError(
            "lora.rank trains adapters alone, and this model has no projection of voice vectors yet: "
            "train it with --lora.rank 0 first, or without --speaker-encoder"
        )
    model.add_speaker_projection(wanted)
