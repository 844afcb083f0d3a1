from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cat_tts import config
from cat_tts.asr import config as asr_config
from cat_tts.asr.model import CatASR
from cat_tts.model.qwen3 import Qwen3Checkpoint, read
from cat_tts.model.tts import CatTTS

FOLDER = Path("Qwen3")
PUBLISHED = {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40_960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1_000_000,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151_936,
}
"""Of Qwen3-1.7B."""


def test_what_a_published_checkpoint_is() -> None:
    assert read(PUBLISHED, FOLDER) == Qwen3Checkpoint(
        shape=config.paper().temporal, vocab_size=151_936, tied=True, rope_theta=1e6, max_positions=40_960
    )


def test_a_later_transformers_writes_the_rotary_base_elsewhere() -> None:
    later = {**PUBLISHED, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}
    assert read(later, FOLDER).rope_theta == 5e4


@pytest.mark.parametrize("name", ["type", "rope_type"])
def test_stretched_positions_are_refused_under_either_name(name: str) -> None:
    with pytest.raises(ValueError, match="Qwen3: rope_type='yarn': only unscaled positions can be taken"):
        read({**PUBLISHED, "rope_scaling": {name: "yarn", "factor": 4.0}}, FOLDER)


def test_other_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="rms_norm_eps=1e-05, but the models here have 1e-06"):
        read({**PUBLISHED, "rms_norm_eps": 1e-5}, FOLDER)


@pytest.mark.parametrize(
    ("make", "part"),
    [(lambda: CatTTS(config.tiny()), "temporal"), (lambda: CatASR(asr_config.tiny()), "llm")],
)
def test_rotary_frequencies_stay_exact_in_half_precision(make: Callable[[], nn.Module], part: str) -> None:
    exact, half = getattr(make(), part), getattr(make().to(torch.bfloat16), part)
    assert half.norm.weight.dtype == torch.bfloat16
    assert torch.equal(half.rotary_emb.inv_freq, exact.rotary_emb.inv_freq)
