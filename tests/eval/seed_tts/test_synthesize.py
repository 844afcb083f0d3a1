"""Requests answered together are answered as they are alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.seed_tts.synthesize import speak
from inference import Synthesizer
from inference.engine.request import Request
from inference.synthesis.best_of_n import best_of

WORDS = "What the recording says."


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    """Guided: drafts are also told apart by whether they say their text."""
    made = Synthesizer.from_pretrained(bundle, device="cpu")
    made.sampling = replace(made.sampling, guidance=2.0)
    return made


@pytest.fixture(scope="module")
def requests(synthesizer: Synthesizer, prompt_file: Path) -> list[Request]:
    texts = ["Dogs sleep.", "A red fox.", "The young dog."]
    return [synthesizer.request(text, prompt_file, WORDS, depth=6, seed=3) for text in texts]


@pytest.mark.parametrize("depth", [2, 6])
def test_the_best_of_three_drafts(synthesizer: Synthesizer, requests: list[Request], depth: int) -> None:
    asked = [replace(request, depth=depth) for request in requests]
    together = speak(synthesizer, asked, slots=2, drafts=3)
    alone = [best_of(synthesizer, request, 3).take for request in asked]
    for one, other in zip(together, alone, strict=True):
        assert (one.seed, one.stop_reason, one.depth) == (other.seed, other.stop_reason, depth)
        assert torch.equal(one.codes, other.codes)
        np.testing.assert_allclose(one.audio, other.audio, atol=1e-5)
    assert any(take.seed != 3 for take in together)  # not always the first draft


def test_single_takes(synthesizer: Synthesizer, requests: list[Request]) -> None:
    for take, request in zip(speak(synthesizer, requests, slots=2, drafts=1), requests, strict=True):
        assert torch.equal(take.codes, synthesizer.start(request).collect().codes)
