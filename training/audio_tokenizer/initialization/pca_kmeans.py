"""Initialization of the rest of an encoder and of its quantizer, by principal components and k-means.

Behind a filter bank (`training.audio_tokenizer.initialization.filter_bank`), little is left to
calculate: the projections between the later stages output the principal components of their inputs, the
quantizer has those of the latents, each codebook those of the residual that reaches it, and its rows are
means of clusters.
"""

from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer import AudioTokenizer
from tokenizer.layers.quantizer import ResidualVQ, VectorQuantizer
from tokenizer.layers.transformer import Layer, fold
from training.audio_tokenizer.heads.spectral import SpectralHead
from training.audio_tokenizer.initialization import filter_bank
from training.audio_tokenizer.initialization.filter_bank import FIXED_STAGES, linear_map

KMEANS_ITERATIONS = 20
"""Iterations of k-means."""
FRAMES_PER_CHUNK = 8192
"""Frames whose nearest rows are searched together."""


@torch.no_grad()
def calculate(
    tokenizer: AudioTokenizer, head: SpectralHead | None, audio: Float[Tensor, "n b s"], seed: int
) -> None:
    """Install a filter bank and calculate, in place, all that stands behind it, from batches of speech.

    Layers behind the filter bank begin as the identity: they write zeros. The head begins as the linear map
    that predicts the spectra best from all codebooks.

    Args:
        tokenizer: The tokenizer.
        head: The spectral head, if any.
        audio: Batches of crops.
        seed: Seed of k-means.

    Raises:
        ValueError: the encoder's shape has no room for a filter bank.
    """
    filter_bank.install(tokenizer, audio[: -(-len(audio) // 8)].flatten(0, 1))
    x = [batch[:, :, None] for batch in audio]
    for index, stage in enumerate(tokenizer.encoder):
        x = [fold(batch, stage.config.patch_size) for batch in x]
        if index >= FIXED_STAGES:
            for layer in stage.layers:
                _zero_outputs(layer)
            x = [stage.project_in(batch) for batch in x]
            if isinstance(stage.project_out, nn.Linear):
                axes = components(torch.cat([batch.flatten(0, 1) for batch in x]))
                stage.project_out.weight.copy_(axes[: stage.config.output_dim])
                x = [stage.project_out(batch) for batch in x]
        else:
            x = [stage(batch) for batch in x]
    latents = torch.cat([batch.flatten(0, 1) for batch in x])
    fit(tokenizer.quantizer, latents, seed)
    if head is not None:
        quantized = tokenizer.quantizer(latents[None]).latents[0]
        spectra = torch.cat([head.spectra(batch).flatten(0, 1) for batch in audio])
        init_spectral_head(head, tokenizer.quantizer, quantized, spectra)


def components(x: Float[Tensor, "n d"], mean: Float[Tensor, " d"] | None = None) -> Float[Tensor, "d d"]:
    """Return the principal axes of x around 0, or around `mean`, the strongest first, as rows."""
    x = x if mean is None else x - mean
    axes = torch.linalg.eigh((x.mT.double() @ x.double()) / len(x)).eigenvectors
    return axes.flip(1).mT.float()


@torch.no_grad()
def fit(quantizer: ResidualVQ, latents: Float[Tensor, "n d"], seed: int) -> None:
    """Calculate projections and codebooks from latents, in place."""
    draw = torch.Generator().manual_seed(seed)
    mean = latents.mean(0)
    width = quantizer.layers[0].project_in.get_parameter("parametrizations.weight.original1").shape[1]
    axes = components(latents, mean)[:width]
    _project(quantizer.project_in, axes, -axes @ mean)
    _project(quantizer.project_out, axes.mT, mean)
    _fit_codebooks(quantizer.layers, quantizer.project_in(latents), draw)


@torch.no_grad()
def fit_more(
    quantizer: ResidualVQ, first: int, latents: Float[Tensor, "n d"], seed: int
) -> tuple[float, float]:
    """Calculate the codebooks behind the `first` ones, in place, from what those leave over.

    Returns:
        The parts of the variance of what is quantized that are left by the first ones, and by all.
    """
    target = quantizer.project_in(latents)
    residual = target
    for layer in quantizer.layers[:first]:
        residual = residual - layer.project_out(layer.codebook(_nearest(layer, layer.project_in(residual))))
    rest = _fit_codebooks(quantizer.layers[first:], residual, torch.Generator().manual_seed(seed))
    total = target.var(0).sum()
    return float(residual.var(0).sum() / total), float(rest.var(0).sum() / total)


def init_spectral_head(
    head: SpectralHead,
    quantizer: ResidualVQ,
    latents: Float[Tensor, "n d"],
    spectra: Float[Tensor, "n v"],
) -> None:
    """Make the head the best linear map, in place: GELU(z) - GELU(-z) is z.

    Args:
        head: The spectral head.
        quantizer: The quantizer.
        latents: Quantized latents of frames.
        spectra: Spectra of the same frames.

    Raises:
        ValueError: the head has too few units.
    """
    first, last = cast(nn.Linear, head.mlp[0]), cast(nn.Linear, head.mlp[-1])
    axes = cast(Tensor, quantizer.project_out.weight).mT
    width, centre = len(axes), quantizer.project_out.get_parameter("bias")
    if first.out_features < 2 * width:
        raise ValueError(f"a head of {first.out_features} units cannot begin as a map of {width} dimensions")
    mean = spectra.mean(0)
    matrix = linear_map((latents - centre) @ axes.mT, spectra - mean).mT
    first.weight[: 2 * width] = torch.cat([axes, -axes])
    first.bias[: 2 * width] = first.weight[: 2 * width] @ -centre
    last.weight.zero_()[:, : 2 * width] = torch.cat([matrix, -matrix], 1)
    last.bias.copy_(mean)


def _fit_codebooks(
    layers: Iterable[VectorQuantizer], residual: Float[Tensor, "n d"], draw: torch.Generator
) -> Float[Tensor, "n d"]:
    """Fit codebook by codebook, in place; return what they leave over."""
    for layer in layers:
        size, low_dim = layer.codebook.weight.shape
        axes = components(residual)[:low_dim]
        _project(layer.project_in, axes, torch.zeros(low_dim))
        _project(layer.project_out, axes.mT, torch.zeros(residual.shape[1]))
        low = layer.project_in(residual)
        rows = low[torch.randperm(len(low), generator=draw)[:size]]
        layer.codebook.weight[: len(rows)] = rows
        for _ in range(KMEANS_ITERATIONS):
            _move_rows(layer, low, draw)
        residual = residual - layer.project_out(layer.codebook(_nearest(layer, low)))
    return residual


def _zero_outputs(layer: Layer) -> None:
    layer.attention_out.weight.zero_()
    layer.ffn_out.weight.zero_()


def _project(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.get_parameter("parametrizations.weight.original0").copy_(weight.norm(dim=1, keepdim=True))
    module.get_parameter("parametrizations.weight.original1").copy_(weight)
    module.get_parameter("bias").copy_(bias)


def _nearest(layer: VectorQuantizer, low: Tensor) -> Tensor:
    return torch.cat([layer.nearest(part[None])[0] for part in low.split(FRAMES_PER_CHUNK)])


def _move_rows(layer: VectorQuantizer, low: Float[Tensor, "n l"], draw: torch.Generator) -> None:
    """Move each row to the mean of the vectors nearest to it, and unused rows to random vectors."""
    rows = layer.codebook.weight
    code = _nearest(layer, low)
    counts = torch.bincount(code, minlength=len(rows))
    sums = torch.zeros_like(rows).index_add_(0, code, low)
    rows.copy_(sums / counts.clamp(min=1)[:, None])
    unused = counts == 0
    rows[unused] = low[torch.randint(len(low), (int(unused.sum()),), generator=draw)]
