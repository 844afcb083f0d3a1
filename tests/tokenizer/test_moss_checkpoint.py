import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.helpers.paths import GOLDEN
from tokenizer.config import paper
from tokenizer.layers.transformer import fold, unfold
from tokenizer.model import AudioTokenizer
from tokenizer.moss_checkpoint import config_from_published, state_from_published, state_to_published

TOK_SMALL = GOLDEN / "tok_small"
INPUTS, EXPECTED = load_file(TOK_SMALL / "inputs.safetensors"), load_file(TOK_SMALL / "expected.safetensors")
RAW = json.loads((TOK_SMALL / "config.json").read_text())
FRAME = 1920


@pytest.fixture(scope="module")
def model() -> AudioTokenizer:
    return AudioTokenizer.from_pretrained(TOK_SMALL)


def wav(name: str = "wav") -> Tensor:
    return INPUTS[name][:, 0]


def golden_codes(key: str) -> Tensor:
    """[k, b, t] int32 of the published program as [b, t, k] int64."""
    return EXPECTED[key].permute(1, 2, 0).long()


def close(mine: Tensor, key: str, tolerance: float) -> None:
    """Within ten times what two correct programs were measured to differ by."""
    reference = EXPECTED[key]
    scale = max(1.0, reference.abs().max().item())
    torch.testing.assert_close(mine, reference, atol=tolerance * scale, rtol=0, msg=lambda m: f"{key}: {m}")


def test_config() -> None:
    config = config_from_published(RAW)
    assert [(s.patch_size, s.input_dim, s.dim, s.output_dim) for s in config.encoder] == [
        (240, 240, 32, 16),
        (2, 32, 32, 16),
        (2, 32, 32, 24),
        (2, 48, 48, 40),
    ]
    assert [(s.num_layers, s.num_heads, s.ffn_dim) for s in config.decoder] == [(2, 3, 192)] + [
        (2, 2, 128)
    ] * 3
    quantizer = config.quantizer
    assert (quantizer.num_codebooks, quantizer.codebook_size, quantizer.codebook_dim) == (32, 64, 8)
    assert (quantizer.dim, config.code_dim, config.sample_rate) == (24, 40, 24_000)
    assert (config.context_seconds, config.rope_period, config.layer_scale) == (1.3, 10_000, 0.01)


def test_patch_layout() -> None:
    steps = EXPECTED["patch.encode2"].shape[-1] * 2
    counting = torch.arange(24.0).view(1, -1, steps).mT
    assert torch.equal(fold(counting, 2).mT, EXPECTED["patch.encode2"])
    counting = torch.arange(24.0).view(1, 2, -1).mT
    assert torch.equal(unfold(counting, 2).mT, EXPECTED["patch.decode2"])


@torch.no_grad()
def test_every_encoder_stage(model: AudioTokenizer) -> None:
    x = wav()[:, :, None]
    for i, stage in enumerate(model.encoder):
        x = fold(x, stage.config.patch_size)
        close(x.mT, f"enc.stage{2 * i}", 3e-5)
        x = stage(x)
        close(x.mT, f"enc.stage{2 * i + 1}", 3e-5)
    close(model.latents(wav()).mT, "enc.hidden", 2e-5)


@torch.no_grad()
def test_every_decoder_stage(model: AudioTokenizer) -> None:
    x = model.quantizer.decode(golden_codes("enc.codes"))
    for i, stage in enumerate(model.decoder):
        x = stage(x)
        close(x.mT, f"dec.stage{2 * i}", 3e-5)
        x = unfold(x, stage.config.patch_size)
        close(x.mT, f"dec.stage{2 * i + 1}", 3e-5)


@torch.no_grad()
def test_codes(model: AudioTokenizer) -> None:
    assert EXPECTED["enc.margins"].min() > 2e-5  # no decision is close enough to depend on rounding
    assert torch.equal(model.encode(wav()), golden_codes("enc.codes"))
    quantized = model.quantizer(model.latents(wav()))
    assert torch.equal(quantized.codes, golden_codes("enc.codes"))
    close(quantized.latents.mT, "enc.quantized", 5e-6)


