from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts.config import ChatTokens, tiny
from cat_tts.sequences.rows import (
    frame_rows,
    join_texts,
    last_position,
    left_pad,
    positions,
    prompt_rows,
    shifted_targets,
    speaking_rate,
    training_rows,
    unconditional_rows,
)
from cat_tts.text.tokenizers import HuggingFaceText
from tests.helpers.paths import GOLDEN

CONFIG = replace(tiny(), num_codebooks=3)  # pad code 32; audio_start 1, audio_end 2, slot 3
TEXT = HuggingFaceText(GOLDEN / "prompt")
CODES = torch.tensor([[5, 6, 7], [8, 9, 10]])


class Letters:
    """a is 10, b is 11, and so on."""

    vocab_size = 36

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") + 10 for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i - 10 + ord("a")) for i in ids)

    def save(self, folder: str | Path) -> None:
        """There is nothing to save."""


def test_prompt_by_hand() -> None:
    assert prompt_rows(CONFIG, Letters(), "ca", CODES).tolist() == [
        [12, 32, 32, 32],
        [10, 32, 32, 32],
        [1, 32, 32, 32],
        [3, 5, 6, 7],
        [3, 8, 9, 10],
    ]


def test_prompt_without_codes_ends_where_speech_starts() -> None:
    assert prompt_rows(CONFIG, Letters(), "b").tolist() == [[11, 32, 32, 32], [1, 32, 32, 32]]


def test_training_by_hand() -> None:
    assert training_rows(CONFIG, Letters(), "b", CODES).tolist() == [
        [11, 32, 32, 32],
        [1, 32, 32, 32],
        [3, 5, 6, 7],
        [3, 8, 9, 10],
        [2, 32, 32, 32],
    ]


def test_unconditional_rows_keep_all_but_the_text() -> None:
    rows = training_rows(CONFIG, Letters(), "b", CODES)
    assert unconditional_rows(CONFIG, rows).tolist() == [
        [0, 32, 32, 32],
        [1, 32, 32, 32],
        [3, 5, 6, 7],
        [3, 8, 9, 10],
        [2, 32, 32, 32],
    ]
    assert rows[0, 0] == 11, "the input has changed"
    with pytest.raises(ValueError, match="conversation"):
        unconditional_rows(replace(CONFIG, chat=ChatTokens(im_start=4, im_end=5, user_slot=6)), rows)


def test_codes_of_few_codebooks_are_completed_with_pads() -> None:
    assert frame_rows(CONFIG, CODES[:, :2], slot=4).tolist() == [[4, 5, 6, 32], [4, 8, 9, 32]]
    assert prompt_rows(CONFIG, Letters(), "", CODES[:1, :1]).tolist() == [[1, 32, 32, 32], [3, 5, 32, 32]]


@pytest.mark.parametrize("shape", [(2, 4), (1, 2, 3)])
@pytest.mark.usefixtures("unchecked_shapes")
def test_codes_of_a_shape_that_cannot_be(shape: tuple[int, ...]) -> None:
    message = rf"codes of shape \({', '.join(map(str, shape))}\), but this model reads \[frames, up to 3\]"
    with pytest.raises(ValueError, match=message):
        frame_rows(CONFIG, torch.zeros(shape, dtype=torch.long), slot=3)


def test_targets_by_hand() -> None:
    """Row t predicts row t + 1 from the audio start on; text is not learnt, and pads are no codes."""
    rows = training_rows(CONFIG, Letters(), "ab", CODES)
    assert shifted_targets(CONFIG, rows[None]).tolist() == [
        [
            [-100, -100, -100, -100],  # a
            [-100, -100, -100, -100],  # b
            [3, 5, 6, 7],  # audio start: the first frame
            [3, 8, 9, 10],
            [2, -100, -100, -100],  # the last frame: the end
        ]
    ]


