"""What a model makes of a take: whether it says its text."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cat_tts import CatTTS, Continuation, SamplingOptions
from cat_tts.config import tiny
from cat_tts.generation.text_likelihood import text_evidence
from cat_tts.sequences.rows import frame_rows, positions, text_rows, untold_rows


@pytest.fixture(scope="module")
def model() -> CatTTS:
    torch.manual_seed(0)
    return CatTTS(tiny()).eval()


@pytest.fixture(scope="module")
def asked(model: CatTTS) -> Continuation:
    """Four text tokens, a prompt of two frames."""
    config = model.config
    prompt = torch.arange(2 * 3).view(2, 3)
    text = text_rows(config, [5, 6, 7, 8, config.tokens.audio_start])
    rows = torch.cat([text, frame_rows(config, prompt, config.tokens.slot)])
    return Continuation(
        rows=rows,
        positions=positions(config, rows, 2.0),
        depth=3,
        seed=0,
        options=SamplingOptions(guidance=2.0),
        max_frames=9,
    )


@torch.inference_mode()
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_evidence_frame_by_frame(model: CatTTS, asked: Continuation, depth: int) -> None:
    """Against the probability of each code on its own, given all that came before it."""
    asked, codes = replace(asked, depth=depth), torch.arange(4, 4 + 3 * depth).view(3, depth)
    config, total, before = model.config, 0.0, asked.positions
    assert before is not None
    for t in range(3):
        for rows, sign in ((asked.rows, 1), (untold_rows(config, asked.rows), -1)):
            heard = torch.cat([rows, frame_rows(config, codes[:t], config.tokens.slot)])
            places = torch.cat([before, before[-1] + torch.arange(1, 1 + t)])[None]
            state = model.states(model.embed(heard[None], depth), positions=places)[0, -1:]
            target = frame_rows(config, codes[t : t + 1], config.tokens.slot)[:, : 1 + depth]
            likelihood = F.log_softmax(model.frame_logits(state, target)[1][0], -1)
            total += sign * sum(float(likelihood[k, codes[t, k]]) for k in range(min(3, depth)))
    assert text_evidence(model, asked, codes) == pytest.approx(total / 3, abs=1e-5)


def test_without_text_there_is_no_evidence_for_it(model: CatTTS, asked: Continuation) -> None:
    silent = replace(asked, rows=untold_rows(model.config, asked.rows))
    assert text_evidence(model, silent, torch.zeros(3, 2, dtype=torch.long)) == 0


def test_a_take_without_frames_is_refused(model: CatTTS, asked: Continuation) -> None:
    with pytest.raises(ValueError, match="a take without frames says nothing"):
        text_evidence(model, asked, torch.zeros(0, 2, dtype=torch.long))
