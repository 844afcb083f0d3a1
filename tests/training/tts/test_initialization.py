import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from cat_tts import CatTTS
from cat_tts.config import ChatTokens, SpecialTokens, TTSConfig, paper, tiny
from cat_tts.sequences.rows import text_rows
from tests.helpers.paths import GOLDEN
from training.tts.initialization import initialize

QWEN3 = Qwen3Config(
    vocab_size=640,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=512,
    rope_parameters={"rope_type": "default", "rope_theta": 5e4},
)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Qwen3 as transformers writes it, in bfloat16 as published ones are, and a tokenizer."""
    folder = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    Qwen3ForCausalLM(QWEN3).bfloat16().save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "prompt" / file, folder)
    return folder


def shape() -> TTSConfig:
    """The published model's form, with little inside."""
    return replace(paper(), depth=tiny().depth, adapter_dim=24)


def altered(folder: Path, qwen3: Path, **fields: object) -> Path:
    shutil.copytree(qwen3, folder)
    raw = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in {**raw, **fields}.items() if value != "gone"}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


@torch.no_grad()
def test_rows_of_text_are_read_as_the_checkpoint_reads_them(qwen3: Path) -> None:
    model, text = initialize(qwen3, shape(), num_codebooks=6, codebook_size=32)
    ids = text.encode("Hello there, general.")
    reference = Qwen3ForCausalLM.from_pretrained(qwen3, dtype=torch.float32)
    wanted = reference.model(torch.tensor([ids])).last_hidden_state
    for depth in (1, 6):
        states = model.states(model.embed(text_rows(model.config, ids)[None], depth))
        torch.testing.assert_close(states, wanted)


def test_what_is_taken_and_what_is_built(qwen3: Path) -> None:
    model, _ = initialize(qwen3, shape(), num_codebooks=6, codebook_size=32)
    config, temporal = model.config, model.config.temporal
    assert (temporal.dim, temporal.num_layers, temporal.ffn_dim, temporal.head_dim) == (32, 2, 48, 16)
    assert (config.text_vocab_size, config.max_positions, config.rope_theta) == (640, 512, 5e4)
    assert (config.num_codebooks, config.codebook_size, config.depth) == (6, 32, tiny().depth)
    assert config.tokens == SpecialTokens(pad=600, audio_start=610, audio_end=611, slot=614)
    assert config.chat == ChatTokens(im_start=601, im_end=602, user_slot=612)
    assert model.training and {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    stored = load_file(qwen3 / "model.safetensors")
    mine = model.state_dict()["temporal.layers.1.mlp.up_proj.weight"]
    assert torch.equal(mine, stored["model.layers.1.mlp.up_proj.weight"].float())
    assert torch.equal(model.text_embedding.weight, stored["model.embed_tokens.weight"].float())
    targets = torch.full((1, 3, 7), 5)
    model(targets, None, targets, torch.tensor([6])).codes.backward()


def test_a_model_without_the_language_head_is_as_good(qwen3: Path, tmp_path: Path) -> None:
    Qwen3ForCausalLM.from_pretrained(qwen3).model.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "prompt" / file, tmp_path)
    one, other = (
        initialize(folder, tiny(), num_codebooks=6, codebook_size=32)[0] for folder in (qwen3, tmp_path)
    )
    assert all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(one.temporal.parameters(), other.temporal.parameters(), strict=True)
    )
    assert one.config == other.config and one.config.chat is None  # as the shape that was given


def test_a_published_model_is_taken_whole(published: tuple[Path, Path]) -> None:
    model, text = initialize(published[0], tiny(), num_codebooks=32, codebook_size=64)
    wanted, _ = CatTTS.from_pretrained(published[0])
    assert model.config == wanted.config and model.training
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in wanted.state_dict().items())
    assert text.encode("<|vision_start|>") == [610]


def test_a_model_of_ours_is_taken_whole(bundle: Path) -> None:
    model, text = initialize(bundle / "tts", paper(), num_codebooks=6, codebook_size=32)
    assert model.config == tiny() and text.vocab_size == 300
    with pytest.raises(ValueError, match="speaks 6 codebooks of 32 codes, but these codes have 12 of 1024"):
        initialize(bundle / "tts", tiny(), num_codebooks=12, codebook_size=1024)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps=1e-05, but the models here have 1e-06"),
        ({"attention_bias": True}, "attention_bias=True, but the models here have False"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type='yarn': only unscaled"),
        ({"head_dim": "gone"}, r"config\.json of a Qwen3 model lacks 'head_dim'"),
        ({"vocab_size": 500}, "the tokenizer has 621 ids, the model 500"),
        ({"vocab_size": 700}, r"embed_tokens\.weight is \(640, 32\), not \(700, 32\) as its config"),
        ({"intermediate_size": 64}, r"weights do not fit config\.json: size mismatch for layers\.0\.mlp"),
        ({"num_hidden_layers": 3}, r"weights do not fit config\.json: Missing key.*layers\.2\."),
        ({"model_type": "llama"}, r"config\.json: "),
    ],
)
def test_other_checkpoints_are_refused(qwen3: Path, tmp_path: Path, fields: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        initialize(altered(tmp_path / "other", qwen3, **fields), tiny(), num_codebooks=6, codebook_size=32)


def test_tokenizers_that_do_not_fit_are_refused(qwen3: Path, bundle: Path, tmp_path: Path) -> None:
    folder = altered(tmp_path / "none", qwen3)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="holds no text tokenizer"):
        initialize(folder, tiny(), num_codebooks=6, codebook_size=32)
    shutil.copy(bundle / "tts" / "text.model", folder)
    with pytest.raises(ValueError, match=r"holds no tokenizer\.json: copy it from the Qwen3 model"):
        initialize(folder, tiny(), num_codebooks=6, codebook_size=32)
    plain = altered(tmp_path / "plain", qwen3)
    described = json.loads((plain / "tokenizer.json").read_text())
    described["added_tokens"] = [t for t in described["added_tokens"] if t["content"] != "<|video_pad|>"]
    (plain / "tokenizer.json").write_text(json.dumps(described))
    (plain / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"does not know <\|video_pad\|>, which stands between"):
        initialize(plain, tiny(), num_codebooks=6, codebook_size=32)


def test_a_checkpoint_in_shards(qwen3: Path, tmp_path: Path) -> None:
    folder = altered(tmp_path / "shards", qwen3)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    one, other = (initialize(at, tiny(), num_codebooks=6, codebook_size=32)[0] for at in (qwen3, folder))
    assert torch.equal(one.text_embedding.weight, other.text_embedding.weight)
    assert torch.equal(one.temporal.norm.weight, other.temporal.norm.weight)
