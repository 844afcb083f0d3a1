"""Muon for the matrices of a TTS model's layers, AdamW for the rest."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.config import tiny
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.training.test_train_tts import options, untrained
from training.common.optimizers import optimizers, require_unsharded
from training.train_tts import train
from training.tts.recipes import TTSOptimizerConfig


def steps(model: CatTTS, before: CatTTS) -> dict[str, Tensor]:
    """How far each weight has gone."""
    return {
        name: (after - start).detach()
        for (name, after), start in zip(model.named_parameters(), before.parameters(), strict=True)
    }


def test_every_weight_has_one_optimizer_and_muon_has_the_matrices_of_layers() -> None:
    model = CatTTS(tiny())
    adam, muon = optimizers(model, TTSOptimizerConfig(muon=True))
    held = [{id(w) for group in one.param_groups for w in group["params"]} for one in (adam, muon)]
    assert not held[0] & held[1] and len(held[0]) + len(held[1]) == len(list(model.parameters()))
    names = {name for name, weight in model.named_parameters() if id(weight) in held[1]}
    assert "temporal.layers.0.self_attn.q_proj.weight" in names
    assert "depth.layers.0.self_attn.o_proj.weight" in names
    assert all(".layers." in name and "norm" not in name for name in names)
    assert len(optimizers(model, TTSOptimizerConfig())) == 1


def test_muon_goes_as_far_in_all_directions_and_adamw_as_ever(codes: Path, tmp_path: Path) -> None:
    gone = {}
    for muon in (False, True):
        changes = {"muon": muon, "learning_rate": 1e-3, "weight_decay": 0.0, "ema": 0.0, "warmup": 0}
        model = train(options(tmp_path / str(muon), codes, steps=1, optimizer={**changes, "decay": 0.0}))
        gone[muon] = steps(model, untrained(model))
    name = "temporal.layers.0.mlp.gate_proj.weight"
    spread = [torch.linalg.svdvals(gone[muon][name]) for muon in (False, True)]
    assert spread[0].max() > 10 * spread[0].min()
    # Five Newton-Schulz iterations bring them to about 1, times 0.2 * sqrt(the longer side) of the rate.
    unit = 1e-3 * 0.2 * max(gone[True][name].shape) ** 0.5
    assert 0.6 * unit < spread[1].min() and spread[1].max() < 1.3 * unit
    for table in (
        "text_embedding.weight",
        "depth.code_heads.0.weight",
    ):  # fused AdamW: equal but for the last bit
        torch.testing.assert_close(gone[True][table], gone[False][table], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("muon", [False, True])
def test_tables_and_heads_may_go_slower(codes: Path, tmp_path: Path, muon: bool) -> None:
    gone = {}
    for part in (1.0, 0.25):
        # without epsilon and decay, the first step of AdamW is as long as its learning rate
        changes = {
            "muon": muon,
            "embedding_learning_rate_scale": part,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "ema": 0.0,
        }
        made = options(tmp_path / str(part), codes, steps=1, optimizer={**changes, "warmup": 0, "decay": 0.0})
        model = train(made)
        gone[part] = steps(model, untrained(model))
    tables = {name for name in gone[1.0] if "embedding" in name or "head" in name}
    assert {
        "text_embedding.weight",
        "code_embeddings.5.weight",
        "depth.code_heads.5.weight",
    } <= tables
    for name, moved in gone[1.0].items():
        factor = 0.25 if name in tables else 1.0
        torch.testing.assert_close(gone[0.25][name], factor * moved, rtol=1e-2, atol=2e-7)


def test_a_terminated_run_continues_as_if_nothing_had_been(codes: Path, tmp_path: Path) -> None:
    changes = {"muon": True, "embedding_learning_rate_scale": 0.5}
    train(options(tmp_path / "whole", codes, optimizer=changes))
    with terminated_at(4):
        train(options(tmp_path / "halted", codes, optimizer=changes))
    train(options(tmp_path / "halted", codes, optimizer=changes))
    assert_equal(saved_state(tmp_path / "halted"), saved_state(tmp_path / "whole"))
    files = [tmp_path / run / "model" / "model.safetensors" for run in ("halted", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_keeps_its_optimizers(codes: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, steps=1))
    with pytest.raises(ValueError, match="muon is false, not true; continue it with its own"):
        train(options(tmp_path, codes, steps=2, optimizer={"muon": True}))
    with pytest.raises(
        ValueError, match=r"embedding_learning_rate_scale is 1\.0, not 0\.5; continue it with its own"
    ):
        train(options(tmp_path, codes, steps=2, optimizer={"embedding_learning_rate_scale": 0.5}))
    train(options(tmp_path, codes, steps=2))


def test_muon_needs_whole_matrices() -> None:
    sharded = cast(Accelerator, SimpleNamespace(is_fsdp2=True))
    with pytest.raises(ValueError, match=r"optimizer\.muon needs whole matrices"):
        require_unsharded(sharded, TTSOptimizerConfig(muon=True))
    require_unsharded(sharded, TTSOptimizerConfig())
