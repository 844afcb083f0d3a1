"""The tokenizer and its heads as the one module that training runs, and how it is run."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators, Judgement
from tokenizer.layers.transformer import Layer
from tokenizer.layers.vocoder import NOISE
from training.audio_tokenizer.heads.ctc import CTCHead
from training.audio_tokenizer.heads.pitch import Pitch, PitchHead, pitch_loss, track
from training.audio_tokenizer.heads.semantic import ByteText, SemanticHead, SemanticLoss
from training.audio_tokenizer.heads.spectral import STEPS, SpectralHead


class Rebuilt(NamedTuple):
    """What a step's losses are made of; a tuple, so that wrappers of modules see its tensors."""

    audio: Float[Tensor, "b s"] | None
    """None while there is no decoder to train."""
    codes: Int[Tensor, "b t k"]
    low: Float[Tensor, "b t k l"]
    """What the codes stand for."""
    commitment: Float[Tensor, ""]
    codebook: Float[Tensor, ""]
    semantic: Float[Tensor, ""] | None
    """Cross-entropy summed over the texts of this process's items; None without a semantic head."""
    spectral: Float[Tensor, ""] | None
    """None without a spectral head."""
    ctc: Float[Tensor, ""] | None
    """Summed over the texts of this process's items; None without a CTC head."""
    pitch: Float[Tensor, ""] | None
    """In octaves; None where nobody asks for it."""


class Joint(nn.Module):
    """One forward pass of all that is trained together, as data-parallel wrappers want it (paper 3.2)."""

    latents: Float[Tensor, "b t d"] | None = None
    """The quantizer's output in the last pass, to ask for gradients at it: wrappers may return a copy of what
    a pass returns, through which no loss was computed."""

    def __init__(
        self,
        tokenizer: AudioTokenizer,
        head: SemanticHead | None,
        spectral: SpectralHead | None = None,
        ctc: CTCHead | None = None,
        pitch: PitchHead | None = None,
        silent: bool = False,
        pitched: bool = False,
    ) -> None:
        """`silent` leaves the decoder out; `pitched` teaches the pitch to its vocoder."""
        super().__init__()
        if ctc is not None and head is not None and head.config.text != "bytes":
            raise ValueError(
                "weights.ctc reads bytes, and the semantic head other tokens: "
                "give one of the two a weight of 0"
            )
        self.tokenizer, self.head, self.spectral, self.ctc = tokenizer, head, spectral, ctc
        self.pitch, self.silent, self.pitched = pitch, silent, pitched
        # what FSDP2 gathers one at a time, under the name at which Accelerate looks
        self._no_split_modules = ["Layer"] if head is None else ["Layer", "Qwen2DecoderLayer"]

    @property
    def encode_text(self) -> Callable[[str], list[int]] | None:
        """Token ids of a text, for the heads that read; None where there is none."""
        if self.head is not None:
            return self.head.encode_text
        return None if self.ctc is None else ByteText().encode

    def forward(
        self,
        audio: Float[Tensor, "b s"],
        frames: Int[Tensor, " b"],
        depth: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        frozen: bool = False,
        given: Sequence[Sequence[int]] | None = None,
    ) -> Rebuilt:
        """Rebuild the audio from the first `depth` codebooks and read the texts out of the same latents.

        `frozen` keeps encoder and quantizer out of the graph, and so what codes mean (Figure 4, partial).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            quantized = self.tokenizer.quantizer(self.tokenizer.latents(audio), depth)
        self.latents = quantized.latents
        rebuilt = octaves = None
        if not self.silent:
            rebuilt, octaves = self.synthesize(quantized.latents, audio)
        elif self.pitch is not None:
            octaves = pitch_loss(self.pitch(quantized.latents), self.track(audio))
        read = self.read(quantized.latents, frames, tasks, texts, given)
        return Rebuilt(
            rebuilt,
            quantized.codes,
            quantized.low,
            quantized.commitment_loss,
            quantized.codebook_loss,
            read["semantic"].total if "semantic" in read else None,
            None if self.spectral is None else self.spectral(quantized.latents, audio),
            read["ctc"].total if "ctc" in read else None,
            octaves,
        )

    def read(
        self,
        latents: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        given: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, SemanticLoss]:
        """Losses of the heads that there are for texts, under the names of their weights."""
        losses, heard = {}, latents
        if self.head is not None:
            losses["semantic"] = self.head(latents, frames, tasks, texts, given)
            heard = latents if losses["semantic"].heard is None else losses["semantic"].heard
        if self.ctc is not None:
            losses["ctc"] = self.ctc(heard, frames, texts)
        return losses

    def synthesize(
        self, latents: Float[Tensor, "b t d"], audio: Float[Tensor, "b s"]
    ) -> tuple[Float[Tensor, "b s"], Float[Tensor, ""] | None]:
        """The decoder's audio, and what its pitch costs.

        A vocoder that is taught is given the true pitch where that is sure: harmonics that lie elsewhere than
        those of `audio` would teach its filters to blur them. Its noise begins where what is heard says,
        lest it be learnt.
        """
        vocoder = self.tokenizer.vocoder
        if vocoder is None or not self.pitched:
            return self.tokenizer.synthesize(latents), None
        config, controls = self.tokenizer.config, self.tokenizer.controls(latents)
        wanted = track(audio, config.sample_rate, config.decoder[-1].patch_size)
        loss = pitch_loss(controls[..., 0], wanted)
        given = torch.where(wanted.sure > 0, wanted.octaves, controls[..., 0].detach())
        state = vocoder.state(len(audio), audio.device)
        state.position.copy_((audio.square().sum(1) * NOISE).long() % NOISE)
        return vocoder(torch.cat([given[..., None], controls[..., 1:]], -1), state), loss

    def track(self, audio: Float[Tensor, "b s"]) -> Pitch:
        """What the pitch head has to find."""
        config = self.tokenizer.config
        return track(audio, config.sample_rate, config.frame_size // STEPS)


def judged(
    discriminators: Discriminators, real: Float[Tensor, "b s"], rebuilt: Float[Tensor, "b s"]
) -> tuple[list[Judgement], list[Judgement]]:
    """What the discriminators make of both, for the tokenizer to learn from: only `rebuilt` has gradients."""
    with torch.no_grad():
        of_real = discriminators(real)
    discriminators.requires_grad_(False)
    of_rebuilt = discriminators(rebuilt)
    discriminators.requires_grad_(True)
    return of_real, of_rebuilt


def checkpoint_layers(tokenizer: AudioTokenizer) -> None:
    """Keep the layers' inputs for the backward pass and compute the rest twice: less memory, more time."""
    for layer in _layers(tokenizer):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(tokenizer: AudioTokenizer) -> None:
    """Compile the layers in place, each width once; the names of the weights stay."""
    for layer in _layers(tokenizer):
        layer.compile()


def _layers(tokenizer: AudioTokenizer) -> list[Layer]:
    return [module for module in tokenizer.modules() if isinstance(module, Layer)]