def test_left_padding_by_hand() -> None:
    rows, mask = left_pad(
        CONFIG, [torch.tensor([[10, 32, 32, 32], [1, 32, 32, 32]]), torch.tensor([[1, 5, 6, 7]])]
    )
    assert rows.tolist() == [[[10, 32, 32, 32], [1, 32, 32, 32]], [[0, 32, 32, 32], [1, 5, 6, 7]]]
    assert mask.tolist() == [[True, True], [False, True]]


def test_last_position_by_hand() -> None:
    rows = torch.tensor([[1, 5, 1, 6], [5, 1, 5, 5]])[..., None]
    assert last_position(rows, 1).tolist() == [2, 1]
    with pytest.raises(ValueError, match="sequence 1 of the batch holds no text id 6"):
        last_position(rows, 6)


@pytest.mark.parametrize(
    ("prompt", "text", "joined"),
    [
        ("One two.", "Three.", "One two. Three."),
        (" One two.\n", "  Three. ", "One two. Three."),
        ("", "Three.", "Three."),
        ("\u4f60\u597d\u3002", "\u5929\u6c14", "\u4f60\u597d\u3002\u5929\u6c14"),
    ],
)
def test_texts_are_joined_as_their_script_is_written(prompt: str, text: str, joined: str) -> None:
    assert join_texts(prompt, text) == joined


def test_positions_by_hand() -> None:
    """Two letters at 2.5 frames each, audio start, two frames."""
    rows = prompt_rows(CONFIG, Letters(), "ab", CODES)
    assert positions(CONFIG, rows, 2.5).tolist() == [0.0, 2.5, 0.0, 1.0, 2.0]
    counted = replace(CONFIG, time_aligned_positions=False)
    assert positions(counted, rows, 2.5).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_positions_where_tokens_take_their_time() -> None:
    """ "a" usually takes 1.5 frames, "b" 0.25, and they are spoken twice as slowly."""
    usual = [0.0] * CONFIG.text_vocab_size
    a, b = Letters().encode("ab")
    usual[a], usual[b] = 1.5, 0.25
    timed = replace(CONFIG, token_durations=tuple(usual))
    rows = prompt_rows(timed, Letters(), "aba", CODES)
    assert positions(timed, rows, 2.0).tolist() == [0.0, 3.0, 3.5, 0.0, 1.0, 2.0]
    assert speaking_rate(timed, [a, b, a], 4) == pytest.approx(4 / 3.25)
    assert speaking_rate(timed, [a, b, a], 400) == 3.0
    assert speaking_rate(timed, [a, b, a], 0) == pytest.approx(1 / 3)


def test_every_text_id_has_its_frames() -> None:
    with pytest.raises(ValueError, match=r"token_durations of 2 ids, but text_vocab_size=\d+"):
        replace(CONFIG, token_durations=(1.0, 2.0))


@pytest.mark.parametrize(
    ("frames", "tokens", "rate"), [(30, 10, 3.0), (5, 10, 1.0), (500, 10, 12.0), (7, 0, 7.0)]
)
def test_pace_is_that_of_speech(frames: int, tokens: int, rate: float) -> None:
    assert speaking_rate(CONFIG, [5] * tokens, frames) == rate


@pytest.mark.parametrize("prompt_frames", [0, 4, 11])
def test_inference_reads_what_training_read(prompt_frames: int) -> None:
    """Cut a recording in two, clone its first part: the ids are those of training on the whole."""
    config = replace(CONFIG, text_vocab_size=TEXT.vocab_size)
    codes = torch.randint(32, (11, 3))
    first, second = "She had your dark suit,", "and greasy wash water all year."
    trained = training_rows(config, TEXT, f"{first} {second}", codes)
    prompt_ids = prompt_rows(config, TEXT, join_texts(f"{first} ", second), codes[:prompt_frames])
    assert torch.equal(prompt_ids, trained[: len(prompt_ids)])
    assert len(trained) - len(prompt_ids) == 11 - prompt_frames + 1  # the frames to speak, and the end
    assert len(prompt_ids) - prompt_frames > 10 and prompt_ids.dtype == torch.int64
