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
from tokenizer.layers.quantizer_inference import Lookup, Search
from tokenizer.layers.streaming import StreamCache
from tokenizer.layers.transformer import Stage, fold, unfold
from tokenizer.layers.vocoder import Vocoder

Parts = Literal["both", "encoder", "decoder"]
"""Which halves stand beside the quantizer: an encoder is enough for prompts, a decoder for speech."""


@dataclass(frozen=True)
class Reconstruction:
    """One training pass: audio rebuilt from the first codebooks, and the quantizer's own losses."""

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
        """An encoder folds the `rate` of its input before its layers, a decoder unfolds it after them."""
        config, built, folds = self.config, [], part == "encoder"
        stages: tuple[StageConfig, ...] = getattr(config, part)
        for stage in stages if self.parts in (part, "both") else ():
            rate = rate / stage.patch_size if folds else rate
            window = int(rate * config.context_seconds)
            built.append(Stage(stage, window, config.rope_period, config.layer_scale))
            rate = rate if folds else rate * stage.patch_size
        return cast("list[Stage]", nn.ModuleList(built))

    def forward(self, audio: Float[Tensor, "b s"], depth: Int[Tensor, " b"] | None = None) -> Reconstruction:
        """Rebuild whole frames of audio for training; sample i uses its first `depth[i]` codebooks."""
        quantized = self.quantizer(self.latents(audio), depth)
        audio = self.synthesize(quantized.latents)
        return Reconstruction(audio, quantized.codes, quantized.commitment_loss, quantized.codebook_loss)

    def latents(
        self, audio: Float[Tensor, "b s"], cache: StreamCache | None = None
    ) -> Float[Tensor, "b t d"]:
        """The encoder alone: whole frames of audio to what the quantizer sees."""
        self._require("encoder")
        x = audio[:, :, None]
        for i, stage in enumerate(self.encoder):
            x = stage(fold(x, stage.config.patch_size), cache.stages[i] if cache else None)
        return x

    def synthesize(
        self, latents: Float[Tensor, "b t d"], cache: StreamCache | None = None
    ) -> Float[Tensor, "b s"]:
        """The decoder alone: quantised latents to audio."""
        controls = self.controls(latents, cache)
        if self.vocoder:
            return self.vocoder(controls, cache.vocoder if cache else None)
        return controls.flatten(1)

    def controls(
        self, latents: Float[Tensor, "b t d"], cache: StreamCache | None = None
    ) -> Float[Tensor, "b u c"]:
        """What the last decoder stage hands out: controls of the vocoder, or patches where there is none."""
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
        """Codes of audio in [-1, 1] at `config.sample_rate`; the last frame is completed with silence.

        With a cache (from `encoder_cache`), successive calls continue one stream; each must then bring
        whole frames. Raises ValueError on a depth or a length that cannot be.
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
        search = cache.quantizer if cache else self.quantizer.search()
        if not isinstance(search, Search):
            raise ValueError("this cache is of a stream to decode: give one of encoder_cache")
        return search(self.latents(F.pad(audio, (0, missing)), cache), depth)

    @torch.no_grad()
    def decode(
        self,
        codes: Int[Tensor, "b t k"],
        cache: StreamCache | None = None,
        depth: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b s"]:
        """Audio of `codes`; their number of columns is the depth. `cache` continues a stream.

        With `depth`, row i is decoded from its first `depth[i]` columns; what the others hold is not read.
        """
        self._depth(codes.shape[-1])
        if depth is not None:
            depth = self._depths(depth, codes)
        lookup = cache.quantizer if cache else self.quantizer.lookup()
        if not isinstance(lookup, Lookup):
            raise ValueError("this cache is of a stream to encode: give one of decoder_cache")
        return self.synthesize(lookup(codes, depth), cache)

    def encoder_cache(self, batch: int = 1) -> StreamCache:
        """The state in which a stream of `batch` signals to encode begins."""
        self._require("encoder")
        return StreamCache([stage.cache(batch) for stage in self.encoder], self.quantizer.search())

    def decoder_cache(self, batch: int = 1) -> StreamCache:
        """The state in which a stream of `batch` signals to decode begins."""
        self._require("decoder")
        stages, lookup = [stage.cache(batch) for stage in self.decoder], self.quantizer.lookup().folded()
        vocoder = self.vocoder.state(batch, stages[0].block.device) if self.vocoder else None
        return StreamCache(stages, lookup, vocoder)

    def _depths(self, depth: Int[Tensor, " b"], codes: Int[Tensor, "b t k"]) -> Int[Tensor, " b"]:
        """`depth` where `codes` are; its values are checked where that costs no wait, on the CPU."""
        rows, _, columns = codes.shape
        if depth.shape != (rows,):
            raise ValueError(f"depth of shape {tuple(depth.shape)} for {rows} rows of codes: give one a row")
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

        However they are stored, weights are float32: the quantizer's decisions need it. `parts` saves the
        memory of a half that is not used.
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
