import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from cat_tts.config import ChatTokens, SpecialTokens, TransformerConfig, TTSConfig, paper
from cat_tts.generation.generate import generate
from cat_tts.generation.sampling import SamplingOptions
from cat_tts.model.moss_checkpoint import (
    config_from_published,
    is_published,
    state_from_published,
    state_to_published,
)
from cat_tts.model.tts import CatTTS
from tests.helpers.paths import GOLDEN

TTS_LOCAL = GOLDEN / "tts_local_small"
TEXT = TTS_LOCAL.parent / "prompt"
INPUTS, EXPECTED = load_file(TTS_LOCAL / "inputs.safetensors"), load_file(TTS_LOCAL / "expected.safetensors")
RAW = json.loads((TTS_LOCAL / "config.json").read_text())
MASK = INPUTS["attention_mask"].bool()
GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)
UNREAD = "model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def model() -> CatTTS:
    built = CatTTS(config_from_published(RAW))
    built.load_state_dict(state_from_published(load_file(TTS_LOCAL / "model.safetensors")), assign=True)
    return built.eval()


def close(mine: Tensor, reference: Tensor, tolerance: float) -> None:
    """Within ten times what two correct programs were measured to differ by."""
    scale = max(1.0, reference.abs().max().item())
    torch.testing.assert_close(mine, reference, atol=tolerance * scale, rtol=0)


def test_config() -> None:
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
    assert is_published(RAW)
    assert config_from_published(RAW) == TTSConfig(
        temporal=TransformerConfig(dim=64, num_layers=4, ffn_dim=128, **heads),
        depth=TransformerConfig(dim=48, num_layers=4, ffn_dim=112, **heads),
        text_vocab_size=640,
        num_codebooks=32,
        codebook_size=64,
        tokens=SpecialTokens(pad=600, audio_start=610, audio_end=611, slot=614),
        chat=ChatTokens(im_start=601, im_end=602, user_slot=612),
        adapter_dim=40,
        full_text_head=True,
        rope_theta=1_000_000.0,
        max_positions=4096,
    )


@pytest.mark.parametrize(("place", "theta"), [("rope_parameters", 5e4), ("rope_theta", 5e4), (None, 1e6)])
def test_both_spellings_of_the_rotary_base(place: str | None, theta: float) -> None:
    raw = copy.deepcopy(RAW)
    del raw["language_config"]["rope_parameters"]
    if place:
        raw["language_config"][place] = {"rope_theta": theta} if place == "rope_parameters" else theta
    assert config_from_published(raw).rope_theta == theta


@pytest.mark.parametrize("depth", [1, 4, 8, 32])
@torch.no_grad()
def test_hidden_states(model: CatTTS, depth: int) -> None:
    hidden = model.states(model.embed(INPUTS["input_ids"], depth), MASK)
    key = "tf.global_hidden" if depth == 32 else f"depth{depth}.global_hidden"
    close(hidden[MASK], EXPECTED[key][MASK], 1e-5)


@torch.no_grad()
def test_logits(model: CatTTS) -> None:
    """Rows whose targets are ignored are compared too: the published code feeds them zeros."""
    hidden = model.states(model.embed(INPUTS["input_ids"], 32), MASK)
    text, codes = model.frame_logits(hidden[MASK], INPUTS["labels"][MASK])
    close(text, EXPECTED["tf.logits_text"][MASK], 7e-5)
    close(codes.transpose(0, 1), EXPECTED["tf.logits_audio"][:, MASK], 7e-5)


@torch.no_grad()
def test_losses(model: CatTTS) -> None:
    golden = EXPECTED["tf.loss_per_channel"]
    loss = model(INPUTS["input_ids"], MASK, INPUTS["labels"], torch.tensor([32, 32]))
    close(loss.decision, golden[0], 5e-6)
    close(loss.layers, golden[1:], 5e-6)
    close((loss.decision + loss.layers.sum())[None] / 33, EXPECTED["tf.loss"], 5e-6)
    close((4 * loss.decision + loss.layers.sum())[None] / 36, EXPECTED["tf.loss_weights_4_1"], 5e-6)
    counts = (INPUTS["labels"][..., 1:] != -100).sum((0, 1))
    assert (counts == counts[0]).all()
    close(loss.codes, golden[1:].mean(), 5e-6)  # every layer has as many codes as the others


@pytest.mark.parametrize(
    ("name", "rows", "depth"), [("a_k32", "prompt_a", 32), ("a_k4", "prompt_a", 4), ("b_k32", "prompt_b", 32)]
)
def test_greedy_rows(model: CatTTS, name: str, rows: str, depth: int) -> None:
    golden = EXPECTED[f"gen.{name}.rows"][1:, : 1 + depth].long()  # without the audio start
    new = run(model, INPUTS[rows], None, depth, len(golden))
    assert torch.equal(new[0], golden)


def test_greedy_batch(model: CatTTS) -> None:
    new = run(model, INPUTS["batch_ids"], INPUTS["batch_mask"].bool(), 32, 6)
    for i, sequence in enumerate(new):
        assert torch.equal(sequence, EXPECTED[f"gen.batch.rows{i}"][1:].long())


