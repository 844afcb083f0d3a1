"""Use of codebooks, by hand."""

import numpy as np
import pytest

from eval.reconstruction.codebook_usage import bitrate_efficiency, codebook_use


def test_use_entropy_and_efficiency_by_hand() -> None:
    first, second = np.array([[0, 7], [1, 7]]), np.array([[0, 7], [1, 7]])
    halves, one = codebook_use([first, second], 8)
    assert (halves.used, halves.entropy, halves.perplexity) == (2 / 8, 1.0, 2.0)
    assert (one.used, one.entropy, one.perplexity) == (1 / 8, 0.0, 1.0)
    assert bitrate_efficiency([halves, one], 8) == pytest.approx(1 / 6)


def test_every_code_once_is_perfect() -> None:
    uses = codebook_use([np.arange(16)[:, None]], 16)
    assert uses[0].used == 1 and uses[0].perplexity == pytest.approx(16)
    assert bitrate_efficiency(uses, 16) == pytest.approx(1)
