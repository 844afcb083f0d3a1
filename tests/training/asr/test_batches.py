from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.sequences.rows import IGNORED
from cat_tts.text.tokenizers import SentencePieceText
from training.asr.batches import NOISE_SPAN_FRAMES, Utterances, corrupt_frames, corrupt_text
from training.data.code_shards import read_codes

pytestmark = pytest.mark.usefixtures("datasets_cache")


def utterances(*frames: int, texts: list[list[int]] | None = None) -> Utterances:
    """Utterance of n frames: all codes are n, the text is n."""
    codes = [np.full((n, 3), n, dtype=np.int16) for n in frames]
    texts = texts or [[n] for n in frames]
    return Utterances(codes, texts, texts)


def test_rows_of_shards_are_read(codes: Path, bundle: Path) -> None:
    text, rows = SentencePieceText(bundle / "tts" / "text.model"), read_codes(codes)
    data = Utterances.read(rows, text, 15, spell=lambda spoken_text: list(spoken_text.encode()))
    every = [rows[i] for i in range(len(rows))]
    wanted = sorted((row for row in every if row["frames"] <= 15), key=lambda row: row["frames"])
    assert 0 < len(data) == len(wanted) < len(rows)
    for i, row in enumerate(wanted):
        assert np.array_equal(data.codes[i], row["codes"])
        assert data.texts[i] == text.encode(row["text"])
        assert data.ctc_targets[i] == list(row["text"].encode())
    with pytest.raises(ValueError, match="no utterance has at most 2 frames"):
        Utterances.read(rows, text, 2, spell=text.encode)


def test_a_batch_by_hand() -> None:
    batch = utterances(3, 1, texts=[[7, 8], []]).collate([1, 0])
    assert batch.codes[..., 0].tolist() == [[3, 3, 3], [1, 0, 0]]
    assert batch.frames.tolist() == [3, 1]
    assert batch.text.tolist() == batch.ctc_targets.tolist() == [[7, 8], [IGNORED, IGNORED]]


def test_batches_hold_everything_once() -> None:
    data = utterances(*range(1, 30))
    batches = list(data.batches(rows=64))
    assert torch.cat([batch.frames for batch in batches]).tolist() == list(range(1, 30))
    assert all(len(batch.frames) * (int(batch.frames.max()) + 3) <= 64 for batch in batches)


def test_drawn_batches_obey_rows_and_length_and_reach_all() -> None:
    data, observed, draw = utterances(*range(1, 60)), set(), torch.Generator().manual_seed(0)
    for _ in range(200):
        batch = data.batch(draw, rows=100, longest=40)
        frames = batch.frames.tolist()
        assert len(set(frames)) == len(frames)
        assert max(frames) <= 40
        assert len(frames) * (max(frames) + 3) <= 100
        observed.update(frames)
    assert observed == set(range(1, 41))
    again = data.batch(torch.Generator().manual_seed(5), 100, 40)
    assert torch.equal(again.frames, data.batch(torch.Generator().manual_seed(5), 100, 40).frames)


def test_one_utterance_may_be_longer_than_the_rows() -> None:
    batch = utterances(50, 60).batch(torch.Generator().manual_seed(0), rows=10, longest=10)
    assert batch.frames.tolist() == [50]  # the shortest, where none is short enough


def test_texts_that_are_kept_out_are_nowhere_else() -> None:
    data = utterances(*range(1, 41), texts=[[i % 5] for i in range(40)])
    rest, kept_out = data.split(2, seed=0)
    assert len(kept_out) == 2
    secret = {text[0] for text in kept_out.texts}
    assert secret.isdisjoint(text[0] for text in rest.texts)
    assert len(rest) == 8 * (5 - len(secret))
    with pytest.raises(ValueError, match="all 3 utterances say what the 1 kept out say"):
        utterances(1, 2, 3, texts=[[1]] * 3).split(1, seed=0)


def test_noise_exchanges_its_part_and_never_the_padding() -> None:
    text = torch.full((200, 50), 7)
    text[:, 40:] = IGNORED
    found = corrupt_text(text, 0.3, 1000, torch.Generator().manual_seed(0))
    assert float((found[:, :40] != 7).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert (found[:, 40:] == IGNORED).all()
    assert int(found.max()) < 1000
    assert torch.equal(corrupt_text(text, 0.0, 1000, torch.Generator().manual_seed(0)), text)


def test_frames_are_replaced_in_spans_by_other_frames() -> None:
    codes = torch.arange(400).view(4, 100, 1).expand(-1, -1, 3)
    found = corrupt_frames(codes, 0.2, torch.Generator().manual_seed(0))
    wrong = (found != codes).any(2)
    assert float(wrong.float().mean()) == pytest.approx(0.2, abs=0.05)
    assert (found == found[..., :1]).all() and found.max() < 400  # whole frames, of this batch
    runs = "".join(map(str, wrong[0].int().tolist())).split("0")
    assert any(len(run) == NOISE_SPAN_FRAMES for run in runs)
    assert torch.equal(corrupt_frames(codes, 0.0, torch.Generator().manual_seed(0)), codes)
