import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from tests.helpers.encoder_run import options
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tokenizer import AudioTokenizer
from training.audio_tokenizer.heads.ctc import BLANK, BYTES_PER_FRAME, CTCHead
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.joint_model import JointModel
from training.audio_tokenizer.recipes import TokenizerTraining, tiny
from training.train_tokenizer import train

A, B = 97, 98


@pytest.fixture(scope="module")
def head() -> CTCHead:
    torch.manual_seed(0)
    return CTCHead(24)


def test_the_loss_is_that_of_all_paths_that_spell_the_text(head: CTCHead) -> None:
    latents = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(1))
    scores = head.scores(latents)[0]
    assert scores.shape == (BYTES_PER_FRAME, 257)
    spelling = []
    for path in product((A, B, BLANK), repeat=BYTES_PER_FRAME):
        once = [one for i, one in enumerate(path) if i == 0 or one != path[i - 1]]
        if [one for one in once if one != BLANK] == [A, B]:
            spelling.append(sum(scores[step, one] for step, one in enumerate(path)))
    found = head(latents, torch.tensor([1]), [[A, B]])
    torch.testing.assert_close(found.total, -torch.stack(spelling).logsumexp(0))
    assert len(spelling) == 5 and found.tokens == 2


def test_a_batch_is_the_sum_of_its_items_and_padding_does_not_count(head: CTCHead) -> None:
    draw = torch.Generator().manual_seed(2)
    one, two = (torch.randn(1, length, 24, generator=draw) for length in (9, 5))
    single = [head(x, torch.tensor([x.shape[1]]), [[A, B, A]]).total for x in (one, two)]
    quiet = torch.cat([one, torch.cat([two, torch.zeros(1, 4, 24)], 1)])
    batched = head(quiet, torch.tensor([9, 5]), [[A, B, A], [A, B, A]])
    torch.testing.assert_close(batched.total, single[0] + single[1])
    assert batched.tokens == 6


def test_what_cannot_be_read_costs_nothing_and_has_gradients(head: CTCHead) -> None:
    latents = torch.randn(2, 1, 24, requires_grad=True)
    for texts in ([[], []], [[A] * BYTES_PER_FRAME, []]):  # a letter that repeats needs a blank between
        found = head(latents, torch.tensor([1, 1]), texts)
        (gradient,) = torch.autograd.grad(found.total, latents)
        assert found.total == 0 and found.tokens == 0 and not gradient.any()


def reading(run: Path, data: Path, **changes) -> TokenizerTraining:
    return options(
        run,
        data,
        weights=replace(tiny().weights, semantic=0.0, spectral=1.0, ctc=1.0),
        batches=replace(tiny().batches, batch_seconds=4.0, utterances=1.0),
        monitor=replace(tiny().monitor, validation=data, validation_clips=4),
        **changes,
    )


def test_codes_learn_to_be_read_and_are_validated_with_other_texts_too(corpus: Path, tmp_path: Path) -> None:
    train(reading(tmp_path, corpus, steps=30, save_every=30))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    read = [line["train/loss/ctc"] for line in lines if "train/loss/ctc" in line]
    assert len(read) == 30 and read[-1] < 0.5 * read[0]
    end = lines[-1]
    assert end["validation/loss/ctc"] > 0 and end["validation/loss/ctc_mismatched"] > 0


def test_a_resumed_run_is_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    train(reading(tmp_path / "whole", corpus, steps=4))
    with terminated_at(2):
        train(reading(tmp_path / "parts", corpus, steps=4))
    train(reading(tmp_path / "parts", corpus, steps=4))
    assert_equal(saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts"))


def test_bytes_and_other_tokens_do_not_mix() -> None:
    shape = tiny().shape
    other = SemanticHead(replace(shape.semantic, text="huggingface"))
    with pytest.raises(ValueError, match="reads bytes, and the semantic head other tokens"):
        JointModel(AudioTokenizer(shape.model), other, None, CTCHead(shape.model.code_dim))
