from pathlib import Path

import pytest
import torch

from training.synthetic.speakers import Speaker
from training.synthetic.teacher_kokoro import KokoroTeacher, dequantize, style, style_at_length


def test_integers_become_weights_again_by_row() -> None:
    stored = {
        "a": torch.tensor([[0, 255], [3, 4]], dtype=torch.uint8),
        "a.scale": torch.tensor([0.5, 2.0]),
        "a.zero": torch.tensor([128, 3], dtype=torch.int16),
        "b": torch.tensor([[[-4]], [[6]]], dtype=torch.int8),
        "b.scale": torch.tensor([0.25]),
        "b.zero": torch.tensor([2], dtype=torch.int16),
        "c": torch.tensor([1.5], dtype=torch.float16),
    }
    weights = dequantize(stored)
    assert {name: weight.tolist() for name, weight in weights.items()} == {
        "a": [[-64.0, 63.5], [0.0, 2.0]],
        "b": [[[-1.5]], [[1.0]]],
        "c": [1.5],
    }
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_rows_left_out_of_a_voice_are_interpolated() -> None:
    whole = torch.linspace(0, 1, 510)[:, None].expand(510, 256)
    assert torch.equal(style_at_length(whole, 1), whole[:1])
    assert torch.equal(style_at_length(whole, 510), whole[509:])
    assert torch.equal(style_at_length(whole, 600), whole[509:])
    sparse = whole[torch.linspace(0, 509, 65).round().long()]
    for phonemes in (1, 77, 300, 510):
        torch.testing.assert_close(
            style_at_length(sparse, phonemes), style_at_length(whole, phonemes), rtol=0, atol=1.5 / 509
        )


def test_a_style_has_the_timbre_and_prosody_of_two_blends() -> None:
    voices = {name: torch.full((510, 256), value) for name, value in (("af_x", 1.0), ("af_y", 3.0))}
    speaker = Speaker(
        name="s",
        alpha=1.0,
        speed=1.0,
        voice_blend=(("af_x", 0.25), ("af_y", 0.75)),
        prosody_blend=(("af_x", 0.999),),  # weights are rounded
    )
    vector = style(voices, speaker, 40)
    torch.testing.assert_close(vector[:, :128], torch.full((1, 128), 2.5))
    torch.testing.assert_close(vector[:, 128:], torch.full((1, 128), 1.0))
    with pytest.raises(ValueError, match="no voice af_y; there are af_x"):
        style({"af_x": voices["af_x"]}, speaker, 40)


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks weights\.int8\.safetensors: make the folder with"):
        KokoroTeacher(tmp_path)
