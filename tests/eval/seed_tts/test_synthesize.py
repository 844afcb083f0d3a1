"""Requests in a batch have the same results as single requests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.seed_tts.synthesize import speak
from inference import Synthesizer
from inference.engine.request import Request
from inference.synthesis.best_of_n import best_of_n

SEED = 2
PROMPT_TEXT = "What the recording says."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    """A guided model, whose candidates differ in how they end and in length."""
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    synthesizer.sampling = replace(synthesizer.sampling, guidance=2.0)
    return synthesizer


@pytest.fixture(scope="module")
def requests(synthesizer: Synthesizer, prompt_file: Path) -> list[Request]:
    texts = ["Dogs sleep.", "A red fox.", "The young dog."]
    return [synthesizer.request(text, prompt_file, PROMPT_TEXT, depth=6, seed=SEED) for text in texts]


@pytest.mark.parametrize("depth", [2, 6])
def test_the_best_of_three_candidates(synthesizer: Synthesizer, requests: list[Request], depth: int) -> None:
    at_depth = [replace(request, depth=depth) for request in requests]
    batched = speak(synthesizer, at_depth, slots=2, candidates=3)
    single = [best_of_n(synthesizer, request, 3).result for request in at_depth]
    for one, other in zip(batched, single, strict=True):
        assert (one.seed, one.stop_reason, one.depth) == (other.seed, other.stop_reason, depth)
        assert torch.equal(one.codes, other.codes)
        np.testing.assert_allclose(one.audio, other.audio, atol=1e-5)
    assert any(result.seed != SEED for result in batched)  # not always the first candidate


def test_single_takes(synthesizer: Synthesizer, requests: list[Request]) -> None:
    for result, request in zip(speak(synthesizer, requests, slots=2, candidates=1), requests, strict=True):
        assert torch.equal(result.codes, synthesizer.start(request).collect().codes)
