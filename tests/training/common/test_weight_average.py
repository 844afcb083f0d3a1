"""The average of sharded weights is tested with the processes that share them, in test_training_processes."""

import torch

from tests.helpers.interruption import assert_equal
from tokenizer import AudioTokenizer
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.joint_model import JointModel
from training.audio_tokenizer.recipes import tiny
from training.common.weight_average import WeightAverage, meta_copy


def made() -> JointModel:
    shape = tiny().shape
    return JointModel(AudioTokenizer(shape.model), SemanticHead(shape.semantic))


def averages(joint: JointModel) -> list[float]:
    """One weight of the tokenizer and one of the semantic head."""
    weights = joint.state_dict()
    return [
        weights[name].flatten()[0].item()
        for name in ("tokenizer.quantizer.layers.0.codebook.weight", "head.tags.weight")
    ]


def filled(joint: JointModel, value: float) -> None:
    with torch.no_grad():
        for parameter in joint.parameters():
            parameter.fill_(value)


def test_a_meta_copy_has_all_but_the_weights() -> None:
    joint = made()
    copy = meta_copy(joint)
    assert all(parameter.is_meta for parameter in copy.parameters())
    assert [(n, p.shape) for n, p in copy.named_parameters()] == [
        (n, p.shape) for n, p in joint.named_parameters()
    ]
    assert_equal(dict(copy.named_buffers()), dict(joint.named_buffers()))
    assert not any(parameter.is_meta for parameter in joint.parameters())


def test_the_first_update_copies_and_the_others_lean_towards_the_weights() -> None:
    joint = made()
    average = WeightAverage(meta_copy(joint), dict(joint.named_parameters()), 0.75)
    for value, expected in ((8.0, 8.0), (4.0, 7.0), (3.0, 6.0)):
        filled(joint, value)
        average.update()
        assert averages(average.module()) == [expected, expected]
        assert averages(joint) == [value, value]


def test_the_module_computes_with_the_averages() -> None:
    joint = made()
    average = WeightAverage(meta_copy(joint), dict(joint.named_parameters()), 0.0)
    module, audio = average.module(), 0.1 * torch.randn(2, 1920)
    arguments = (torch.tensor([1, 1]), torch.tensor([6, 6]), torch.tensor([0, 0]), [[1, 2], []])
    wanted = joint(audio, *arguments)
    decoder_inputs = module(audio, *arguments)
    assert torch.equal(decoder_inputs.audio, wanted.audio) and torch.equal(
        decoder_inputs.semantic, wanted.semantic
    )


def test_a_state_brings_back_the_average_and_its_count() -> None:
    joint = made()
    average = WeightAverage(meta_copy(joint), dict(joint.named_parameters()), 0.5)
    filled(joint, 2.0)
    average.update()
    other = made()
    resumed = WeightAverage(meta_copy(other), dict(other.named_parameters()), 0.5)
    resumed.load_state_dict(average.state_dict())
    assert averages(resumed.module()) == [2.0, 2.0]
    filled(other, 4.0)
    resumed.update()
    assert averages(resumed.module()) == [3.0, 3.0]
    assert averages(average.module()) == [2.0, 2.0]
