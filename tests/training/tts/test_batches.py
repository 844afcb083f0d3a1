from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from cat_tts.config import tiny
from cat_tts.sequences.rows import join_texts, prompt_rows, unconditional_rows
from training.tts.batches import DropoutConfig, TTSBatch, TTSBatchConfig, TTSBatches

CONFIG = replace(tiny(), num_codebooks=3, codebook_size=64)  # pad code 64; audio_start 1, audio_end 2, slot 3
SKIPPED = -100


class LetterTokenizer:
    """a is 10, b is 11, and so on; a space is 9."""

    vocab_size = 36

    def encode(self, text: str) -> list[int]:
        return [9 if letter == " " else ord(letter) - ord("a") + 10 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(" " if i == 9 else chr(i - 10 + ord("a")) for i in ids)

    def save(self, folder: str | Path) -> None:
        """There is nothing to save."""


def utterances(frames: Sequence[int], speakers: str) -> Dataset:
    """Utterance i has i as its first code in every frame, and a text of its own letter, twice or more."""
    rows = [
        {
            "text": chr(ord("a") + i % 26) * (2 + i % 3),
            "speaker": speakers[i],
            "language": "en",
            "frames": n,
            "codes": [[i, t, 7] for t in range(n)],
        }
        for i, n in enumerate(frames)
    ]
    return Dataset.from_list(rows)


def batches(
    codes: Dataset,
    *,
    p: float = 0.0,
    deep_part: float = 1.0,
    frame_dropout: float = 0.0,
    text_dropout: float = 0.0,
    **changes,
) -> TTSBatches:
    """Of one process, where `rank` and `world` say nothing else; changes are of BatchConfig, or the seed."""
    placed = {name: changes.pop(name) for name in ("seed", "rank", "world", "epochs") if name in changes}
    config = TTSBatchConfig(**{"rows": 60, "max_frames": 25, **changes})
    dropout = DropoutConfig(p=p, deep_part=deep_part, frame_dropout=frame_dropout, text_dropout=text_dropout)
    return TTSBatches(
        codes, CONFIG, LetterTokenizer(), config, dropout, **{"seed": 0, "steps": 1000, **placed}
    )


FRAMES = np.random.default_rng(0).integers(5, 13, 40).tolist()
MANY = utterances(FRAMES, "xyzz" * 10)


def spoken(batch: TTSBatch) -> Iterator[list[int]]:
    """The utterances of each sequence, in order of speech."""
    for rows in batch.rows:
        first = rows[rows[:, 0] == CONFIG.tokens.slot][:, 1].tolist()
        yield list(dict.fromkeys(first))


def epochs(made: TTSBatches, number: int) -> list[list[list[int]]]:
    """Sequences of the first epochs, 40 an epoch."""
    groups: list[list[int]] = []
    item = 0
    while len(groups) < 40 * number:
        groups += spoken(made[item][0])
        item += 1
    assert len(groups) == 40 * number  # a batch never spans two epochs
    return [groups[40 * i : 40 * (i + 1)] for i in range(number)]


def test_a_batch_by_hand() -> None:
    made = batches(utterances([2, 1], "xx"))
    batch = made.collate([(1, 0), (1,)])
    assert batch.rows.tolist() == [
        [
            [11, 64, 64, 64],  # bbb aa
            [11, 64, 64, 64],
            [11, 64, 64, 64],
            [9, 64, 64, 64],
            [10, 64, 64, 64],
            [10, 64, 64, 64],
            [1, 64, 64, 64],
            [3, 1, 0, 7],
            [3, 0, 0, 7],
            [3, 0, 1, 7],
        ],
        [
            [11, 64, 64, 64],
            [11, 64, 64, 64],
            [11, 64, 64, 64],
            [1, 64, 64, 64],
            [3, 1, 0, 7],
            *[[0, 0, 0, 0]] * 5,
        ],
    ]
    nothing = [SKIPPED] * 4
    assert batch.targets.tolist() == [
        [
            *[nothing] * 6,
            [3, 1, 0, 7],
            [3, 0, 0, 7],
            [3, 0, 1, 7],
            [2, SKIPPED, SKIPPED, SKIPPED],
        ],
        [*[nothing] * 3, [3, 1, 0, 7], [2, SKIPPED, SKIPPED, SKIPPED], *[nothing] * 5],
    ]


def test_a_pair_begins_as_its_prompt_does_in_inference() -> None:
    row = MANY[6]["text"], torch.tensor(MANY[6]["codes"])
    prompt = prompt_rows(CONFIG, LetterTokenizer(), join_texts(row[0], MANY[2]["text"]), row[1])
    (rows,) = batches(MANY).collate([(6, 2)]).rows
    assert torch.equal(rows[: len(prompt)], prompt)
    assert rows[len(prompt) :, 1].unique().tolist() == [2]


def test_a_batch_depends_on_seed_and_item_alone() -> None:
    forth, back = (batches(MANY, p=1.0, deep_part=0.5, frame_dropout=0.3) for _ in range(2))
    items = [forth[i] for i in range(30)]
    for i in (29, 3, 0, 17):
        torch.testing.assert_close(tuple(back[i][0]), tuple(items[i][0]), rtol=0, atol=0)
    other = batches(MANY, seed=1)
    assert [list(spoken(other[i][0])) for i in range(5)] != [list(spoken(items[i][0])) for i in range(5)]


def test_dropped_frames_are_predicted_and_not_read() -> None:
    whole, parts = batches(MANY), batches(MANY, frame_dropout=0.3)
    lost = frames = 0
    for i in range(10):
        (one,), (other,) = whole[i], parts[i]
        assert torch.equal(one.targets, other.targets) and torch.equal(one.rows[..., 0], other.rows[..., 0])
        changed = (one.rows != other.rows).any(-1)
        assert (other.rows[changed][:, 1:] == CONFIG.pad_code).all()
        lost += int(changed.sum())
        frames += int((one.rows[..., 0] == CONFIG.tokens.slot).sum())
    assert 0.25 < lost / frames < 0.35
    single = parts.collate([(3,)])  # validation reads all
    assert torch.equal(single.rows, whole.collate([(3,)]).rows)
    with pytest.raises(ValueError, match=r"frame_dropout=1\.0 of the frames"):
        DropoutConfig(frame_dropout=1.0)


def test_unconditional_sequences_have_pads_for_a_text() -> None:
    whole, parts = batches(MANY), batches(MANY, text_dropout=0.3)
    text_dropout = sequences = 0
    for i in range(20):
        (one,), (other,) = whole[i], parts[i]
        assert torch.equal(one.targets, other.targets) and torch.equal(one.rows[..., 1:], other.rows[..., 1:])
        changed = (one.rows != other.rows).flatten(1).any(1)
        assert torch.equal(other.rows[changed], unconditional_rows(CONFIG, one.rows[changed]))
        text_dropout, sequences = text_dropout + int(changed.sum()), sequences + len(changed)
    assert 0.2 < text_dropout / sequences < 0.4
    assert torch.equal(parts.collate([(3,)]).rows, whole.collate([(3,)]).rows)  # validation has the text
    with pytest.raises(ValueError, match=r"text_dropout=1\.0 of the sequences"):
        DropoutConfig(text_dropout=1.0)


@pytest.mark.parametrize("pair", [0.0, 0.5, 1.0])
def test_every_epoch_speaks_every_utterance_once(pair: float) -> None:
    first, second = epochs(batches(MANY, pair=pair), 2)
    for epoch in (first, second):
        assert sorted(group[-1] for group in epoch) == list(range(40))
    assert first != second


def test_pairs_are_of_one_speaker_and_fit() -> None:
    (epoch,) = epochs(batches(MANY, pair=1.0, max_frames=20), 1)
    pairs = [group for group in epoch if len(group) == 2]
    speakers = MANY["speaker"][:]
    assert all(speakers[prompt] == speakers[target] and prompt != target for prompt, target in pairs)
    assert all(FRAMES[prompt] + FRAMES[target] <= 20 for prompt, target in pairs)
    assert len({prompt for prompt, _ in pairs}) > len(pairs) / 3  # prompts vary
    assert 0 < len(pairs) < 40  # those whose draw did not fit stay alone


def test_utterances_of_nobody_known_stay_alone() -> None:
    codes = MANY.map(lambda row: {"speaker": row["speaker"].replace("z", "")})
    (epoch,) = epochs(batches(codes, pair=1.0), 1)
    assert {len(group) for group in epoch if codes[group[-1]]["speaker"] == ""} == {1}
    assert {len(group) for group in epoch if codes[group[-1]]["speaker"] == "x"} == {1, 2}


def test_passes_are_shared_out() -> None:
    whole = batches(MANY, passes=4, p=1.0)
    halves = [batches(MANY, passes=4, p=1.0, rank=rank, world=2) for rank in (0, 1)]
    for step in (0, 3):
        shared = [one for pair in zip(halves[0][step], halves[1][step], strict=True) for one in pair]
        for mine, theirs in zip(shared, whole[step], strict=True):
            assert torch.equal(mine.rows, theirs.rows) and torch.equal(mine.depth, theirs.depth)
    assert [len(half[0]) for half in halves] == [2, 2]
    with pytest.raises(ValueError, match="passes=4 in 3 processes: give a multiple of 3"):
        batches(MANY, passes=4, world=3)


def test_an_epoch_may_be_of_some_utterances_only() -> None:
    """As mixtures of corpora want it: some more than once, others never, and none that is too long."""
    chosen = [np.array([4, 4, 7, 2]), np.array([1, 2, 3, 4])]
    frames = [30 if i == 2 else 5 for i in range(40)]
    codes = utterances(frames, "xyzz" * 10)
    made = batches(codes, pair=0.0, epochs=lambda epoch: chosen[min(epoch, 1)])
    spoke = [group for i in range(2) for group in spoken(made[i][0])]
    assert sorted(spoke[:3]) == [[4], [4], [7]] and sorted(spoke[3:]) == [[1], [3], [4]]


def test_counts_by_hand() -> None:
    made = batches(utterances([2, 1], "xx"))
    batch = made.collate([(1, 0), (1,)])._replace(depth=torch.tensor([2, 3]))
    assert batch.depth.tolist() == [2, 3] and batch.length == 10 + 5
    assert batch.counts.tolist() == [3 * 2 + 1 * 3, 4 + 2]


def test_text_and_codes_of_a_pair_are_in_the_same_order() -> None:
    made = batches(MANY, pair=1.0)
    for (batch,) in (made[i] for i in range(20)):
        for rows, group in zip(batch.rows, spoken(batch), strict=True):
            start = rows[:, 0].tolist().index(CONFIG.tokens.audio_start)
            assert LetterTokenizer().decode(rows[:start, 0].tolist()) == " ".join(
                MANY[i]["text"] for i in group
            )
            assert int((rows[:, 0] == CONFIG.tokens.slot).sum()) == sum(FRAMES[i] for i in group)


def test_about_the_wanted_part_is_pairs() -> None:
    groups = [group for epoch in epochs(batches(MANY, pair=0.5), 20) for group in epoch]
    # of the 10, 10 and 20 utterances of a speaker, one in ten or twenty draws itself and stays alone
    assert sum(len(group) == 2 for group in groups) / 800 == pytest.approx(0.5 * 0.925, abs=0.05)
    (single,) = epochs(batches(MANY, pair=0.0), 1)
    assert all(len(group) == 1 for group in single)


def test_batches_keep_to_their_budget_and_use_it() -> None:
    made = batches(MANY, rows=120)
    sizes = [made[i][0].rows.shape[:2].numel() for i in range(40)]
    assert max(sizes) <= 120
    assert sum(sizes) / len(sizes) > 0.7 * 120
    filled = sum(int((made[i][0].rows[..., 0] != 0).sum()) for i in range(40))
    assert filled > 0.75 * sum(sizes)  # sequences of like length share a batch


def test_a_sequence_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    made = batches(utterances([10, 10, 10], "xyz"), rows=5)
    assert sorted(group for i in range(3) for group in spoken(made[i][0])) == [[0], [1], [2]]


def test_long_utterances_are_left_out() -> None:
    made = batches(utterances([5, 30, 6, 31], "xxxx"), max_frames=29, pair=1.0)
    assert {i for item in range(20) for group in spoken(made[item][0]) for i in group} == {0, 2}
    with pytest.raises(ValueError, match="no utterance has at most 4 frames"):
        batches(utterances([5, 30], "xx"), max_frames=4)
