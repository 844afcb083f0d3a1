import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cat_tts import CatTTS, config
from cat_tts.model.moss_checkpoint import config_from_published, config_to_published, unpublishable
from tests.helpers.paths import GOLDEN
from training.export import main
from training.tts.lora import LoraOptions, adapt, add_adapter, save_adapter

TTS_LOCAL = GOLDEN / "tts_local_small"
INPUTS, EXPECTED = load_file(TTS_LOCAL / "inputs.safetensors"), load_file(TTS_LOCAL / "expected.safetensors")
UNREAD = "model.language_model.embed_tokens.weight"


def export(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return load_file(folder / "model.safetensors")
    named = json.loads(index.read_text())["weight_map"]
    shards = {name: load_file(folder / name) for name in set(named.values())}
    return {name: shards[file][name] for name, file in named.items()}


@torch.no_grad()
def logits(model: CatTTS) -> tuple[Tensor, Tensor]:
    mask = INPUTS["attention_mask"].bool()
    states = model.states(model.embed(INPUTS["input_ids"], 32), mask)
    return model.frame_logits(states[mask], INPUTS["labels"][mask])


@pytest.mark.parametrize("shard_size", ["5GB", "500KB"])
def test_what_was_loaded_is_written_back_byte_for_byte(
    published: tuple[Path, Path], tmp_path: Path, shard_size: str
) -> None:
    """All tensors but the table that nothing reads, and every field of the config that is read."""
    export(published[0], tmp_path / "out", "--layout", "published", "--shard-size", shard_size)
    before, after = weights(published[0]), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    differing = {name for name in before if before[name].numpy().tobytes() != after[name].numpy().tobytes()}
    assert differing == {UNREAD}
    assert torch.equal(after[UNREAD], before["model.embedding_list.0.weight"])
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == (1 if shard_size == "5GB" else 7)

    golden, written = (
        json.loads((folder / "config.json").read_text()) for folder in (published[0], tmp_path / "out")
    )
    assert config_from_published(written) == config_from_published(golden)
    golden["audio_assistant_delay_slot_token_id"] = 151_662  # these models never look at it
    for name, value in written["language_config"].items():
        assert golden["language_config"].get(name, 1e6) == value
    assert {name: written[name] for name in written if name != "language_config"}.items() <= golden.items()


def test_an_exported_model_gives_the_golden_logits(published: tuple[Path, Path], tmp_path: Path) -> None:
    export(published[0], tmp_path / "own")
    export(tmp_path / "own", tmp_path / "out", "--layout", "published")
    (model, text), (golden, golden_text) = map(CatTTS.from_pretrained, (tmp_path / "out", published[0]))
    (decisions, codes), wanted = logits(model), logits(golden)
    assert torch.equal(decisions, wanted[0]) and torch.equal(codes, wanted[1])
    expected = EXPECTED["tf.logits_audio"][:, INPUTS["attention_mask"].bool()]
    torch.testing.assert_close(codes.transpose(0, 1), expected, atol=7e-4, rtol=0)
    assert text.encode("<|vision_start|> a") == golden_text.encode("<|vision_start|> a")


def test_the_weights_may_be_stored_rounded(published: tuple[Path, Path], tmp_path: Path) -> None:
    export(published[0], tmp_path / "out", "--layout", "published", "--precision", "bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    before = weights(published[0])
    for name, tensor in weights(tmp_path / "out").items():
        if name != UNREAD:
            assert torch.equal(tensor, before[name].to(torch.bfloat16))


def test_a_run_is_exported_with_its_adapter(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle / "tts", tmp_path / "run" / "model")
    model = adapt(CatTTS.from_pretrained(bundle / "tts")[0], LoraOptions(rank=2))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapter = tmp_path / "run" / "adapter"
    save_adapter(model, adapter)
    export(tmp_path / "run", tmp_path / "out", "--adapter", adapter)
    wanted = add_adapter(CatTTS.from_pretrained(bundle / "tts")[0], adapter).state_dict()
    found = CatTTS.from_pretrained(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"time_aligned_positions": True},
            "time_aligned_positions puts text rows on the time axis of the frames",
        ),
        ({"chat": None}, "chat=None: it was not trained on conversations"),
        ({"full_text_head": False}, "full_text_head=False: its stop head has two rows"),
        ({"adapter_dim": None}, "adapter_dim=None: it has no MLPs around the depth layers"),
        ({"speaker_dim": 192}, "speaker_dim: it reads voice vectors"),
        (
            {"depth": replace(config.paper().depth, num_kv_heads=16)},
            "num_kv_heads is 8 in the temporal and 16 in the depth layers",
        ),
    ],
)
def test_what_the_layout_cannot_hold_is_told(changes: dict, reason: str) -> None:
    assert unpublishable(config.paper()) == []
    assert config_from_published(config_to_published(config.paper())) == config.paper()
    assert unpublishable(replace(config.paper(), **changes)) == [reason]


def test_a_small_model_of_ours_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        export(bundle / "tts", tmp_path / "out", "--layout", "published")
    assert ended.value.code == 2 and not (tmp_path / "out").exists()
    line = capsys.readouterr().err
    assert line.startswith(
        "error: the published layout cannot hold this model: time_aligned_positions puts text rows"
    )
    assert "; chat=None" in line and "; adapter_dim=None" in line and line.count("\n") == 1
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").touch()
    with pytest.raises(SystemExit):
        export(bundle / "tts", tmp_path / "out")
    assert "out is not empty: choose another place" in capsys.readouterr().err
