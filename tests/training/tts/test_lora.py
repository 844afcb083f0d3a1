import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.config import tiny
from training.tts.lora import LoraOptions, adapt, add_adapter, merge, save_adapter

ROWS = torch.randint(0, 30, (2, 9, 7), generator=torch.Generator().manual_seed(1))


def adapted(depth: bool = False, **changes) -> CatTTS:
    """A tiny model whose adapters have learnt something."""
    model = adapt(CatTTS(tiny()), LoraOptions(rank=4, depth=depth, **changes), "owner/base")
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.normal_(std=0.3)
    return model.eval()


def trainable(model: CatTTS) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def logits(model: CatTTS) -> tuple[Tensor, Tensor]:
    states = model.states(model.embed(ROWS, 6))
    return model.frame_logits(states.flatten(0, 1), ROWS.flatten(0, 1))


@pytest.mark.parametrize("depth", [False, True])
def test_the_merged_model_says_what_the_adapted_one_says(depth: bool) -> None:
    model = adapted(depth)
    merged = merge(model)
    for mine, theirs in zip(logits(merged), logits(model), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    plain = CatTTS(tiny())
    assert list(merged.state_dict()) == list(plain.state_dict())
    assert all(parameter.requires_grad for parameter in merged.parameters())
    assert trainable(model)  # merging copies


def test_fresh_adapters_change_nothing() -> None:
    plain = CatTTS(tiny()).eval()
    before = logits(plain)
    for mine, theirs in zip(logits(adapt(copy.deepcopy(plain), LoraOptions(rank=8))), before, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("depth", "count"),
    [  # rank 4 x (inputs + outputs) of q, k, v, o, gate, up, down, in two layers each
        (False, 2 * 4 * (64 + 48 + 48 + 64 + 96 + 96 + 96)),
        (True, 2 * 4 * (64 + 48 + 48 + 64 + 96 + 96 + 96) + 2 * 4 * (56 + 40 + 40 + 56 + 72 + 72 + 72)),
    ],
)
def test_what_trains_by_hand(depth: bool, count: int) -> None:
    model = adapted(depth)
    assert sum(parameter.numel() for parameter in trainable(model).values()) == count
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    targets = ROWS.clone()
    targets[..., 0] = 3
    loss = model(ROWS, None, targets, torch.tensor([6, 6]))
    optimizer = torch.optim.AdamW(trainable(model).values(), 0.1)
    (loss.codes + loss.decision).backward()
    optimizer.step()
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == set(trainable(model))
    assert all("lora_" in name and name.startswith(("temporal.", "depth.")) for name in changed)


@pytest.mark.parametrize("depth", [False, True])
def test_the_folder_is_a_peft_adapter(tmp_path: Path, depth: bool) -> None:
    model = adapted(depth)
    plain = CatTTS(tiny())
    base = {name: w for name, w in model.state_dict().items() if "lora_" not in name}
    plain.load_state_dict({name.replace(".base_layer", ""): weight for name, weight in base.items()})
    save_adapter(model, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["peft_type"], written["r"], written["base_model_name_or_path"]) == (
        "LORA",
        4,
        "owner/base",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]

    loaded = PeftModel.from_pretrained(copy.deepcopy(plain), str(tmp_path)).base_model.model
    for mine, theirs in zip(logits(cast(CatTTS, loaded)), logits(model), strict=True):
        assert torch.equal(mine, theirs)
    added, merged = add_adapter(plain, tmp_path).state_dict(), merge(model).state_dict()
    assert all(torch.equal(added[name], merged[name]) for name in merged)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no adapter_model\.safetensors"):
        add_adapter(CatTTS(tiny()), tmp_path)
    save_adapter(adapted(), tmp_path)
    config = tiny()
    wider = CatTTS(replace(config, temporal=replace(config.temporal, dim=40)))
    with pytest.raises(ValueError, match=r"does not fit this model: .*size mismatch"):
        add_adapter(wider, tmp_path)


@pytest.mark.parametrize("changes", [{"rank": -1}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_bad_options_are_refused(changes: dict) -> None:
    with pytest.raises(
        ValueError, match="give a rank of 0 or more, an alpha above 0, a dropout of 0 to below 1"
    ):
        LoraOptions(**changes)
