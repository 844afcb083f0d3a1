import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from tokenizer.config import QuantizerConfig, StageConfig, TokenizerConfig, mini, paper, scaled, small, tiny
from tokenizer.model import AudioTokenizer

ADAPTER = TypeAdapter(TokenizerConfig)
PRESETS = [paper, small, mini, tiny, lambda: scaled(384)]


def parameters(config: TokenizerConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in AudioTokenizer(config).parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_the_frames_of_the_paper(preset: Callable[[], TokenizerConfig]) -> None:
    config = preset()
    assert (config.sample_rate, config.frame_size, config.frame_rate) == (24_000, 1920, 12.5)
    assert [stage.patch_size for stage in config.encoder] in ([240, 2, 2, 2], [480, 1, 2, 2])
    assert [stage.patch_size for stage in config.decoder] == [2, 2, 2, 240]


def test_paper_is_appendix_a() -> None:
    config = paper()
    assert [
        (s.input_dim, s.dim, s.output_dim, s.num_layers, s.num_heads, s.ffn_dim) for s in config.encoder
    ] == [
        (240, 768, 384, 12, 12, 3072),
        (768, 768, 384, 12, 12, 3072),
        (768, 768, 640, 12, 12, 3072),
        (1280, 1280, 768, 32, 20, 5120),
    ]
    assert [
        (s.input_dim, s.dim, s.output_dim, s.num_layers, s.num_heads, s.ffn_dim) for s in config.decoder
    ] == [
        (768, 1280, 1280, 32, 20, 5120),
        (640, 768, 768, 12, 12, 3072),
        (384, 768, 768, 12, 12, 3072),
        (384, 768, 240, 12, 12, 3072),
    ]
    assert config.quantizer == QuantizerConfig(num_codebooks=32, codebook_size=1024, codebook_dim=8, dim=512)
    assert (config.context_seconds, config.code_dim) == (10.0, 768)


@pytest.mark.parametrize(("hidden", "millions"), [(256, 319), (384, 505), (512, 710), (768, 1169)])
def test_scaling_family_has_the_sizes_of_figure_5(hidden: int, millions: int) -> None:
    assert parameters(scaled(hidden)) == pytest.approx(millions * 1e6, rel=0.01)


def test_small_presets_stay_small() -> None:
    assert parameters(tiny()) < 200_000
    assert 5e6 < parameters(mini()) < 26e6


def test_bitrate_is_125_bits_a_second_a_codebook() -> None:
    assert [paper().bitrate(depth) for depth in (1, 8, 32)] == [125.0, 1000.0, 4000.0]
    assert tiny().bitrate(2) == 2 * 12.5 * 5  # 32 = 2 ** 5 codes


def test_windows_are_truncated_to_whole_steps() -> None:
    """1.3 s at 12.5 frames a second are 16.25 steps; the published models attend to 16."""
    model = AudioTokenizer(replace(tiny(), context_seconds=1.3))
    assert [stage.window for stage in model.encoder] == [130, 65, 32, 16]
    assert [stage.window for stage in model.decoder] == [16, 32, 65, 130]


@pytest.mark.parametrize("preset", PRESETS)
def test_json_round_trip(preset: Callable[[], TokenizerConfig]) -> None:
    config = preset()
    assert ADAPTER.validate_json(ADAPTER.dump_json(config)) == config


@pytest.mark.parametrize("place", [(), ("quantizer",), ("encoder", 2)])
def test_unknown_key_is_refused(place: tuple[str | int, ...]) -> None:
    raw = json.loads(ADAPTER.dump_json(tiny()))
    inner = raw
    for key in place:
        inner = inner[key]
    inner["codebok_size"] = 64
    with pytest.raises(ValidationError, match="codebok_size"):
        ADAPTER.validate_python(raw)


def with_stage(config: TokenizerConfig, side: str, index: int, **changes: int) -> TokenizerConfig:
    stages: list[StageConfig] = list(getattr(config, side))
    stages[index] = replace(stages[index], **changes)
    return replace(config, **{side: tuple(stages)})


@pytest.mark.parametrize(
    ("side", "index", "changes", "message"),
    [
        ("encoder", 0, {"input_dim": 250}, "joint 0: 240 features meet 250"),
        ("encoder", 0, {"input_dim": 480}, "joint 0: 240 features meet 480"),
        ("encoder", 1, {"output_dim": 9}, "joint 2: 18 features meet 16"),
        ("encoder", 2, {"input_dim": 18}, "joint 2: 16 features meet 18"),
        ("encoder", 3, {"output_dim": 32}, "joint 4: 32 features meet 24"),
        ("decoder", 0, {"input_dim": 32}, "joint 5: 24 features meet 32"),
        ("decoder", 0, {"output_dim": 33}, "joint 6: 33 features meet 32"),
        ("decoder", 3, {"output_dim": 120}, "joint 9: 120 features meet 240"),
    ],
)
def test_widths_that_do_not_fit_are_refused(
    side: str, index: int, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        with_stage(tiny(), side, index, **changes)


def test_unequal_folding_is_refused() -> None:
    config = tiny()
    with pytest.raises(ValueError, match="different numbers of samples"):
        with_stage(config, "decoder", 3, patch_size=120, output_dim=120)


def test_context_shorter_than_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context_seconds=0\.07 is shorter than a frame"):
        replace(tiny(), context_seconds=0.07)


@pytest.mark.parametrize("heads", [0, 3, 16])
def test_heads_of_a_broken_or_odd_width_are_refused(heads: int) -> None:
    with pytest.raises(ValueError, match=rf"dim=16 with num_heads={heads}: "):
        with_stage(tiny(), "encoder", 0, num_heads=heads)
