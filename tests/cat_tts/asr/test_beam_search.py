import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cat_tts.asr.beam_search import Transcript, transcribe
from cat_tts.asr.config import ASRConfig, ASRTokens, tiny
from cat_tts.asr.model import CatASR, pad_texts

CAUSAL = replace(tiny(), bidirectional=False, ctc_layer=None)
FEW_TOKENS = replace(CAUSAL, text_vocab_size=4, tokens=ASRTokens(audio_start=1, audio_end=2, text_end=0))


def model(config: ASRConfig, seed: int = 0, eager: float = 0.0) -> CatASR:
    """Random weights; with `eager`, texts end sooner."""
    torch.manual_seed(seed)
    asr = CatASR(config).eval()
    with torch.no_grad():
        for parameter in asr.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
        asr.text_embedding.weight[config.tokens.text_end] += eager * asr.llm.norm.weight
    return asr


def utterances() -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(32, (t, 6), generator=draw) for t in (7, 3, 5, 12)]


def log_probability(asr: CatASR, codes: Tensor, ids: list[int], ended: bool) -> float:
    """Of a text and, where it ended by itself, of its end, by the training's forward."""
    frames, depth = torch.tensor([len(codes)]), torch.tensor([6])
    with torch.no_grad():
        total = -float(asr(codes[None], frames, pad_texts([ids]), depth).text) * (len(ids) + 1)
        return total if ended else total - _end(asr, codes, ids)


def _end(asr: CatASR, codes: Tensor, ids: list[int]) -> float:
    x = asr.embed(codes[None], torch.tensor([len(codes)]), torch.tensor([6]))
    x = torch.cat([x, asr.text_embedding(torch.tensor([ids]))], 1)
    mask = asr.audio_mask(torch.tensor([len(codes)]), x.shape[1])
    states, _ = asr.states(x, mask)
    return float(asr.logits(states[0, -1:]).log_softmax(-1)[0, asr.config.tokens.text_end])


@pytest.mark.parametrize("config", [CAUSAL, tiny()], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_gives_what_each_gives_alone(config: ASRConfig, beams: int) -> None:
    asr = model(config)
    batched = transcribe(asr, utterances(), beams=beams)
    for codes, found in zip(utterances(), batched, strict=True):
        (single,) = transcribe(asr, [codes], beams=beams)
        assert (single.ids, single.ended) == (found.ids, found.ended)
        assert single.score == pytest.approx(found.score, abs=1e-5)


@pytest.mark.parametrize("config", [CAUSAL, tiny()], ids=["causal", "bidirectional"])
def test_greedy_takes_the_likeliest_token_that_training_sees(config: ASRConfig) -> None:
    asr = model(config)
    codes = utterances()[0]
    (found,) = transcribe(asr, [codes])
    ids: list[int] = []
    frames = torch.tensor([len(codes)])
    while len(ids) < len(found.ids):
        x = asr.embed(codes[None], frames, torch.tensor([6]))
        x = torch.cat([x, asr.text_embedding(torch.tensor([ids], dtype=torch.long))], 1)
        states, _ = asr.states(x, asr.audio_mask(frames, x.shape[1]))
        ids.append(int(asr.logits(states[0, -1:]).argmax()))
    assert found.ids == ids


def test_enough_beams_find_the_best_of_all_texts() -> None:
    """Four tokens, one frame: with all texts in the beam, the search is exhaustive."""
    asr, codes = model(FEW_TOKENS, eager=0.4), utterances()[1][:1]
    budget = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cat_tts.asr.beam_search.EXTRA_TOKENS", budget - 1)
        (found,) = transcribe(asr, [codes], beams=100)
    best = (-torch.inf, [], False)
    for count in range(budget + 1):
        for text in itertools.product((1, 2, 3), repeat=count):
            ended = count < budget
            total = log_probability(asr, codes, list(text), ended)
            best = max(best, (total / (count + 1), list(text), ended))
    assert (found.ids, found.ended) == (best[1], best[2])
    assert found.score == pytest.approx(best[0], abs=1e-5)


def test_the_score_is_the_mean_log_probability() -> None:
    asr = model(tiny(), seed=3, eager=0.6)
    for codes, found in zip(utterances(), transcribe(asr, utterances(), beams=2), strict=True):
        wanted = log_probability(asr, codes, found.ids, found.ended) / (len(found.ids) + 1)
        assert found.score == pytest.approx(wanted, abs=1e-5)


def test_the_budget_ends_what_does_not_end_by_itself() -> None:
    asr = model(replace(CAUSAL, tied=False))
    assert asr.head is not None
    with torch.no_grad():
        asr.head.weight[6] = -asr.head.weight[5]
        asr.head.weight[CAUSAL.tokens.text_end] = 0.0  # one of those two is always likelier
    found = transcribe(asr, utterances())
    assert [len(one.ids) for one in found] == [7 + 8, 3 + 8, 5 + 8, 12 + 8]
    assert not any(one.ended for one in found)


def test_a_model_that_ends_at_once_writes_nothing() -> None:
    asr = model(CAUSAL)
    with torch.no_grad():
        asr.llm.norm.weight.fill_(1.0)
        asr.text_embedding.weight.zero_()  # all tokens alike: the first, the end, is taken
    for found in transcribe(asr, utterances()):
        assert found == Transcript([], found.score, True)


def test_deeper_codes_are_not_read() -> None:
    asr, codes = model(tiny()), utterances()
    cut = [one[:, :2] for one in codes]
    changed = [torch.cat([one[:, :2], (one[:, 2:] + 1) % 32], 1) for one in codes]
    wanted = transcribe(asr, cut, depth=2)
    assert transcribe(asr, changed, depth=2) == transcribe(asr, codes, depth=2) == wanted
    assert wanted != transcribe(asr, codes)


def test_bad_requests_are_refused() -> None:
    asr, codes = model(CAUSAL), utterances()
    assert transcribe(asr, []) == []
    with pytest.raises(ValueError, match="depth=7 but this model reads 1 to 6 codebooks"):
        transcribe(asr, codes, depth=7)
    with pytest.raises(ValueError, match="beams=0"):
        transcribe(asr, codes, beams=0)
    with pytest.raises(ValueError, match=r"utterance 1 has codes of shape \(0, 6\)"):
        transcribe(asr, [codes[0], codes[1][:0]])
    with pytest.raises(ValueError, match=r"utterance 0 has codes of shape \(7, 2\)"):
        transcribe(asr, [codes[0][:, :2]], depth=3)
