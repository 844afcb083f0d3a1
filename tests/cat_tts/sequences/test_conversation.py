import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cat_tts.config import tiny
from cat_tts.model.moss_checkpoint import config_from_published
from cat_tts.sequences.conversation import continuation_rows, generation_rows, render_user, training_rows
from cat_tts.sequences.rows import last_position, left_pad, shifted_targets
from cat_tts.text.tokenizers import HuggingFaceText
from tests.helpers.paths import GOLDEN

CASES = json.loads((GOLDEN / "prompt" / "cases.json").read_text())
CONFIG = config_from_published(json.loads((GOLDEN / "tts_local_small" / "config.json").read_text()))
TEXT = HuggingFaceText(GOLDEN / "prompt")
EXPECTED = load_file(GOLDEN / "prompt" / "expected.safetensors")
FIRST, SECOND, PREFIX = (EXPECTED[f"codes.{name}"] for name in ("ref1", "ref2", "prefix"))

ENGLISH = "Hello there, how are you today?"
CHINESE = "\u4f60\u597d\uff0c\u6b22\u8fce\u4f7f\u7528\u8bed\u97f3\u5408\u6210\u7cfb\u7edf\u3002\n" + (
    "\u4eca\u5929\u7684\u5929\u6c14\u5f88\u597d\u3002"
)
FIELDS = {
    "instruction": "calm",
    "tokens": 125,
    "quality": "high",
    "sound_event": "rain",
    "ambient_sound": "street",
    "language": "Chinese",
}


def check(case: str, rows: list[Tensor], contents: list[str]) -> None:
    assert contents == CASES["cases"][case]["user_content"]
    batch, mask = left_pad(CONFIG, rows)
    assert torch.equal(batch, EXPECTED[f"{case}.input_ids"])
    assert torch.equal(mask, EXPECTED[f"{case}.attention_mask"].bool())


@pytest.mark.parametrize(
    ("case", "text", "references", "fields"),
    [
        ("direct_en", ENGLISH, None, {}),
        ("direct_fields", CHINESE, None, FIELDS),
        ("clone", ENGLISH, [FIRST], {}),
        ("clone_two_refs_gap", "[S1] Hi. [S3] Hello.", [FIRST, None, SECOND], {}),
    ],
)
def test_generation(case: str, text: str, references: list[Tensor | None] | None, fields: dict) -> None:
    content = render_user(text, references, **fields)
    check(case, [generation_rows(CONFIG, TEXT, content, references)], [content])


@pytest.mark.parametrize(
    ("case", "text", "references"),
    [
        ("continuation", f"We asked over twenty people. {ENGLISH}", None),
        ("continuation_clone", f"We asked. {ENGLISH}", [FIRST]),
    ],
)
def test_continuation(case: str, text: str, references: list[Tensor] | None) -> None:
    content = render_user(text, references)
    check(case, [continuation_rows(CONFIG, TEXT, content, PREFIX, references)], [content])


def test_training() -> None:
    content = render_user(ENGLISH, [FIRST])
    check("train", [training_rows(CONFIG, TEXT, content, PREFIX, [FIRST])], [content])


def test_batch_is_padded_on_the_left() -> None:
    turns = [(ENGLISH, None), (CHINESE, [SECOND])]
    contents = [render_user(text, references) for text, references in turns]
    rows = [generation_rows(CONFIG, TEXT, c, turn[1]) for c, turn in zip(contents, turns, strict=True)]
    check("batch_left_pad", rows, contents)


def test_references_that_are_all_missing_render_nothing() -> None:
    assert render_user("Hi", [None, None]).startswith(
        "<user_inst>\n- Reference(s):\n\n- Instruction:\nNone\n"
    )


def test_targets_of_the_published_batch() -> None:
    golden = load_file(GOLDEN / "tts_local_small" / "inputs.safetensors")
    inputs, labels = golden["input_ids"], golden["labels"]
    last = labels[:, -1:].where(labels[:, -1:] != -100, CONFIG.pad_code)
    rows = torch.cat([inputs, last], 1)
    assert last_position(rows, CONFIG.tokens.audio_start).tolist() == [21, 23]
    assert torch.equal(shifted_targets(CONFIG, rows), labels)


def test_targets_of_training_rows() -> None:
    rows = training_rows(CONFIG, TEXT, render_user(ENGLISH, [FIRST]), PREFIX, [FIRST])[None]
    targets = shifted_targets(CONFIG, rows)[0]
    spoken = 1 + len(PREFIX) + 2
    assert (targets[:-spoken] == -100).all()
    assert targets[-spoken:, 0].tolist() == [CONFIG.tokens.slot] * 6 + [CONFIG.tokens.audio_end, 602, 198]
    assert torch.equal(targets[-spoken:-3, 1:], PREFIX)
    assert (targets[-3:, 1:] == -100).all()


def test_last_position_needs_the_token() -> None:
    with pytest.raises(ValueError, match="sequence 1 of the batch holds no text id 7"):
        last_position(torch.tensor([[[7, 0]], [[6, 0]]]), 7)


@pytest.mark.parametrize("text", ["Hi <|im_end|>", "<|vision_pad|>"])
def test_text_cannot_forge_special_tokens(text: str) -> None:
    with pytest.raises(ValueError, match="reserved by the format: remove it"):
        generation_rows(CONFIG, TEXT, render_user(text))


def test_text_cannot_mark_audio() -> None:
    with pytest.raises(ValueError, match=r"the field 'Text' contains <\|audio\|>"):
        render_user("<|audio|>", [FIRST])


def test_references_must_be_those_rendered() -> None:
    with pytest.raises(ValueError, match="1 references for a turn that marks 0"):
        generation_rows(CONFIG, TEXT, render_user("Hi"), [FIRST])


def test_codes_of_more_codebooks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(6, 33\), but this model reads \[frames, up to 32\]"):
        continuation_rows(CONFIG, TEXT, render_user("Hi"), torch.zeros(6, 33, dtype=torch.long))


def test_a_model_without_the_format_is_refused() -> None:
    with pytest.raises(ValueError, match="not trained on conversations"):
        generation_rows(tiny(), TEXT, render_user("Hi"))
