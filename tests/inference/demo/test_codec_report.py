"""What a depth costs, counted by hand, and what it gives, as the tokenizer decodes it."""

from pathlib import Path

import numpy as np
import pytest

from inference.demo.codec_report import decode_at, depth_costs, encode_file
from tokenizer import AudioTokenizer


@pytest.fixture
def tokenizer(bundle: Path) -> AudioTokenizer:
    return AudioTokenizer.from_pretrained(bundle / "tokenizer")


def test_each_depth_is_decoded_from_its_codebooks_alone(tokenizer: AudioTokenizer, prompt_file: Path) -> None:
    coded = encode_file(tokenizer, prompt_file)
    assert len(coded.audio) == 28_800 and coded.codes.shape == (15, 6)
    expected = tokenizer.decode(coded.codes[None, :, :2])[0].clamp(-1, 1)
    assert np.array_equal(decode_at(tokenizer, coded, 2), expected.numpy())


def test_what_depths_cost(tokenizer: AudioTokenizer, prompt_file: Path) -> None:
    """15 frames of 1, 2, 4 or 6 codes of 5 bits, rounded up to bytes, against 28,800 samples of 16 bits."""
    rows = depth_costs(tokenizer, encode_file(tokenizer, prompt_file))
    assert [row.depth for row in rows] == [1, 2, 4, 6]
    assert [row.num_bytes for row in rows] == [10, 19, 38, 57]
    assert [row.bit_per_second for row in rows] == [62.5, 125.0, 250.0, 375.0]
    assert rows[0].times_smaller == 5760
    assert all(row.distance_db > 0 for row in rows)