@pytest.mark.parametrize("depth", [1, 4, 8, 32])
def test_decoding_at_depth(model: AudioTokenizer, depth: int) -> None:
    codes = golden_codes("enc.codes")[..., :depth]
    with torch.no_grad():
        close(model.quantizer.decode(codes).mT, f"dec.latent_k{depth}", 5e-6)
    close(model.decode(codes)[:, None], f"dec.audio_k{depth}", 2e-5)


def test_partial_frame(model: AudioTokenizer) -> None:
    """The published program masks the last, incomplete frame and calls the clip 9 frames long; ours is
    10 frames, the last of them completed with silence."""
    codes, whole = model.encode(wav("wav_partial")), int(EXPECTED["partial.lengths"])
    assert (codes.shape[1], whole) == (10, 9)
    assert torch.equal(codes[:, :whole], golden_codes("partial.codes")[:, :whole])
    silence = torch.zeros(1, 10 * FRAME - INPUTS["wav_partial"].shape[-1])
    assert torch.equal(codes, model.encode(torch.cat([wav("wav_partial"), silence], 1)))


def test_batch(model: AudioTokenizer) -> None:
    """Past a clip's end the published program masks residuals and audio; ours continue with silence."""
    partial, samples = wav("wav_partial"), int(INPUTS["batch_len"])
    clips = torch.zeros(2, samples)
    clips[0], clips[1, : partial.shape[1]] = wav()[0, :samples], partial[0]
    codes, golden = model.encode(clips), golden_codes("batch.codes")
    audio = model.decode(golden)[:, None]
    for i, (frames, end) in enumerate(
        zip(EXPECTED["batch.lengths"], EXPECTED["batch.audio_lengths"], strict=True)
    ):
        assert torch.equal(codes[i, :frames], golden[i, :frames])
        torch.testing.assert_close(audio[i, :, :end], EXPECTED["batch.audio"][i, :, :end], atol=2e-4, rtol=0)


@pytest.mark.parametrize("frames", [[1] * 60, [7, 3, 20, 30]])
def test_streaming_is_exact(model: AudioTokenizer, frames: list[int]) -> None:
    """Equal to the offline output, which the published program's own streaming is not."""
    cache = model.decoder_cache()
    parts = [model.decode(c, cache) for c in golden_codes("enc.codes").split(frames, 1)]
    close(torch.cat(parts, 1)[:, None], "dec.audio_k32", 2e-5)
    cache = model.encoder_cache()
    parts = [model.encode(x, cache=cache) for x in wav().split([n * FRAME for n in frames], 1)]
    assert torch.equal(torch.cat(parts, 1), golden_codes("enc.codes"))
    assert not torch.equal(EXPECTED["stream.codes_c0.08"], EXPECTED["enc.codes"])


def test_names_round_trip(model: AudioTokenizer) -> None:
    published, stored = state_to_published(model.state_dict()), load_file(TOK_SMALL / "model.safetensors")
    assert published.keys() == stored.keys() and len(stored) == 400
    assert [name for name in stored if not torch.equal(published[name], stored[name])] == []


def test_halves_load_separately(model: AudioTokenizer) -> None:
    codes = golden_codes("enc.codes")
    decoder = AudioTokenizer.from_pretrained(TOK_SMALL, parts="decoder")
    assert torch.equal(decoder.decode(codes), model.decode(codes))
    assert torch.equal(AudioTokenizer.from_pretrained(TOK_SMALL, parts="encoder").encode(wav()), codes)


def test_older_names_of_the_attention_matrices() -> None:
    stored = load_file(TOK_SMALL / "model.safetensors")
    wanted = state_from_published(stored)
    for new, old in (("in_projs.0.", "in_proj_"), ("in_projs.0.", "in_proj."), ("out_projs.0.", "out_proj.")):
        renamed = {
            name.replace(f"self_attn.{new}", f"self_attn.{old}"): value for name, value in stored.items()
        }
        assert renamed.keys() != stored.keys()
        assert state_from_published(renamed).keys() == wanted.keys()


