"""The tokenizer and its heads as one module, and how training runs it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenizer import AudioTokenizer
from tokenizer.discriminators import DiscriminatorOutput, Discriminators
from tokenizer.layers.transformer import Layer
from tokenizer.layers.vocoder import NOISE_SAMPLES
from training.audio_tokenizer.heads.ctc import CTCHead
from training.audio_tokenizer.heads.pitch import PitchHead, pitch_loss
from training.audio_tokenizer.heads.semantic import ByteText, SemanticHead, SemanticLoss
from training.audio_tokenizer.heads.spectral import STEPS, SpectralHead
from training.data.pitch_tracking import Pitch, track_pitch


class JointOutput(NamedTuple):
    """The output of a forward pass; a tuple, so that wrappers of modules see its tensors."""

    audio: Float[Tensor, "b s"] | None
    """Rebuilt audio; None without a decoder to train."""
    codes: Int[Tensor, "b t k"]
    projected: Float[Tensor, "b t k l"]
    """The projected residuals that became the codes."""
    commitment: Float[Tensor, ""]
    codebook: Float[Tensor, ""]
    semantic: Float[Tensor, ""] | None
    """Cross-entropy summed over the texts of this process's items; None without a semantic head."""
    spectral: Float[Tensor, ""] | None
    """None without a spectral head."""
    ctc: Float[Tensor, ""] | None
    """Summed over the texts of this process's items; None without a CTC head."""
    pitch: Float[Tensor, ""] | None
    """Error of the pitch in octaves; None where its loss has no weight."""


