"""The CAT audio tokenizer: waveform <-> residual codes, offline and streaming, at any depth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenizer import moss_checkpoint
from tokenizer.config import StageConfig, TokenizerConfig
from tokenizer.io import checkpoint
from tokenizer.layers.quantizer import ResidualVQ
from tokenizer.layers.quantizer_inference import QuantizerDecoder, QuantizerEncoder
from tokenizer.layers.streaming import StreamCache
from tokenizer.layers.transformer import Stage, fold, unfold
from tokenizer.layers.vocoder import Vocoder

Parts = Literal["both", "encoder", "decoder"]
"""Which halves are built beside the quantizer: an encoder is enough for prompts, a decoder for speech."""


@dataclass(frozen=True)
class Reconstruction:
    """Outputs of one training pass: audio decoded from the first codebooks, and the quantizer's losses."""

    audio: Float[Tensor, "b s"]
    codes: Int[Tensor, "b t k"]
    commitment_loss: Float[Tensor, ""]
    codebook_loss: Float[Tensor, ""]


class AudioTokenizer(nn.Module):
    """Causal audio tokenizer made only of Transformer blocks (paper 3.1); a small one may end in a vocoder.

    codes = tokenizer.encode(audio)                 # [b, s] -> [b, t, k], t = ceil(s / frame_size)
    audio = tokenizer.decode(codes[..., :8])        # any depth
    cache = tokenizer.decoder_cache(batch=1)        # the same, frame by frame, sample for sample
    for frame in codes.split(1, 1):
        play(tokenizer.decode(frame, cache))
    """

    def __init__(self, config: TokenizerConfig, parts: Parts = "both") -> None:
        super().__init__()
        self.config, self.parts = config, parts
        self.encoder = self._stages("encoder", config.sample_rate)
        self.quantizer = ResidualVQ(config.quantizer, config.code_dim)
        self.decoder = self._stages("decoder", config.frame_rate)
        self.vocoder = None
        if config.vocoder and parts != "encoder":
            self.vocoder = Vocoder(config.vocoder, config.decoder[-1].patch_size, config.sample_rate)

    def _stages(self, part: Literal["encoder", "decoder"], rate: float) -> list[Stage]:
        """Build stages: an encoder divides the rate before its layers, a decoder multiplies it after them.

        Args:
            part: The half to build; it is empty where `self.parts` is the other one.
            rate: Steps a second of its input.
        """
        config, built, folds = self.config, [], part == "encoder"
        stages: tuple[StageConfig, ...] = getattr(config, part)
        for stage in stages if self.parts in (part, "both") else ():
            rate = rate / stage.patch_size if folds else rate
            window = int(rate * config.context_seconds)
            built.append(Stage(stage, window, config.rope_period, config.layer_scale))
            rate = rate if folds else rate * stage.patch_size
        return cast("list[Stage]", nn.ModuleList(built))

    def forward(self, audio: Float[Tensor, "b s"], depth: Int[Tensor, " b"] | None = None) -> Reconstruction:
        """Encode, quantise and decode whole frames of audio for training.

        Args:
            audio: [b, s] at `config.sample_rate`, s a multiple of `config.frame_size`.
            depth: By item of the batch, the number of codebooks in use (quantizer dropout); all when None.

        Returns:
            The reconstruction, the codes of all codebooks, and the quantizer's losses.
        """
        quantized = self.quantizer(self.latents(audio), depth)
        audio = self.synthesize(quantized.latents)
        return Reconstruction(audio, quantized.codes, quantized.commitment_loss, quantized.codebook_loss)

    def latents(
        self, audio: Float[Tensor, "b s"], cache: StreamCache | None = None
    ) -> Float[Tensor, "b t d"]:
        """Compute the encoder alone: the latents that the quantizer reads.

        Args:
            audio: [b, s] at `config.sample_rate`, s a multiple of `config.frame_size`.
            cache: Continues a stream, and is updated.

        Returns:
            Latents [b, t, code_dim] at `config.frame_rate`.
        """
        self._require("encoder")
        x = audio[:, :, None]
        for i, stage in enumerate(self.encoder):
            x = stage(fold(x, stage.config.patch_size), cache.stages[i] if cache else None)
        return x

    def synthesize(
        self, latents: Float[Tensor, "b t d"], cache: StreamCache | None = None
    ) -> Float[Tensor, "b s"]:
        """Compute the decoder alone: from quantised latents to audio.

        Args:
            latents: [b, t, code_dim].
            cache: Continues a stream, and is updated.

        Returns:
            Audio [b, t * config.frame_size] at `config.sample_rate`.
        """
        controls = self.controls(latents, cache)
        if self.vocoder:
            return self.vocoder(controls, cache.vocoder if cache else None)
        return controls.flatten(1)

    def controls(
        self, latents: Float[Tensor, "b t d"], cache: StreamCache | None = None
    ) -> Float[Tensor, "b u c"]:
        """Compute the last decoder stage's output: controls of the vocoder, or patches where there is none.

        Args:
            latents: [b, t, code_dim].
            cache: Continues a stream, and is updated.

        Returns:
            [b, u, c], a step for each patch of samples.
        """
        self._require("decoder")
        x = latents
        for i, stage in enumerate(self.decoder):
            x = unfold(x, self.decoder[i - 1].config.patch_size) if i else x
            x = stage(x, cache.stages[i] if cache else None)
        return x

    @torch.no_grad()
    def encode(
        self, audio: Float[Tensor, "b s"], depth: int | None = None, cache: StreamCache | None = None
    ) -> Int[Tensor, "b t k"]:
        """Encode audio as codes; the last frame is completed with silence.

        Args:
            audio: [b, s] samples in [-1, 1] at `config.sample_rate`.
            depth: Number of codebooks; all when None.
            cache: From `encoder_cache`; successive calls continue one stream, in whole frames.

        Returns:
            Codes [b, t, k], t = ceil(s / frame_size).

        Raises:
            ValueError: If the depth, the shape or the length of the audio is impossible, or the cache is that
                of a stream to decode.
        """
        depth = self._depth(self.config.num_codebooks if depth is None else depth)
        if audio.ndim != 2:
            raise ValueError(f"audio of shape {tuple(audio.shape)}: give [batch, samples]")
        missing = -audio.shape[-1] % self.config.frame_size
        if cache is not None and missing:
            raise ValueError(
                f"{audio.shape[-1]} samples in a stream: give whole frames of {self.config.frame_size}"
            )
        if audio.shape[-1] == 0:
            raise ValueError("audio has no samples: nothing to encode")
        quantizer = cache.quantizer if cache else self.quantizer.encoder()
        if not isinstance(quantizer, QuantizerEncoder):
            raise ValueError("this cache is of a stream to decode: give one of encoder_cache")
        return quantizer(self.latents(F.pad(audio, (0, missing)), cache), depth)

    @torch.no_grad()
    def decode(
        self,
        codes: Int[Tensor, "b t k"],
        cache: StreamCache | None = None,
        depth: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b s"]:
        """Decode codes as audio; their number of columns is the depth.

        Args:
            codes: [b, t, k], of the first k codebooks.
            cache: From `decoder_cache`; successive calls continue one stream.
            depth: By signal, the number of columns to decode; what the others hold is not read.

        Returns:
            Audio [b, t * config.frame_size] at `config.sample_rate`.

        Raises:
            ValueError: If a depth is impossible, or the cache is that of a stream to encode.
        """
        self._depth(codes.shape[-1])
        if depth is not None:
            depth = self._depths(depth, codes)
        quantizer = cache.quantizer if cache else self.quantizer.decoder()
        if not isinstance(quantizer, QuantizerDecoder):
            raise ValueError("this cache is of a stream to encode: give one of decoder_cache")
        return self.synthesize(quantizer(codes, depth), cache)

    def encoder_cache(self, batch: int = 1) -> StreamCache:
        """Return the state in which streams of `batch` signals to encode begin."""
        self._require("encoder")
        return StreamCache([stage.cache(batch) for stage in self.encoder], self.quantizer.encoder())

    def decoder_cache(self, batch: int = 1) -> StreamCache:
        """Return the state in which streams of `batch` signals to decode begin."""
        self._require("decoder")
        stages, quantizer = [stage.cache(batch) for stage in self.decoder], self.quantizer.decoder().folded()
        vocoder = self.vocoder.state(batch, stages[0].block.device) if self.vocoder else None
        return StreamCache(stages, quantizer, vocoder)

    def _depths(self, depth: Int[Tensor, " b"], codes: Int[Tensor, "b t k"]) -> Int[Tensor, " b"]:
        """Return `depth` on the device of `codes`.

        Its values are checked where that costs no wait, on a CPU.
        """
        batch, _, columns = codes.shape
        if depth.shape != (batch,):
            raise ValueError(f"depth of shape {tuple(depth.shape)} for a batch of {batch}: give one a signal")
        if depth.device.type == "cpu" and not (depth.min() >= 1 and depth.max() <= columns):
            raise ValueError(
                f"depth={depth.tolist()} but the codes have {columns} columns: choose 1 to {columns}"
            )
        return depth.to(codes.device)

    def _require(self, part: Literal["encoder", "decoder"]) -> None:
        if self.parts not in (part, "both"):
            raise ValueError(f"this tokenizer has no {part}: load it with parts='both' or parts='{part}'")

    def _depth(self, depth: int) -> int:
        if not 1 <= depth <= self.config.num_codebooks:
            raise ValueError(
                f"depth={depth} but this tokenizer has {self.config.num_codebooks} codebooks: "
                f"choose 1 to {self.config.num_codebooks}"
            )
        return depth

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        if self.parts != "both":
            raise ValueError(
                f"half a tokenizer, the {self.parts}, cannot be saved: load it with parts='both'"
            )
        checkpoint.save(folder, self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, model: str | Path, parts: Parts = "both") -> "AudioTokenizer":
        """Load a folder or hub id in this project's layout or the published MOSS-Audio-Tokenizer layout.

        However they are stored, weights are float32: the quantizer's decisions need it.

        Args:
            model: A folder, or a hub id such as owner/name.
            parts: The halves to load; a half that is not used then takes no memory.

        Returns:
            The tokenizer, in evaluation mode.

        Raises:
            ValueError: If `parts` is none of the choices.
            CheckpointError: If the folder cannot be loaded.
        """
        if parts not in get_args(Parts):
            raise ValueError(f"parts={parts!r}: choose one of {', '.join(get_args(Parts))}")
        unused = {"both": None, "encoder": "decoder.", "decoder": "encoder."}[parts]
        folder = checkpoint.local_folder(model)
        raw = checkpoint.read_json(folder / checkpoint.CONFIG)
        if moss_checkpoint.is_published(raw):
            config = moss_checkpoint.config_from_published(raw)
            state = moss_checkpoint.state_from_published(checkpoint.read_weights(folder, unused))
        else:
            config = checkpoint.read_config(TokenizerConfig, folder / checkpoint.CONFIG)
            state = checkpoint.read_weights(folder, unused)
        with torch.device("meta"):
            tokenizer = cls(config, parts)
        checkpoint.load_weights(tokenizer, state, folder)
        return tokenizer.float().eval()
