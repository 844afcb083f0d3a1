from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.config import tiny
from eval.speed.memory import peak_growth
from eval.speed.train_tts_step import StepOptions, contenders, data, ours, plain, saved_bytes

pytestmark = pytest.mark.usefixtures("datasets_cache")


def test_the_plain_step_computes_the_same_losses(codes: Path) -> None:
    """At full depth they differ in how the means of the channels are put together, and in nothing else."""
    options = StepOptions(codes=codes, rows=160, utterances=20)
    model, batches = CatTTS(tiny()), data(options, tiny())
    (batch,) = batches[0]
    total = 7 * plain(batch)(model)
    loss = model(batch.rows, None, batch.targets, batch.depth, batch.positions)
    torch.testing.assert_close(total, loss.decision + loss.layers.sum())
    torch.testing.assert_close(ours(batch)(model), loss.decision + loss.codes)

    steps = contenders(options, batches, 0)
    saved = [saved_bytes(steps[name][0], model) for name in ("plain", "p = 0", "p = 1", "p = 1, deep 1/16")]
    assert saved == sorted(saved, reverse=True) and saved[2] < 0.8 * saved[1]
    depth = steps["p = 1"][1].depth
    assert 1 <= depth.min() < 3 and 4 < depth.max() <= 6 and abs(depth.double().mean() - 3.5) <= 0.5


def test_peak_growth_is_that_of_the_call_alone() -> None:
    torch.ones(2**24).sum()  # 64 MB, before
    grown = peak_growth(lambda: torch.ones(2**22).sum(), torch.device("cpu"))
    assert 0.9 * 2**24 <= grown < 2**25
