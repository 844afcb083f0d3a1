"""Initialise code tables and heads from the codebooks of the tokenizer.

A random table has to learn 1024 rows from nothing, each from the few frames that hold its code; here codes
that sound alike begin alike, in the embedding tables and in the heads.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer.layers.quantizer import ResidualVQ

TABLE_SCALE = 0.3
"""Standard deviation of the first table: small ones would be overwritten by the first steps of Adam."""
HEAD_SCALE = 1.4
"""Standard deviation that `init_code_heads` gives to the scores of normalised states of any width."""


@torch.no_grad()
def init_code_embeddings(tables: Sequence[nn.Embedding], quantizer: ResidualVQ) -> None:
    """Initialise embedding tables with each codebook's vectors, as the quantizer adds them up.

    Vectors of another width than the tables are projected at random. A row for no code becomes zeros, so that
    rows of text are what their text says, and not mostly the sum of all tables' pads.

    Args:
        tables: A table of each codebook, changed in place.
        quantizer: Quantizer of the audio tokenizer.

    Raises:
        ValueError: The quantizer has fewer codebooks, or others than the tables have room for.
    """
    size, width = _check(len(tables), tables[0].num_embeddings, quantizer), tables[0].embedding_dim
    codes = torch.arange(size, device=tables[0].weight.device)
    scale, projection = 0.0, None
    for k, table in enumerate(tables):
        rows = quantizer.decode(F.pad(codes[None, :, None], (k, 0)))[0]
        rows = rows - rows.mean(0)  # and with it what the other codebooks and the biases add
        if projection is None:
            projection = _projection(rows.shape[1], width).to(rows)
            scale = TABLE_SCALE / float((rows @ projection).std())
        table.weight[:size] = scale * rows @ projection
        table.weight[size:] = 0


@torch.no_grad()
def init_code_heads(heads: Sequence[nn.Linear], quantizer: ResidualVQ) -> None:
    """Add to each head's rows the directions in which the quantizer looks its codes up.

    A state that makes a code likely then makes those beside it likely.

    Args:
        heads: A head of each codebook, changed in place.
        quantizer: Quantizer of the audio tokenizer.

    Raises:
        ValueError: As for `init_code_embeddings`.
    """
    size = _check(len(heads), heads[0].out_features, quantizer)
    draw = torch.Generator().manual_seed(0)
    for head, layer in zip(heads, quantizer.layers, strict=False):
        unit_vectors = F.normalize(layer.codebook.weight, dim=-1)
        projection = torch.randn(unit_vectors.shape[1], head.in_features, generator=draw).to(unit_vectors)
        head.weight[:size] += HEAD_SCALE / head.in_features**0.5 * unit_vectors @ projection


@torch.no_grad()
def reinit_codebooks(
    tables: Sequence[nn.Embedding], heads: Sequence[nn.Linear], quantizer: ResidualVQ, first: int
) -> None:
    """Reinitialise the tables and heads of deep codebooks, and add what codes mean to the trained tables.

    Each row gets what the quantizer adds up for its code, in one random subspace for all codebooks: what
    frames sum to there is their latent, and what is left of it for the next codebook a difference. A deep row
    also holds the direction of its code in a subspace of its codebook's own; the rows of deep heads are the
    directions in which the quantizer looks for codes, in one subspace for all. Rows for no code stay, and
    codebooks are counted from 1.

    Args:
        tables: A table of each codebook, changed in place.
        heads: A head of each codebook, changed in place.
        quantizer: Quantizer of the audio tokenizer.
        first: First codebook, from 1, whose table and head are reinitialised.

    Raises:
        ValueError: There is no such codebook, or as for `init_code_embeddings`.
    """
    size = _check(len(tables), tables[0].num_embeddings, quantizer)
    if not 1 <= first <= len(tables):
        raise ValueError(
            f"codebook {first} to reinitialise from: these tables have codebooks 1 to {len(tables)}"
        )
    layers = [
        (layer.codebook.weight, cast(Tensor, layer.project_in.weight), cast(Tensor, layer.project_out.weight))
        for layer in quantizer.layers
    ]
    wide, narrow, inner = tables[0].embedding_dim, heads[0].in_features, len(layers[0][2])
    shared, head_projection = _projection(inner, wide), _projection(inner, narrow)
    draw = torch.Generator().manual_seed(1)
    scale = tables[max(first - 2, 0)].weight[:size].std()
    unit = tables[0].weight[:size].std() / (layers[0][0] @ layers[0][2].T @ shared).std()
    for k, (table, head, (rows, project_in, project_out)) in enumerate(
        zip(tables, heads, layers, strict=False), 1
    ):
        if k >= first:
            unit_vectors = F.normalize(rows, dim=-1)
            separate = unit_vectors @ torch.randn(rows.shape[1], wide, generator=draw)
            table.weight[:size] = scale / separate.std() * separate
            looked_up = unit_vectors @ project_in @ head_projection
            head.weight[:size] = HEAD_SCALE / narrow**0.5 / looked_up.std() * looked_up
        added = rows @ project_out.T @ shared
        table.weight[:size] += unit * (added - added.mean(0))


def _check(count: int, rows: int, quantizer: ResidualVQ) -> int:
    """The size of the codebooks; one more row than that may stand for no code."""
    size = len(quantizer.layers[0].codebook.weight)
    if len(quantizer.layers) < count:
        raise ValueError(f"a tokenizer of {len(quantizer.layers)} codebooks for {count} tables")
    if rows - size not in (0, 1):
        raise ValueError(
            f"tables of {rows} codes for codebooks of {size}: choose the tokenizer that made the codes"
        )
    return size


def _projection(width: int, dim: int) -> Float[Tensor, "w d"]:
    """The identity, or a random projection where the widths differ."""
    draw = torch.Generator().manual_seed(0)
    return torch.eye(dim) if width == dim else torch.randn(width, dim, generator=draw) / width**0.5
