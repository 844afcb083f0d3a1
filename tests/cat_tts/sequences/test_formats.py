from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.config import tiny
from cat_tts.sequences import conversation
from cat_tts.sequences.formats import build_example, build_prompt
from cat_tts.sequences.rows import positions, prompt_rows, shifted_targets, speaking_rate, training_rows
from cat_tts.text.tokenizers import load_text_tokenizer


def test_plain_models_read_plain_sequences(bundle: Path) -> None:
    tokenizer, codes = load_text_tokenizer(bundle / "tts"), torch.randint(0, 32, (4, 6))
    prompt = build_prompt(tiny(), tokenizer, "a dog", codes, rate=2.5)
    rows = prompt_rows(tiny(), tokenizer, "a dog", codes)
    assert torch.equal(prompt.rows, rows)
    assert torch.equal(prompt.positions, positions(tiny(), rows, 2.5))
    example = build_example(tiny(), tokenizer, "a dog", codes, rate=2.5)
    whole = training_rows(tiny(), tokenizer, "a dog", codes)
    assert torch.equal(example.rows, whole[:-1])
    assert torch.equal(example.targets[None], shifted_targets(tiny(), whole[None]))
    assert torch.equal(example.positions, positions(tiny(), whole[:-1], 2.5))
    assert example.targets[-5:, 0].tolist() == [3, 3, 3, 3, 2]
    assert torch.equal(example.targets[-5:-1, 1:], codes)


def test_published_models_read_conversations(published: tuple[Path, Path]) -> None:
    model, tokenizer = CatTTS.from_pretrained(published[0])
    codes, turn = torch.randint(0, 64, (4, 32)), conversation.render_user("a dog")
    prompt = build_prompt(model.config, tokenizer, "a dog", codes)
    assert torch.equal(prompt.rows, conversation.continuation_rows(model.config, tokenizer, turn, codes))
    example = build_example(model.config, tokenizer, "a dog", codes)
    whole = conversation.training_rows(model.config, tokenizer, turn, codes)
    assert torch.equal(example.rows, whole[:-1])
    ends = example.targets[len(prompt.rows) - 1 :, 0].tolist()
    assert ends[:2] == [611, 602]  # the end of the speech, and of the turn
    turn = conversation.render_user("a dog", [codes])
    reference = build_prompt(model.config, tokenizer, "a dog", codes, reference=True)
    assert torch.equal(reference.rows, conversation.generation_rows(model.config, tokenizer, turn, [codes]))


@pytest.mark.parametrize("prompt_text", ["", "the red fox"])
def test_texts_are_joined_and_the_rate_is_that_of_the_prompt(bundle: Path, prompt_text: str) -> None:
    tokenizer, codes = load_text_tokenizer(bundle / "tts"), torch.randint(0, 32, (20, 6))
    prompt = build_prompt(tiny(), tokenizer, "a dog", codes, prompt_text=prompt_text)
    rows = prompt_rows(tiny(), tokenizer, f"{prompt_text} a dog".strip(), codes)
    rate = speaking_rate(tiny(), tokenizer.encode(prompt_text), 20)
    assert torch.equal(prompt.rows, rows)
    assert torch.equal(prompt.positions, positions(tiny(), rows, rate))
