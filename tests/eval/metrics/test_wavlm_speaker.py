"""WavLM + ECAPA-TDNN against a second implementation, on small random weights under the published names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.metrics.audio import MetricError
from eval.metrics.wavlm_speaker import WavLMSpeaker, WavLMSpeakerEncoder, load_speaker, renamed, sizes_of
from tests.helpers.wavlm_reference import (
    EMBEDDING,
    Variant,
    Weights,
    reference,
    shapes,
    small_weights,
)

RIGHT = Variant()


def write(folder: Path, weights: Weights) -> Path:
    torch.save({"model": weights, "best_valid_eer": 0.431}, folder / "wavlm.pth")
    return folder / "wavlm.pth"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("wavlm"), small_weights())


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> WavLMSpeaker:
    return load_speaker(checkpoint)


@pytest.fixture(scope="module")
def quiet() -> torch.Tensor:
    """Two recordings, so quiet that the epsilon of their norm counts, and not centred."""
    return 3e-5 * torch.randn(2, 8_000, generator=torch.Generator().manual_seed(1)) + 1e-5


@torch.inference_mode()
def test_embeddings_are_those_of_the_reference(network: WavLMSpeaker, quiet: torch.Tensor) -> None:
    embeddings = network(quiet)
    assert embeddings.shape == (2, EMBEDDING)
    torch.testing.assert_close(embeddings, reference(small_weights(), quiet), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(embeddings[1:], network(quiet[1:]), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(RIGHT, wave_eps=1e-7),
        replace(RIGHT, last_state="raw"),
        replace(RIGHT, pre_norm=False),
        replace(RIGHT, relu_first=False),
        replace(RIGHT, dilations=(1, 2, 3)),
        replace(RIGHT, dilations=(2, 3, 3)),
        replace(RIGHT, groups=7),
        replace(RIGHT, global_context=True),
        replace(RIGHT, instance_norm=False),
        replace(RIGHT, softmax_weights=False),
        replace(RIGHT, max_distance=128),
        replace(RIGHT, gated=False),
    ],
    ids=str,
)
@torch.inference_mode()
def test_each_trap_would_show(network: WavLMSpeaker, quiet: torch.Tensor, wrong: Variant) -> None:
    difference = (network(quiet) - reference(small_weights(), quiet, wrong)).abs().max()
    assert difference > 1e-3


@torch.inference_mode()
def test_the_last_hidden_state_is_normed_whatever_transformers_lists(checkpoint: Path, quiet) -> None:
    network = load_speaker(checkpoint)
    expected = network(quiet)

    def before_5(module, inputs, output):
        return type(output)(
            last_hidden_state=output.last_hidden_state,
            hidden_states=(*output.hidden_states[:-1], output.last_hidden_state),
        )

    def neither(module, inputs, output):
        broken = torch.full_like(output.last_hidden_state, torch.nan)
        return type(output)(
            last_hidden_state=output.last_hidden_state, hidden_states=(*output.hidden_states[:-1], broken)
        )

    for listed in (before_5, neither):
        hook = network.wavlm.register_forward_hook(listed)
        torch.testing.assert_close(network(quiet), expected, atol=0, rtol=0)
        hook.remove()


def test_the_published_checkpoint_has_the_names_and_shapes_of_this_network() -> None:
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in shapes(large=True).items()}
        assert len(weights) == 711
        del weights["loss_calculator.projection.weight"]
        network = WavLMSpeaker(*sizes_of(weights))
    published = {name: tensor.shape for name, tensor in renamed(weights).items()}
    assert published == {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert round(sum(p.numel() for p in network.head.parameters()) / 1e6, 2) == 8.41
    assert network.feature_weight.shape == (25,)
    assert network.wavlm.config.num_hidden_layers == 24 and network.wavlm.config.do_stable_layer_norm
    biased = [name for name in published if "rel_attn_embed" in name]
    assert biased == ["wavlm.encoder.layers.0.attention.rel_attn_embed.weight"]
    assert published[biased[0]] == (320, 16)


def test_the_encoder_gives_unit_vectors_and_cosines(checkpoint: Path, quiet: torch.Tensor) -> None:
    encoder = WavLMSpeakerEncoder(checkpoint)
    first, second = quiet.numpy()
    raw = reference(small_weights(), quiet)
    cosine = float(torch.nn.functional.cosine_similarity(raw[0], raw[1], dim=0))
    assert np.linalg.norm(encoder.embed(first, 16_000)) == pytest.approx(1, abs=1e-6)
    assert encoder.similarity(first, 16_000, second, 16_000) == pytest.approx(cosine, abs=1e-5)
    assert encoder.similarity(first, 16_000, first, 16_000) == pytest.approx(1, abs=1e-6)
    tone = np.sin(2 * np.pi * 200 * np.arange(12_000) / 24_000).astype(np.float32)
    at_16_khz = np.sin(2 * np.pi * 200 * np.arange(8_000) / 16_000).astype(np.float32)
    assert encoder.similarity(tone, 24_000, at_16_khz, 16_000) > 0.99


@pytest.mark.parametrize("problem", ["silent", "short", "nan"])
def test_audio_without_a_voice_is_refused(checkpoint: Path, quiet: torch.Tensor, problem: str) -> None:
    audio = quiet[0].numpy()
    bad = {"silent": audio * 0, "short": audio[:1_000], "nan": audio * np.float32("nan")}[problem]
    with pytest.raises(MetricError):
        WavLMSpeakerEncoder(checkpoint).embed(bad, 16_000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "head.linear.bias"),
        ("missing size", "layer1.conv.weight"),
        ("unexpected", "extra.weight"),
        ("shape", "size mismatch.*fc2|size mismatch.*output_dense"),
        ("no model", "model"),
        ("code", "give wavlm_large_finetune.pth"),
        ("empty", "give wavlm_large_finetune.pth"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, damage: str, message: str) -> None:
    weights = small_weights()
    if damage == "missing":
        del weights["linear.bias"]
    elif damage == "missing size":
        del weights["layer1.conv.weight"]
    elif damage == "unexpected":
        weights["extra.weight"] = torch.zeros(2)
    elif damage == "shape":
        weights["feature_extract.model.encoder.layers.1.fc2.weight"] = torch.zeros(3, 4)
    path = write(tmp_path, weights)
    if damage == "no model":
        torch.save({"state": weights}, path)
    elif damage == "code":
        torch.save({"model": Path("a")}, path)
    elif damage == "empty":
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"(?s)wavlm.pth.*({message})") as caught:
        WavLMSpeakerEncoder(path)
    assert "\n" not in str(caught.value)
