"""Semantic and CTC heads that predict text: CTC states, replaced inputs, Muon."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.training.audio_tokenizer.heads.test_semantic import FRAMES, batch, head
from tests.training.audio_tokenizer.test_batches import segments, spoken
from tests.training.test_train_tokenizer import metrics, options
from tokenizer import AudioTokenizer
from training.audio_tokenizer.heads.ctc import CTCHead
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.joint_model import JointModel
from training.audio_tokenizer.recipes import TokenizerTraining, tiny
from training.common.optimizers import matrices
from training.train_tokenizer import train

WITH_CTC = replace(tiny().shape.semantic, ctc_layer=1)


def filter_bank_encoder(run: Path, data: Path, **changes) -> TokenizerTraining:
    """Heads alone, on whole utterances."""
    shape = replace(tiny().shape, semantic=WITH_CTC)
    batches = {"batch_seconds": 4.0, "utterances": 1.0, "text_noise": 0.3}
    optimizer = {"muon": True, "learning_rate": 1e-2}
    weights = {"semantic": 1.0, "ctc": 1.0}
    made = options(run, data, adversarial_from=None, batches=batches, optimizer=optimizer, weights=weights)
    return replace(made, shape=shape, trainable="heads", **changes)


def test_replaced_inputs_have_the_right_targets() -> None:
    model, (latents, _, _, _) = head(), batch()
    one = latents[:1, :3], torch.tensor([3]), torch.tensor([2])
    words = model.llm.embed_tokens.weight
    x = torch.cat([model.tags.weight[2:3], model.project(latents[0, :3]), words[[9, 6]]])
    log = (model.llm(inputs_embeds=x[None]).last_hidden_state[0] @ words.T).log_softmax(-1)
    loss = model(*one, [[5, 6]], [[9, 6]])
    torch.testing.assert_close(loss.total, -(log[3, 5] + log[4, 6] + log[5, 256]))
    assert torch.equal(model(*one, [[5, 6]], [[5, 6]]).total, model(*one, [[5, 6]]).total)


def test_frame_states_are_the_states_of_each_frame_after_some_layers() -> None:
    model, (latents, frames, tasks, texts) = head(WITH_CTC), batch()
    frame_states = model(latents, frames, tasks, texts).frame_states
    assert frame_states is not None and frame_states.shape == (4, 9, WITH_CTC.dim)
    assert not frame_states[1].any(), "an item without text is not read"
    for i in (0, 2, 3):
        x = model.prefix(latents[i : i + 1, : FRAMES[i]], tasks[i : i + 1])
        states = model.llm(inputs_embeds=x, output_hidden_states=True).hidden_states
        torch.testing.assert_close(frame_states[i, : FRAMES[i]], states[1][0, 1:], atol=1e-4, rtol=1e-4)
    assert head()(latents, frames, tasks, texts).frame_states is None


def test_ctc_teaches_the_layers_below_it_and_the_codes() -> None:
    shape = tiny().shape
    joint = JointModel(
        AudioTokenizer(shape.model), SemanticHead(WITH_CTC), None, CTCHead(WITH_CTC.dim), without_decoder=True
    )
    assert joint.head is not None
    with torch.no_grad():
        for parameter in joint.head.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.25)
    joint.train()
    audio = 0.1 * torch.randn(1, 9 * shape.model.frame_size)
    ready = torch.tensor([9]), torch.tensor([6]), torch.tensor([0])
    ctc_targets = joint(audio, *ready, [list(b"abc")]).ctc
    assert ctc_targets is not None
    ctc_targets.backward()
    reached = {n for n, p in joint.head.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("layers.0." in name for name in reached) and "project.weight" in reached
    assert not any("layers.1." in name for name in reached)
    quantizer = dict(joint.tokenizer.quantizer.named_parameters())
    project = quantizer["project_in.parametrizations.weight.original1"].grad
    assert project is not None and project.any()


def test_a_part_of_the_text_is_replaced_and_no_target_is(tmp_path: Path) -> None:
    clips = [replace(one, text="abcdefghij" * 5) for one in spoken(tmp_path, [0.5] * 4)]
    noisy = segments(clips, batch_seconds=2.0, utterances=1.0, text_noise=0.3)
    wrong = total = 0
    for step in range(20):
        read = noisy[step]
        assert read.texts == segments(clips, batch_seconds=2.0, utterances=1.0)[step].texts
        assert read.decoder_inputs == noisy[step].decoder_inputs
        for text, decoder_inputs in zip(read.texts, read.decoder_inputs, strict=True):
            wrong += sum(one != other for one, other in zip(text, decoder_inputs, strict=True))
            total += len(text)
    assert 0.23 < wrong / total < 0.31  # a tenth of what is drawn is the same byte
    plain = segments(clips, batch_seconds=2.0, utterances=1.0)[0]
    assert plain.decoder_inputs == plain.texts


def test_heads_learn_and_the_tokenizer_stays(corpus: Path, codec: Path, tmp_path: Path) -> None:
    before = AudioTokenizer.from_pretrained(codec).state_dict()
    after = train(filter_bank_encoder(tmp_path, corpus, init=codec, steps=12))
    assert_equal(dict(before), dict(after.state_dict()))
    lines = metrics(tmp_path)
    for name in ("train/loss/semantic", "train/loss/ctc"):
        read = [line[name] for line in lines]
        assert len(read) == 12 and read[-1] < 0.8 * read[0], name
    assert "train/loss/mel" not in lines[-1]
    assert SemanticHead.from_pretrained(tmp_path / "model" / "semantic").config == WITH_CTC


def test_a_resumed_run_is_the_uninterrupted_one(corpus: Path, codec: Path, tmp_path: Path) -> None:
    train(filter_bank_encoder(tmp_path / "whole", corpus, init=codec, steps=4))
    with terminated_at(2):
        train(filter_bank_encoder(tmp_path / "parts", corpus, init=codec, steps=4))
    train(filter_bank_encoder(tmp_path / "parts", corpus, init=codec, steps=4))
    assert_equal(saved_state(tmp_path / "whole"), saved_state(tmp_path / "parts"))
    with pytest.raises(ValueError, match="muon is true, not false"):
        again = filter_bank_encoder(tmp_path / "parts", corpus, init=codec, steps=5)
        train(replace(again, optimizer=replace(again.optimizer, muon=False)))


def test_muon_has_the_matrices_of_layers_and_no_codebook() -> None:
    shape = tiny().shape
    joint = nn.ModuleDict({"joint": JointModel(AudioTokenizer(shape.model), SemanticHead(shape.semantic))})
    muon_params = {id(weight) for weight in matrices(joint)}
    names = {
        name.removeprefix("joint.") for name, weight in joint.named_parameters() if id(weight) in muon_params
    }
    assert "tokenizer.encoder.0.layers.0.qkv.weight" in names
    assert "head.llm.layers.1.mlp.down_proj.weight" in names
    assert all("quantizer" not in name and "embed" not in name and "norm" not in name for name in names)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"trainable": "heads"}, "trainable=heads makes no audio, and reads"),
        (
            {
                "trainable": "heads",
                "adversarial_from": None,
                "weights": replace(tiny().weights, semantic=0.0),
            },
            "give adversarial_from=None, and weights.semantic or weights.ctc",
        ),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(tiny(), **changes)


def test_layers_and_parts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="ctc_layer=3: choose 1 to 2, or None"):
        replace(WITH_CTC, ctc_layer=3)
    with pytest.raises(ValueError, match=r"text_noise=1\.0: give a part of the text, 0 to below 1"):
        replace(tiny().batches, text_noise=1.0)