def test_sharded_weights(model: AudioTokenizer, tmp_path: Path) -> None:
    stored = load_file(TOK_SMALL / "model.safetensors")
    shards = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(stored)}
    for shard in set(shards.values()):
        save_file({n: t for n, t in stored.items() if shards[n] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    shutil.copy(TOK_SMALL / "config.json", tmp_path)
    loaded, state = AudioTokenizer.from_pretrained(tmp_path).state_dict(), model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"00002-of-00002\.safetensors: weights are missing"):
        AudioTokenizer.from_pretrained(tmp_path)


def test_paper_preset_has_the_published_tensors() -> None:
    with torch.device("meta"):
        state = state_to_published(AudioTokenizer(paper()).state_dict())
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (1600, 1_774_566_400)
    shapes = {
        "encoder.1.input_proj.weight": (768, 240),
        "encoder.3.output_proj.weight": (384, 768),
        "encoder.5.output_proj.weight": (640, 768),
        "encoder.7.output_proj.weight": (768, 1280),
        "encoder.7.transformer.layers.31.self_attn.in_projs.0.weight": (3840, 1280),
        "encoder.1.transformer.layers.0.self_attn.out_projs.0.weight": (768, 768),
        "encoder.5.transformer.layers.11.norm1.bias": (768,),
        "decoder.0.input_proj.weight": (1280, 768),
        "decoder.2.input_proj.weight": (768, 640),
        "decoder.6.output_proj.weight": (240, 768),
        "decoder.0.transformer.layers.31.linear1.weight": (5120, 1280),
        "decoder.6.transformer.layers.11.linear2.weight": (768, 3072),
        "decoder.4.transformer.layers.5.norm2.weight": (768,),
        "decoder.4.transformer.layers.5.layer_scale_2.scale": (768,),
        "quantizer.input_proj.bias": (512,),
        "quantizer.input_proj.parametrizations.weight.original1": (512, 768, 1),
        "quantizer.output_proj.parametrizations.weight.original0": (768, 1, 1),
        "quantizer.quantizers.31.in_proj.parametrizations.weight.original1": (8, 512, 1),
        "quantizer.quantizers.0.out_proj.parametrizations.weight.original0": (512, 1, 1),
        "quantizer.quantizers.0.out_proj.bias": (512,),
        "quantizer.quantizers.31.codebook.weight": (1024, 8),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert not {"encoder.3.input_proj.weight", "decoder.0.output_proj.weight"} & state.keys()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("quantizer_kwargs", "quantizer_type"), "rvq", "quantizer_type='rvq' is not supported"),
        (("quantizer_kwargs", "output_dim"), 41, "output_dim must be code_dim=40"),
        (("encoder_kwargs", 3, "gating"), "silu", "gating='silu' is not supported, only 'none'"),
        (("decoder_kwargs", 0, "norm"), "rms_norm_f32", "norm='rms_norm_f32' is not supported"),
        (("decoder_kwargs", 6, "causal"), False, "causal=False is not supported"),
        (("encoder_kwargs", 1, "positional_embedding"), "sin", "positional_embedding='sin' is not supported"),
        (("encoder_kwargs", 2, "module_type"), "Transformer", "must alternate"),
        (("encoder_kwargs", 2, "patch_size"), 3, "joint 1: 48 features meet 32"),
        (("decoder_kwargs", 0, "max_period"), 5000, "the stages differ in max_period"),
    ],
)
def test_unsupported_configs_are_refused(place: tuple[str | int, ...], value: Any, message: str) -> None:
    raw = copy.deepcopy(RAW)
    inner: Any = raw
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        config_from_published(raw)


def test_missing_field_is_named() -> None:
    raw = {name: value for name, value in RAW.items() if name != "code_dim"}
    with pytest.raises(ValueError, match=r"lacks 'code_dim'"):
        config_from_published(raw)
