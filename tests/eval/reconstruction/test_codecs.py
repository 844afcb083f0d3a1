"""Codecs of any make give what decoding their first codebooks gives."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

from eval.reconstruction.codecs import CatCodec, PlainCodec, TransformersCodec, load_transformers_codec
from eval.reconstruction.mp3 import mp3
from eval.reconstruction.opus import opus
from tokenizer import AudioTokenizer
from tokenizer.config import tiny


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)


SIZES: dict[str, Any] = {"codebook_size": 16, "codebook_dim": 8}
ENCODEC: dict[str, Any] = {
    **SIZES,
    "num_filters": 4,
    "hidden_size": 8,
    "num_lstm_layers": 1,
    "target_bandwidths": [0.3, 1.2],
    "normalize": True,
    "chunk_length_s": 0.4,
    "overlap": 0.01,
}
DAC: dict[str, Any] = {
    **SIZES,
    "encoder_hidden_size": 4,
    "decoder_hidden_size": 16,
    "hidden_size": 32,
    "n_codebooks": 4,
    "downsampling_ratios": [2, 4, 5],
    "upsampling_ratios": [5, 4, 2],
}
MIMI: dict[str, Any] = {
    **SIZES,
    "num_filters": 4,
    "hidden_size": 32,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 32,
    "upsample_groups": 32,
}


@torch.no_grad()
def small(kind: str) -> Any:
    """A codec with four codebooks of 16 random codes."""
    if kind == "encodec":
        model = EncodecModel(EncodecConfig(**ENCODEC))
    else:
        model = DacModel(DacConfig(**DAC)) if kind == "dac" else MimiModel(MimiConfig(**MIMI))
    for name, tensor in model.state_dict().items():
        if name.endswith(("embed", "embed_sum")) or "out_proj" in name:
            tensor.normal_()
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "rate", "frame_rate"), [("encodec", 24_000, 75), ("dac", 16_000, 400), ("mimi", 24_000, 12.5)]
)
@torch.inference_mode()
def test_a_codec_of_transformers_at_two_depths(
    tmp_path: Path, kind: str, rate: int, frame_rate: float
) -> None:
    model, audio = small(kind), noise(10_003)
    model.save_pretrained(tmp_path)
    codec = load_transformers_codec(kind, str(tmp_path), (1, 3), "cpu")
    assert codec.sample_rate == rate
    outputs, codes = codec.reconstruct(audio)
    assert [output.setting.name for output in outputs] == [f"{kind}, depth 1", f"{kind}, depth 3"]
    assert [output.setting.frame_rate for output in outputs] == [frame_rate] * 2
    assert [output.bitrate for output in outputs] == [frame_rate * 4, frame_rate * 12]
    assert all(output.audio.shape == audio.shape for output in outputs)
    assert np.abs(outputs[0].audio - outputs[1].audio).max() > 1e-4
    assert codes is not None and codes.codebook_size == 16 and codes.codes.shape[1] == 3
    assert len(codes.codes) >= len(audio) / rate * frame_rate

    hop = round(rate / frame_rate)
    whole = torch.nn.functional.pad(torch.from_numpy(audio), (0, -len(audio) % hop))[None, None]
    if kind == "encodec":
        encoded = model.encode(whole, bandwidth=1.2)
        assert len(encoded.audio_codes) == 2
        args = {"audio_scales": encoded.audio_scales, "last_frame_pad_length": encoded.last_frame_pad_length}
        expected = model.decode(encoded.audio_codes[:, :, :3], **args)
    elif kind == "dac":
        expected = model.decode(audio_codes=model.encode(whole, n_quantizers=3).audio_codes)
    else:
        expected = model.decode(model.encode(whole, num_quantizers=3).audio_codes)
    expected = expected.audio_values.flatten()[: len(audio)]
    torch.testing.assert_close(torch.from_numpy(outputs[1].audio), expected, atol=1e-5, rtol=1e-4)


def test_depths_that_a_codec_has_not_are_refused() -> None:
    mimi = small("mimi")
    for depths in [(0, 1), (5,), ()]:
        with pytest.raises(ValueError, match=r"mimi at depths \[.*it has depths 1 to 4"):
            TransformersCodec("mimi", mimi, depths)
    with pytest.raises(ValueError, match=r"ours at depths \[99\]: it has depths 1 to"):
        CatCodec("ours", AudioTokenizer(tiny()), (99,))


def test_models_that_are_no_codec_of_mono_audio_are_refused() -> None:
    with pytest.raises(ValueError, match="Linear does not encode"):
        TransformersCodec("x", torch.nn.Linear(1, 1), (1,))
    model = small("encodec")
    model.config.audio_channels = 2
    with pytest.raises(ValueError, match="codes 2 channels"):
        TransformersCodec("x", model, (1,))


def test_ours_is_cut_to_its_input_at_each_depth() -> None:
    tokenizer = AudioTokenizer(tiny()).eval()
    audio = noise(tokenizer.config.sample_rate // 2 + 1)
    outputs, found = CatCodec("ours", tokenizer, (1, 2)).reconstruct(audio)
    codes = tokenizer.encode(torch.from_numpy(audio)[None])
    assert found is not None
    np.testing.assert_array_equal(found.codes, codes[0, :, :2].numpy())
    for depth, output in enumerate(outputs, 1):
        expected = tokenizer.decode(codes[..., :depth])[0, : len(audio)]
        torch.testing.assert_close(torch.from_numpy(output.audio), expected.detach())
        assert output.bitrate == tokenizer.config.bitrate(depth)


def chirps(seconds: float) -> np.ndarray:
    """Sweeps that begin and end, as a tone alone would hide a delay."""
    time = np.arange(int(seconds * 24_000)) / 24_000
    return (0.3 * np.sin(2 * np.pi * 300 * time**2) * (np.sin(5 * time) > 0)).astype(np.float32)


def test_opus_keeps_length_and_place_and_takes_about_what_it_was_given() -> None:
    audio = chirps(3)
    cheap, cheap_rate = opus(audio, 24_000, 6)
    dear, dear_rate = opus(audio, 24_000, 64)
    assert len(cheap) == len(dear) == len(audio)
    assert 4_000 < cheap_rate < 12_000 < dear_rate
    assert np.abs(dear - audio).mean() < np.abs(cheap - audio).mean() < np.abs(audio).mean()
    with pytest.raises(ValueError, match=r"Opus at 3 kbit/s: choose 6 to 256"):
        opus(audio, 24_000, 3)


def test_mp3_keeps_length_place_and_loudness_and_takes_about_what_it_was_given() -> None:
    audio = chirps(3)
    outputs, codes = PlainCodec("mp3", mp3, (16, 64)).reconstruct(audio)
    assert codes is None and [output.setting.name for output in outputs] == ["mp3 16", "mp3 64"]
    for output, kbps in zip(outputs, (16, 64), strict=True):
        assert len(output.audio) == len(audio)
        assert 1_000 * kbps <= output.bitrate < 1_100 * kbps + 500
    dear = outputs[1].audio.astype(np.float64)
    lags = [float(np.roll(dear, lag) @ audio) for lag in range(-3, 4)]
    assert int(np.argmax(lags)) == 3
    assert dear @ audio / (audio @ audio.astype(np.float64)) == pytest.approx(1, abs=0.01)
    assert 20 * math.log10(np.linalg.norm(audio) / np.linalg.norm(dear - audio)) > 25
    with pytest.raises(ValueError, match=r"MP3 at 12 kbit/s: choose one of 8, 16"):
        mp3(audio, 24_000, 12)
