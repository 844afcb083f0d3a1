from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from cat_tts import CatTTS
from cat_tts.asr.config import tiny as asr_tiny
from cat_tts.asr.model import CatASR
from cat_tts.config import tiny
from cat_tts.model.code_embeddings import init_code_embeddings, init_code_heads, reinit_codebooks
from tokenizer import AudioTokenizer
from tokenizer.layers.quantizer import ResidualVQ


@pytest.fixture(scope="module")
def quantizer(codec: Path) -> ResidualVQ:
    return AudioTokenizer.from_pretrained(codec).quantizer


def likeness(a: Tensor, b: Tensor) -> float:
    """Correlation of the distances between rows."""
    distances = [torch.cdist(one, one).flatten().detach() for one in (a, b)]
    return float(torch.corrcoef(torch.stack(distances))[0, 1])


@pytest.mark.parametrize("tables", [CatASR(asr_tiny()).code_embeddings, CatTTS(tiny()).code_embeddings])
def test_frames_begin_as_near_to_each_other_as_their_latents(
    tables: list[nn.Embedding], quantizer: ResidualVQ
) -> None:
    init_code_embeddings(tables, quantizer)
    codes = torch.randint(32, (1, 50, 6))
    read = torch.stack([table(codes[0, :, k]) for k, table in enumerate(tables)]).sum(0)
    assert likeness(read, quantizer.decode(codes)[0]) > 0.9  # but for the random projection
    assert tables[0].weight[:32].std().item() == pytest.approx(0.3, rel=1e-3)
    assert not any(table.weight[32:].any() for table in tables)


def test_heads_ask_for_codes_by_their_direction(quantizer: ResidualVQ) -> None:
    heads = [nn.Linear(64, 33, bias=False) for _ in range(6)]
    for head in heads:
        nn.init.zeros_(head.weight)
    init_code_heads(heads, quantizer)
    for head, layer in zip(heads, quantizer.layers, strict=True):
        unit_vectors = nn.functional.normalize(layer.codebook.weight, dim=-1)
        assert likeness(head.weight[:32], unit_vectors) > 0.8 and not head.weight[32:].any()
    assert heads[0].weight[:32].std().item() == pytest.approx(1.4 / 64**0.5, rel=0.2)


def weights(model: CatTTS) -> list[Tensor]:
    layers = (*model.code_embeddings, *model.depth.code_heads)
    return [layer.weight.detach().clone() for layer in layers]


def test_what_is_added_to_trained_tables_adds_up_to_latents(quantizer: ResidualVQ) -> None:
    model = CatTTS(replace(tiny(), num_codebooks=6, codebook_size=32))
    before = weights(model)
    reinit_codebooks(model.code_embeddings, model.depth.code_heads, quantizer, 6)
    after = weights(model)
    codes = torch.randint(32, (500, 5))
    added = [after[k][codes[:, k]] - before[k][codes[:, k]] for k in range(5)]
    layers = list(quantizer.layers)[:5]
    latents = [layer.project_out(layer.codebook(codes[:, k])) for k, layer in enumerate(layers)]
    summed, latent = torch.stack(added).sum(0), torch.stack(latents).sum(0).detach()
    latent = torch.cat([latent, torch.ones(500, 1)], 1)
    mapped = latent @ torch.linalg.lstsq(latent, summed).solution  # one linear map for all codes
    assert (mapped - summed).norm() < 1e-4 * summed.norm()
    assert added[0].std().item() == pytest.approx(before[0][:32].std().item(), rel=0.3)
    assert all(torch.equal(old, new) for old, new in zip(before[6:11], after[6:11], strict=True))  # heads


def test_deep_tables_and_heads_are_what_codes_mean(quantizer: ResidualVQ) -> None:
    model = CatTTS(replace(tiny(), num_codebooks=6, codebook_size=32))
    before = weights(model)
    reinit_codebooks(model.code_embeddings, model.depth.code_heads, quantizer, 3)
    for old, new in zip(before, weights(model), strict=True):
        assert torch.equal(old[32:], new[32:])  # no code
    for k in range(2, 6):
        table, head, layer = model.code_embeddings[k], model.depth.code_heads[k], quantizer.layers[k]
        unit_vectors = nn.functional.normalize(layer.codebook.weight, dim=-1)
        assert likeness(table.weight[:32], unit_vectors) > 0.8
        assert likeness(head.weight[:32], unit_vectors @ cast(Tensor, layer.project_in.weight)) > 0.8
        assert head.weight[:32].std().item() == pytest.approx(1.4 / head.in_features**0.5, rel=1e-3)


@pytest.mark.parametrize("first", [0, 7])
def test_there_must_be_a_codebook_to_begin_with(quantizer: ResidualVQ, first: int) -> None:
    model = CatTTS(replace(tiny(), num_codebooks=6, codebook_size=32))
    with pytest.raises(ValueError, match=f"codebook {first} to reinitialise from: .* codebooks 1 to 6"):
        reinit_codebooks(model.code_embeddings, model.depth.code_heads, quantizer, first)


def test_tables_of_another_tokenizer_are_refused(quantizer: ResidualVQ) -> None:
    more = CatASR(replace(asr_tiny(), num_codebooks=7)).code_embeddings
    with pytest.raises(ValueError, match="a tokenizer of 6 codebooks for 7 tables"):
        init_code_embeddings(more, quantizer)
    for rows in (16, 34):
        with pytest.raises(ValueError, match=f"tables of {rows} codes for codebooks of 32"):
            init_code_heads([nn.Linear(8, rows)], quantizer)