def run(model: CatTTS, rows: Tensor, mask: Tensor | None, depth: int, frames: int) -> Tensor:
    seeds = torch.zeros(len(rows), dtype=torch.long)
    generated = generate(
        model, rows, mask, depth=depth, seeds=seeds, max_frames=frames, options=GREEDY, any_text=True
    )
    return torch.stack(list(generated), 1)


@pytest.mark.parametrize(("name", "depth"), [("a_k32", 32), ("a_k4", 4), ("b_k32", 32)])
@torch.no_grad()
def test_logits_of_generated_rows(model: CatTTS, name: str, depth: int) -> None:
    prompt, new = INPUTS[f"prompt_{name[0]}"], EXPECTED[f"gen.{name}.rows"][1:, : 1 + depth].long()
    whole = torch.cat([prompt[:, :, : 1 + depth], new[None]], 1)
    states = model.states(model.embed(whole, depth))[0, prompt.shape[1] - 1 : -1]
    text, codes = model.frame_logits(states, new)
    close(text, EXPECTED[f"gen.{name}.text_logits"], 7e-5)
    close(codes[:, -1, :64], EXPECTED[f"gen.{name}.last_audio_logits"][:, :64], 7e-5)


def test_names_round_trip(model: CatTTS) -> None:
    """All but the table that is never read: it is filled with the text embedding."""
    published, stored = state_to_published(model.state_dict()), load_file(TTS_LOCAL / "model.safetensors")
    assert published.keys() == stored.keys() and len(stored) == 292
    changed = [name for name in stored if not torch.equal(published[name], stored[name])]
    assert set(changed) <= {UNREAD} and published[UNREAD].shape == stored[UNREAD].shape


def test_folder_is_loaded_by_from_pretrained(model: CatTTS, tmp_path: Path) -> None:
    for file in (TTS_LOCAL / "config.json", TTS_LOCAL / "model.safetensors", *TEXT.glob("tokenizer*.json")):
        shutil.copy(file, tmp_path)
    loaded, text = CatTTS.from_pretrained(tmp_path)
    state, wanted = loaded.state_dict(), model.state_dict()
    assert loaded.config == model.config and not loaded.training and state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert text.encode("<|vision_start|>") == [610]


def test_paper_preset_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = state_to_published(CatTTS(paper()).state_dict())
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (556, 3_060_606_464)
    shapes = {
        UNREAD: (155_648, 2048),
        "model.language_model.layers.27.self_attn.q_proj.weight": (2048, 2048),
        "model.language_model.layers.0.self_attn.k_proj.weight": (1024, 2048),
        "model.language_model.layers.0.self_attn.q_norm.weight": (128,),
        "model.language_model.layers.27.mlp.down_proj.weight": (2048, 6144),
        "model.language_model.layers.27.post_attention_layernorm.weight": (2048,),
        "model.language_model.norm.weight": (2048,),
        "model.embedding_list.0.weight": (155_648, 2048),
        "model.embedding_list.1.weight": (1025, 2048),
        "model.embedding_list.32.weight": (1025, 2048),
        "lm_heads.0.weight": (155_648, 2048),
        "lm_heads.32.weight": (1025, 2048),
        "local_to_speech_embedding_mlps.0.gate_proj.weight": (2048, 1536),
        "local_to_speech_embedding_mlps.32.down_proj.weight": (2048, 2048),
        "local_transformer.layers.3.self_attn.v_proj.weight": (1024, 1536),
        "local_transformer.layers.0.self_attn.o_proj.weight": (1536, 2048),
        "local_transformer.layers.3.mlp.up_proj.weight": (8960, 1536),
        "local_transformer.norm.weight": (1536,),
        "speech_embedding_to_local_mlp.gate_proj.weight": (2048, 2048),
        "speech_embedding_to_local_mlp.down_proj.weight": (1536, 2048),
        "layer_norm_before_lm_heads.32.weight": (2048,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def changed(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in {**RAW, **fields}.items() if value is not None}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            changed(local_num_layers=None),
            "'moss_tts_delay' without local_num_layers: .*only .*Local-Transformer",
        ),
        (
            {"model_type": "moss_tts_local", "qwen3_config": {}, "gpt2_config": {}},
            "not the Delay or v1.5 models",
        ),
        (changed(audio_pad_code=0), "audio_pad_code=0 must be audio_vocab_size=64"),
    ],
)
def test_other_members_of_the_family_are_refused(raw: dict[str, Any], message: str) -> None:
    assert is_published(raw)
    with pytest.raises(ValueError, match=message):
        config_from_published(raw)


def test_unknown_tensors_are_refused() -> None:
    for convert in (state_from_published, state_to_published):
        with pytest.raises(ValueError, match=r"transformer\.h\.0\.ln_1\.weight"):
            convert({"transformer.h.0.ln_1.weight": F.one_hot(torch.tensor(1))})


def test_own_configs_are_not_taken_for_published_ones() -> None:
    assert not is_published({"temporal": {}, "depth": {}, "num_codebooks": 12})
