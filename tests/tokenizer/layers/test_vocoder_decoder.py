"""A tokenizer whose decoder ends in a vocoder."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tests.tokenizer.layers.test_vocoder import close
from tokenizer.config import TokenizerConfig, VocoderConfig, tiny
from tokenizer.io.checkpoint import CheckpointError
from tokenizer.layers.vocoder import VocoderState
from tokenizer.model import AudioTokenizer

VOCODER = VocoderConfig(bands=8, impulse=300)
SHORT_STREAM = replace(
    tiny(),
    decoder=(*tiny().decoder[:-1], replace(tiny().decoder[-1], output_dim=VOCODER.controls)),
    vocoder=VOCODER,
    context_seconds=0.32,
)
"""`tiny` with a vocoder, and a window of 4 frames."""


def tokenizer(*, melodic: bool = False) -> AudioTokenizer:
    """The pitch stays where it is unless `melodic`: the phase accumulates differences of last bits."""
    built = AudioTokenizer(SHORT_STREAM).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        built.decoder[-1].project_out.get_parameter("weight")[0] *= melodic
    return built


def codes(batch: int, frames: int) -> Tensor:
    return torch.randint(32, (batch, frames, 6))


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 6]])
def test_a_tokenizer_with_a_vocoder_decodes_streams(chunks: list[int]) -> None:
    model, frames = tokenizer(), codes(2, 12)
    cache = model.decoder_cache(2)
    streamed = torch.cat([model.decode(part, cache) for part in frames.split(chunks, 1)], 1)
    assert streamed.shape == (2, 12 * 1920)
    close(streamed, model.decode(frames))


@torch.no_grad()
def test_a_melody_is_streamed_as_closely_as_a_pitch_can_be() -> None:
    model, frames = tokenizer(melodic=True), codes(1, 25)
    pitch = model.controls(model.quantizer.decoder()(frames, None))[..., 0]
    assert pitch.std() > 0.1
    cache, whole = model.decoder_cache(), model.decode(frames)
    streamed = torch.cat([model.decode(part, cache) for part in frames.split(1, 1)], 1)
    assert (streamed - whole).std() < 0.01 * whole.std()


@torch.no_grad()
def test_slots_of_decoders_load_move_and_reset() -> None:
    model = tokenizer()
    prompt, a, b, c = (codes(1, n) for n in (3, 9, 4, 5))
    primed = model.decoder_cache()
    model.decode(prompt, primed)
    state = model.decoder_cache(2)
    first = model.decode(torch.cat([b, a[:, :4]]), state)
    state.move(1, 0)
    second = model.decode(a[:, 4:6], state)
    state.load_state(1, primed.snapshot())
    copied = primed.copy()
    third = model.decode(torch.cat([a[:, 6:], c[:, :3]]), state)
    close(first[0], model.decode(b)[0])
    close(torch.cat([first[1], second[0], third[0]]), model.decode(a)[0])
    single = model.decode(torch.cat([prompt, c], 1))[0, 3 * 1920 :]
    close(third[1], single[: 3 * 1920])
    close(model.decode(c, copied)[0], single)
    state.reset(1)
    last = codes(1, 2)
    close(model.decode(torch.cat([codes(1, 2), last]), state)[1:], model.decode(last))


@torch.no_grad()
def test_slots_have_their_own_decoder_adaptation() -> None:
    """A stream with an adaptation is that of a decoder with other weights, also loaded, moved and copied."""
    model = tokenizer()
    weight = model.decoder[-1].project_out.get_parameter("weight")
    decoder_adaptation = 0.3 * torch.randn_like(weight)
    decoder_adaptation[0] = 0  # of the pitch
    adapted = copy.deepcopy(model)
    adapted.decoder[-1].project_out.get_parameter("weight").add_(decoder_adaptation)
    prompt, a, b = (codes(1, n) for n in (3, 6, 6))
    primed, state = model.decoder_cache(), model.decoder_cache(2)
    primed.set_adaptation(0, decoder_adaptation)
    assert primed.nbytes == model.decoder_cache().nbytes + decoder_adaptation.nbytes
    close(model.decode(prompt, primed), adapted.decode(prompt))
    state.load_state(1, primed.snapshot())
    first = model.decode(torch.cat([b[:, :2], a[:, :2]]), state)
    state.move(1, 0)
    copied = state.copy()
    second = model.decode(a[:, 2:4], state)
    state.reset(0)
    close(first[0], model.decode(b[:, :2])[0])
    close(torch.cat([first[1], second[0]]), adapted.decode(torch.cat([prompt, a[:, :4]], 1))[0, 3 * 1920 :])
    close(model.decode(b, state), model.decode(b))
    close(model.decode(a[:, 2:4], copied), second)


def test_a_cache_counts_the_memory_of_its_vocoder() -> None:
    """Two numbers of 8 bytes, a flag, and float32: 17 controls and 2 patches of tail."""
    cache = tokenizer().decoder_cache()
    assert isinstance(cache.vocoder, VocoderState)
    assert cache.vocoder.nbytes == 8 + 8 + 1 + 4 * (17 + 2 * 240)
    blocks = sum(stage.block.nbytes for stage in cache.stages)
    assert cache.nbytes == blocks + cache.vocoder.nbytes


def test_training_reaches_the_decoder_and_controls_are_what_is_rendered() -> None:
    model, latents = tokenizer(melodic=True), torch.randn(1, 3, 24)
    controls = model.controls(latents)
    assert controls.shape == (1, 24, 17) and model.vocoder is not None
    audio = model.synthesize(latents)
    torch.testing.assert_close(model.vocoder(controls), audio)
    audio.square().mean().backward()
    for parameter in model.decoder.parameters():  # pyright: ignore[reportAttributeAccessIssue]
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_without_a_vocoder_controls_are_patches() -> None:
    model, latents = AudioTokenizer(tiny()), torch.randn(1, 3, 24)
    assert torch.equal(model.controls(latents).view(1, -1), model.synthesize(latents))
    assert model.decoder_cache().vocoder is None


@pytest.mark.parametrize("parts", ["both", "decoder"])
@torch.no_grad()
def test_save_and_load(parts: str, tmp_path: Path) -> None:
    model, frames = tokenizer(), codes(1, 4)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["vocoder"]["bands"] == 8
    loaded = AudioTokenizer.from_pretrained(tmp_path, parts)  # pyright: ignore[reportArgumentType]
    assert loaded.config == SHORT_STREAM
    assert torch.equal(loaded.decode(frames), model.decode(frames))


def test_an_encoder_alone_has_no_vocoder(tmp_path: Path) -> None:
    model, audio = tokenizer(), 0.3 * torch.randn(1, 3 * 1920)
    model.save_pretrained(tmp_path)
    encoder = AudioTokenizer.from_pretrained(tmp_path, "encoder")
    assert encoder.vocoder is None and torch.equal(encoder.encode(audio), model.encode(audio))


def test_a_config_without_a_vocoder_is_as_it_always_was(tmp_path: Path) -> None:
    AudioTokenizer(tiny()).save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert list(raw) == [
        "encoder",
        "decoder",
        "quantizer",
        "code_dim",
        "sample_rate",
        "context_seconds",
        "rope_period",
        "layer_scale",
    ]
    assert TypeAdapter(TokenizerConfig).validate_python(raw) == tiny()
    raw["vocoder"] = {"band": 8}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"vocoder\.band: Unexpected keyword argument"):
        AudioTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": 1}, "bands=1, impulse=480: give 2 bands"),
        ({"impulse": 0}, "bands=64, impulse=0: give 2 bands and 1 sample"),
        ({"lowest_pitch": 600.0}, r"no pitch is from 600\.0 to 500\.0 Hz"),
        ({"lowest_pitch": 0.0}, r"no pitch is from 0\.0 to 500\.0 Hz"),
    ],
)
def test_impossible_vocoders_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocoderConfig(**changes)  # pyright: ignore[reportArgumentType]


def test_vocoders_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="joint 9: 240 features meet 129"):
        replace(tiny(), vocoder=VocoderConfig())
    with pytest.raises(ValueError, match="joint 9: 17 features meet 240"):
        replace(SHORT_STREAM, vocoder=None)
    with pytest.raises(ValueError, match=r"highest_pitch=7000\.0 at 24000 samples a second"):
        replace(SHORT_STREAM, vocoder=VocoderConfig(bands=8, highest_pitch=7000.0))
