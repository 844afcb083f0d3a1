from dataclasses import replace

import pytest
import torch

from cat_tts.asr.config import tiny
from cat_tts.asr.ctc_score import ctc_score
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
    """Two steps: "a" is a_, _a or aa; the best path is the likeliest class of each."""
    (utterance,) = codes(1)
    x = model.embed(utterance[None], torch.tensor([1]), torch.tensor([6]))
    _, inner = model.states(x, model.audio_mask(torch.tensor([1]), 3))
    assert inner is not None
    first, second = model.ctc_logits(inner[:, 1:2])[0].softmax(-1)
    a, blank = ord("a"), 256
    text_probability = first[a] * second[blank] + first[blank] * second[a] + first[a] * second[a]
    best_path = first.max() * second.max()
    assert ctc_score(model, [utterance], "A") == pytest.approx(
        [float((text_probability / best_path).log().detach())], rel=1e-4
    )


def test_a_score_is_the_same_alone_and_depends_on_the_depth(model: CatASR) -> None:
    utterances = codes(9, 4, 12)
    batched = ctc_score(model, utterances, "yes")
    assert batched == pytest.approx([ctc_score(model, [one], "yes")[0] for one in utterances], rel=1e-4)
    shallow = ctc_score(model, [one[:, :2] for one in utterances], "yes")
    assert min(abs(a - b) for a, b in zip(batched, shallow, strict=True)) > 1e-3


def test_a_text_that_is_too_long_has_no_path(model: CatASR) -> None:
    assert ctc_score(model, codes(2), "twelve words") == [-float("inf")]


def test_what_cannot_be_scored(model: CatASR) -> None:
    with pytest.raises(ValueError, match="no second head: train one with ctc_layer"):
        ctc_score(CatASR(replace(tiny(), ctc_layer=None)), codes(3), "yes")
    with pytest.raises(ValueError, match="nothing in '' can be recognized"):
        ctc_score(model, codes(3), "")
    with pytest.raises(ValueError, match="an utterance without frames says nothing"):
        ctc_score(model, codes(3, 0), "yes")