class JointModel(nn.Module):
    """All that is trained together in one forward pass, as data-parallel wrappers need it (paper 3.2)."""

    latents: Float[Tensor, "b t d"] | None = None
    """The quantizer's output in the last pass, for gradients at it: wrappers may return a copy of what a pass
    returns, through which no loss was computed."""

    def __init__(
        self,
        tokenizer: AudioTokenizer,
        head: SemanticHead | None,
        spectral: SpectralHead | None = None,
        ctc: CTCHead | None = None,
        pitch: PitchHead | None = None,
        without_decoder: bool = False,
        supervise_pitch: bool = False,
    ) -> None:
        """Join the modules.

        Args:
            tokenizer: The tokenizer.
            head: Semantic head, if any.
            spectral: Head that predicts spectra, if any.
            ctc: CTC head, if any; it needs a semantic head that reads bytes, or none.
            pitch: Head that predicts the pitch, if any.
            without_decoder: Leave the decoder out.
            supervise_pitch: Train the pitch of the decoder's vocoder on that of the audio.

        Raises:
            ValueError: CTC head and semantic head have different text tokens.
        """
        super().__init__()
        if ctc is not None and head is not None and head.config.text != "bytes":
            raise ValueError(
                "weights.ctc reads bytes, and the semantic head other tokens: "
                "give one of the two a weight of 0"
            )
        self.tokenizer, self.head, self.spectral, self.ctc = tokenizer, head, spectral, ctc
        self.pitch, self.without_decoder, self.supervise_pitch = pitch, without_decoder, supervise_pitch
        # The modules that FSDP2 gathers one at a time; Accelerate looks for this name.
        self._no_split_modules = ["Layer"] if head is None else ["Layer", "Qwen2DecoderLayer"]

    @property
    def encode_text(self) -> Callable[[str], list[int]] | None:
        """The function from a text to token ids, for the heads that read text; None without such a head."""
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
        decoder_inputs: Sequence[Sequence[int]] | None = None,
    ) -> JointOutput:
        """Rebuild the audio from the first `depth` codebooks and predict the texts from the same latents.

        Args:
            audio: Samples.
            frames: Frames of each item's audio; the rest is padding.
            depth: Codebooks of each item.
            tasks: Index of each item's task in `TASKS`.
            texts: Token ids of each item; none where it has no text.
            frozen: Keep encoder and quantizer out of the graph, and so what codes mean (Figure 4, partial).
            decoder_inputs: Token ids that the semantic head reads, where they are not the texts.

        Returns:
            Rebuilt audio, codes and losses, each loss None without its head.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            quantized = self.tokenizer.quantizer(self.tokenizer.latents(audio), depth)
        self.latents = quantized.latents
        rebuilt = octaves = None
        if not self.without_decoder:
            rebuilt, octaves = self.synthesize(quantized.latents, audio)
        elif self.pitch is not None:
            octaves = pitch_loss(self.pitch(quantized.latents), self.track_pitch(audio))
        losses = self.text_losses(quantized.latents, frames, tasks, texts, decoder_inputs)
        return JointOutput(
            rebuilt,
            quantized.codes,
            quantized.projected,
            quantized.commitment_loss,
            quantized.codebook_loss,
            losses["semantic"].total if "semantic" in losses else None,
            None if self.spectral is None else self.spectral(quantized.latents, audio),
            losses["ctc"].total if "ctc" in losses else None,
            octaves,
        )

    def text_losses(
        self,
        latents: Float[Tensor, "b t d"],
        frames: Int[Tensor, " b"],
        tasks: Int[Tensor, " b"],
        texts: Sequence[Sequence[int]],
        decoder_inputs: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, SemanticLoss]:
        """Return the losses of the heads that predict text, by the names of their weights; see `forward`."""
        losses, states = {}, latents
        if self.head is not None:
            losses["semantic"] = self.head(latents, frames, tasks, texts, decoder_inputs)
            inner = losses["semantic"].frame_states
            states = latents if inner is None else inner
        if self.ctc is not None:
            losses["ctc"] = self.ctc(states, frames, texts)
        return losses

    def synthesize(
        self, latents: Float[Tensor, "b t d"], audio: Float[Tensor, "b s"]
    ) -> tuple[Float[Tensor, "b s"], Float[Tensor, ""] | None]:
        """Decode latents, and compute the loss of the pitch.

        A vocoder whose pitch is supervised gets the true pitch where that is certain: harmonics that lie
        elsewhere than those of `audio` would teach its filters to blur them. Its noise begins at a place that
        depends on the audio, so that the noise is not learnt.

        Returns:
            The audio, and the loss; None without a vocoder or without supervision.
        """
        vocoder = self.tokenizer.vocoder
        if vocoder is None or not self.supervise_pitch:
            return self.tokenizer.synthesize(latents), None
        config, controls = self.tokenizer.config, self.tokenizer.controls(latents)
        target = track_pitch(audio, config.sample_rate, config.decoder[-1].patch_size)
        loss = pitch_loss(controls[..., 0], target)
        octaves = torch.where(target.confidence > 0, target.octaves, controls[..., 0].detach())
        state = vocoder.state(len(audio), audio.device)
        state.position.copy_((audio.square().sum(1) * NOISE_SAMPLES).long() % NOISE_SAMPLES)
        return vocoder(torch.cat([octaves[..., None], controls[..., 1:]], -1), state), loss

    def track_pitch(self, audio: Float[Tensor, "b s"]) -> Pitch:
        """Return the pitch that the pitch head has to predict."""
        config = self.tokenizer.config
        return track_pitch(audio, config.sample_rate, config.frame_size // STEPS)


def discriminator_outputs(
    discriminators: Discriminators, real: Float[Tensor, "b s"], rebuilt: Float[Tensor, "b s"]
) -> tuple[list[DiscriminatorOutput], list[DiscriminatorOutput]]:
    """Return the discriminators' outputs for both, for the tokenizer to learn from.

    Only `rebuilt` gets gradients; the discriminators' weights get none.
    """
    with torch.no_grad():
        real_outputs = discriminators(real)
    discriminators.requires_grad_(False)
    rebuilt_outputs = discriminators(rebuilt)
    discriminators.requires_grad_(True)
    return real_outputs, rebuilt_outputs


def checkpoint_layers(tokenizer: AudioTokenizer) -> None:
    """Keep the layers' inputs for the backward pass and compute the rest twice: less memory, more time."""
    for layer in _layers(tokenizer):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def compile_layers(tokenizer: AudioTokenizer) -> None:
    """Compile the layers in place, each width once, without new names for the weights."""
    for layer in _layers(tokenizer):
        layer.compile()


def _layers(tokenizer: AudioTokenizer) -> list[Layer]:
    return [module for module in tokenizer.modules() if isinstance(module, Layer)]
