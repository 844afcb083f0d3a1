from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cat_tts import CatTTS
from cat_tts.asr import CatASR
from cat_tts.asr_config import tiny as asr_tiny
from cat_tts.config import tiny
from cat_tts.tables import point_heads, read_tables
from tokenizer import AudioTokenizer
from tokenizer.quantizer import ResidualVQ


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
    read_tables(tables, quantizer)
    codes = torch.randint(32, (1, 50, 6))
    read = torch.stack([table(codes[0, :, k]) for k, table in enumerate(tables)]).sum(0)
    assert likeness(read, quantizer.decode(codes)[0]) > 0.9  # but for the random projection
    assert tables[0].weight[:32].std().item() == pytest.approx(0.3, rel=1e-3)
    assert not any(table.weight[32:].any() for table in tables)


def test_heads_ask_for_codes_by_their_direction(quantizer: ResidualVQ) -> None:
    heads = [nn.Linear(64, 33, bias=False) for _ in range(6)]
    for head in heads:
        nn.init.zeros_(head.weight)
    point_heads(heads, quantizer)
    for head, layer in zip(heads, quantizer.layers, strict=True):
        directions = nn.functional.normalize(layer.codebook.weight, dim=-1)
        assert likeness(head.weight[:32], directions) > 0.8 and not head.weight[32:].any()
    assert heads[0].weight[:32].std().item() == pytest.approx(1.4 / 64**0.5, rel=0.2)


def test_tables_of_another_tokenizer_are_refused(quantizer: ResidualVQ) -> None:
    more = CatASR(replace(asr_tiny(), num_codebooks=7)).code_embeddings
    with pytest.raises(ValueError, match="a tokenizer of 6 codebooks for 7 tables"):
        read_tables(more, quantizer)
    for rows in (16, 34):
        with pytest.raises(ValueError, match=f"tables of {rows} codes for codebooks of 32"):
            point_heads([nn.Linear(8, rows)], quantizer)
