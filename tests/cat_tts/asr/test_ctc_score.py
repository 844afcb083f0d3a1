from dataclasses import replace

import pytest
import torch

from cat_tts.asr.config import tiny
from cat_tts.asr.ctc_score import heard
from cat_tts.asr.model import CatASR


@pytest.fixture(scope="module")
def model() -> CatASR:
    torch.manual_seed(0)
    asr = CatASR(tiny()).eval()
    with torch.no_grad():
        for parameter in asr.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
    return asr


def codes(*frames: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(32, (n, 6), generator=draw) for n in frames]


def test_a_frame_by_hand(model: CatASR) -> None:
    """Two steps: "a" is a_, _a or aa; the readiest is the likeliest class of each."""
    (take,) = codes(1)
    x = model.embed(take[None], torch.tensor([1]), torch.tensor([6]))
    _, inner = model.states(x, model.audio_mask(torch.tensor([1]), 3))
    assert inner is not None
    first, second = model.ctc_logits(inner[:, 1:2])[0].softmax(-1)
    a, blank = ord("a"), 256
    said = first[a] * second[blank] + first[blank] * second[a] + first[a] * second[a]
    readiest = first.max() * second.max()
    assert heard(model, [take], "A") == pytest.approx([float((said / readiest).log().detach())], rel=1e-4)


def test_a_take_is_heard_as_it_is_alone_and_at_its_depth(model: CatASR) -> None:
    takes = codes(9, 4, 12)
    together = heard(model, takes, "yes")
    assert together == pytest.approx([heard(model, [one], "yes")[0] for one in takes], rel=1e-4)
    shallow = heard(model, [one[:, :2] for one in takes], "yes")
    assert min(abs(a - b) for a, b in zip(together, shallow, strict=True)) > 1e-3


def test_a_text_that_is_too_long_is_not_heard(model: CatASR) -> None:
    assert heard(model, codes(2), "twelve words") == [-float("inf")]


def test_what_cannot_be_judged(model: CatASR) -> None:
    with pytest.raises(ValueError, match="no second head: train one with ctc_layer"):
        heard(CatASR(replace(tiny(), ctc_layer=None)), codes(3), "yes")
    with pytest.raises(ValueError, match="nothing in '' can be heard"):
        heard(model, codes(3), "")
    with pytest.raises(ValueError, match="a take without frames says nothing"):
        heard(model, codes(3, 0), "yes")
