"""The rest of an encoder and its quantizer, calculated: principal components and k-means.

Behind a filter bank (`training.audio_tokenizer.initialization.filter_bank`), what is left to say about a
frame is little: the joints between the later stages hand on the principal components of what they are given,
the quantizer has those of the latents, each codebook those of the residual that reaches it, and its rows are
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
from training.audio_tokenizer.initialization.filter_bank import HELD, linear_map

TURNS = 20
"""Of k-means."""
AT_ONCE = 8192
"""Frames whose nearest rows are looked for together."""


@torch.no_grad()
def calculate(
    tokenizer: AudioTokenizer, head: SpectralHead | None, audio: Float[Tensor, "n b s"], seed: int
) -> None:
    """Install a filter bank and calculate, in place, all that stands behind it, from batches of speech.

    Layers behind the filter bank begin as nothing: they write zeros. The head begins as the linear map that
    reads the spectra best out of all codebooks.

    Raises:
        ValueError: the encoder's shape has no room for a filter bank.
    """
    filter_bank.install(tokenizer, audio[: -(-len(audio) // 8)].flatten(0, 1))
    x = [batch[:, :, None] for batch in audio]
    for index, stage in enumerate(tokenizer.encoder):
        x = [fold(batch, stage.config.patch_size) for batch in x]
        if index >= HELD:
            for layer in stage.layers:
                _silence(layer)
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
        begin(head, tokenizer.quantizer, quantized, spectra)


def components(x: Float[Tensor, "n d"], mean: Float[Tensor, " d"] | None = None) -> Float[Tensor, "d d"]:
    """Principal axes of x around 0, or around `mean`, the strongest first, as rows."""
    x = x if mean is None else x - mean
    axes = torch.linalg.eigh((x.mT.double() @ x.double()) / len(x)).eigenvectors
    return axes.flip(1).mT.float()


@torch.no_grad()
def fit(quantizer: ResidualVQ, latents: Float[Tensor, "n d"], seed: int) -> None:
    """Calculate projections and codebooks, in place."""
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

    Returns the parts of the variance of what is quantised that are left then, and with the new ones.
    """
    asked = quantizer.project_in(latents)
    residual = asked
    for layer in quantizer.layers[:first]:
        residual = residual - layer.project_out(layer.codebook(_nearest(layer, layer.project_in(residual))))
    rest = _fit_codebooks(quantizer.layers[first:], residual, torch.Generator().manual_seed(seed))
    all_of_it = asked.var(0).sum()
    return float(residual.var(0).sum() / all_of_it), float(rest.var(0).sum() / all_of_it)


def begin(
    head: SpectralHead,
    quantizer: ResidualVQ,
    latents: Float[Tensor, "n d"],
    spectra: Float[Tensor, "n v"],
) -> None:
    """Let the head be the best linear map: GELU(z) - GELU(-z) is z."""
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
    """Codebook by codebook, in place; what they leave over."""
    for layer in layers:
        size, low_dim = layer.codebook.weight.shape
        own = components(residual)[:low_dim]
        _project(layer.project_in, own, torch.zeros(low_dim))
        _project(layer.project_out, own.mT, torch.zeros(residual.shape[1]))
        low = layer.project_in(residual)
        rows = low[torch.randperm(len(low), generator=draw)[:size]]
        layer.codebook.weight[: len(rows)] = rows
        for _ in range(TURNS):
            _move_rows(layer, low, draw)
        residual = residual - layer.project_out(layer.codebook(_nearest(layer, low)))
    return residual


def _silence(layer: Layer) -> None:
    layer.attention_out.weight.zero_()
    layer.ffn_out.weight.zero_()


def _project(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    module.get_parameter("parametrizations.weight.original0").copy_(weight.norm(dim=1, keepdim=True))
    module.get_parameter("parametrizations.weight.original1").copy_(weight)
    module.get_parameter("bias").copy_(bias)


def _nearest(layer: VectorQuantizer, low: Tensor) -> Tensor:
    return torch.cat([layer.nearest(part[None])[0] for part in low.split(AT_ONCE)])


def _move_rows(layer: VectorQuantizer, low: Float[Tensor, "n l"], draw: torch.Generator) -> None:
    """Each row to the mean of what is nearest to it; one that has nothing, to anything."""
    rows = layer.codebook.weight
    code = _nearest(layer, low)
    counts = torch.bincount(code, minlength=len(rows))
    sums = torch.zeros_like(rows).index_add_(0, code, low)
    rows.copy_(sums / counts.clamp(min=1)[:, None])
    unused = counts == 0
    rows[unused] = low[torch.randint(len(low), (int(unused.sum()),), generator=draw)]
