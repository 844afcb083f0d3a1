"""Voice vectors in the TTS model: what they add, to what, and that models without them are as before."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cat_tts import CatTTS, config
from cat_tts.config import mini, paper, small, tiny
from cat_tts.model.speaker_projection import SpeakerProjection
from cat_tts.sequences.rows import shifted_targets
from tests.helpers.paths import ROOT
from tokenizer.io.checkpoint import CONFIG, read_config, read_weights

EMBEDDED = ROOT / "cat_tts" / "pretrained" / "mini" / "tts"


def models(std: float = 0.0) -> tuple[CatTTS, CatTTS]:
    """The same model without a projection and with one."""
    plain = CatTTS(tiny()).eval()
    conditioned = CatTTS(replace(tiny(), speaker_dim=8)).eval()
    conditioned.load_state_dict(plain.state_dict(), strict=False)
    assert conditioned.speaker_projection is not None
    conditioned.speaker_projection.weight.detach().normal_(std=std)
    return plain, conditioned


def example() -> tuple[Tensor, None, Tensor, Tensor]:
    """Arguments of `CatTTS.forward`: two sequences at different depths."""
    rows = torch.cat([torch.full((2, 8, 1), 3), torch.randint(32, (2, 8, 6))], -1)
    rows[:, :3, 0], rows[:, :3, 1:] = torch.randint(10, 300, (2, 3)), 32
    rows[:, 2, 0] = 1
    return rows, None, shifted_targets(tiny(), torch.cat([rows, rows[:, -1:]], 1)), torch.tensor([2, 6])


def test_projection_by_hand() -> None:
    projection = SpeakerProjection(4, 3)
    assert projection.weight.shape == (3, 4) and not projection.weight.any()
    projection.weight.detach().copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [2, 0, 0, 5]]))
    found = projection(torch.tensor([[0.6, 0.8, 0, 0], [0, 0, 0, 0]]))
    torch.testing.assert_close(found, torch.tensor([[1.2, 1.6, 2.4], [0, 0, 0]]))  # times sqrt(4)
    with pytest.raises(ValueError, match=r"voice vectors of 5 numbers, .* speaker_dim=4"):
        projection(torch.zeros(1, 5))


def test_a_new_projection_changes_nothing() -> None:
    (plain, conditioned), arguments = models(), example()
    wanted, found = plain(*arguments), conditioned(*arguments, speaker=torch.randn(2, 8))
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    torch.manual_seed(5)
    first = CatTTS(tiny()).state_dict()
    torch.manual_seed(5)
    second = CatTTS(replace(tiny(), speaker_dim=8)).state_dict()
    assert set(second) - set(first) == {"speaker_projection.weight"}
    assert all(torch.equal(second[name], weight) for name, weight in first.items())


def test_no_vector_and_zeros_are_the_unconditional_model() -> None:
    (plain, conditioned), arguments = models(std=0.5), example()
    wanted = plain(*arguments)
    for speaker in (None, torch.zeros(2, 8)):
        found = conditioned(*arguments, speaker=speaker)
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_the_offset_is_added_to_all_rows_alike() -> None:
    (plain, conditioned), (rows, *_) = models(std=0.5), example()
    speaker = torch.randn(2, 8)
    added = conditioned.embed(rows, 6, speaker) - plain.embed(rows, 6)
    wanted = conditioned.speaker_offset(speaker)
    torch.testing.assert_close(added, wanted[:, None].expand_as(added))
    assert (wanted[0] - wanted[1]).abs().max() > 0.1


def test_the_loss_reads_each_sequence_with_its_own_voice() -> None:
    _, conditioned = models(std=0.5)
    rows, mask, targets, depth = example()
    speaker = torch.randn(2, 8)
    batched = conditioned(rows, mask, targets, depth, speaker=speaker)
    single = [
        conditioned(rows[i, None], mask, targets[i, None], depth[i, None], speaker=speaker[i, None])
        for i in range(2)
    ]
    torch.testing.assert_close(batched.code_sums, single[0].code_sums + single[1].code_sums)
    swapped = conditioned(rows, mask, targets, depth, speaker=speaker.flip(0))
    assert (swapped.code_sums - batched.code_sums).abs().max() > 1e-3


def test_gradients_reach_the_projection() -> None:
    _, conditioned = models()
    loss = conditioned(*example(), speaker=torch.tensor([[1.0] + [0.0] * 7, [0.0] * 8]))
    loss.codes.backward()
    assert conditioned.speaker_projection is not None
    gradient = conditioned.speaker_projection.weight.grad
    assert gradient is not None and gradient[:, 0].abs().min() > 0
    assert not gradient[:, 1:].any(), "of what no vector holds"


def test_models_without_voice_vectors_have_no_such_weight() -> None:
    for preset in (paper(), small(), mini(), tiny()):
        assert preset.speaker_dim is None
    assert read_config(config.TTSConfig, EMBEDDED / CONFIG).speaker_dim is None
    assert not any("speaker" in name for name in read_weights(EMBEDDED))
    assert not any("speaker" in name for name in CatTTS(tiny()).state_dict())
    with pytest.raises(ValueError, match="this model reads no voice vectors"):
        CatTTS(tiny())(*example(), speaker=torch.zeros(2, 8))


def test_saved_and_loaded(bundle: Path, tmp_path: Path) -> None:
    model, text_tokenizer = CatTTS.from_pretrained(bundle / "tts")
    model.add_speaker_projection(8)
    assert model.speaker_projection is not None
    model.speaker_projection.weight.detach().normal_()
    model.save_pretrained(tmp_path, text_tokenizer)
    again, _ = CatTTS.from_pretrained(tmp_path)
    assert again.config == model.config and again.config.speaker_dim == 8
    assert again.speaker_projection is not None
    assert torch.equal(again.speaker_projection.weight, model.speaker_projection.weight)
