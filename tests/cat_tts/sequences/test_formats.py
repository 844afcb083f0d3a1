from pathlib import Path

import torch

from cat_tts import CatTTS
from cat_tts.config import tiny
from cat_tts.sequences import conversation, rows
from cat_tts.sequences.formats import example_rows, opening_rows
from cat_tts.text.tokenizers import load_text_tokenizer


def test_plain_models_read_plain_sequences(bundle: Path) -> None:
    text, codes = load_text_tokenizer(bundle / "tts"), torch.randint(0, 32, (4, 6))
    assert torch.equal(
        opening_rows(tiny(), text, "a dog", codes), rows.prompt_rows(tiny(), text, "a dog", codes)
    )
    whole = example_rows(tiny(), text, "a dog", codes)
    assert torch.equal(whole, rows.training_rows(tiny(), text, "a dog", codes))
    assert whole[-5:, 0].tolist() == [3, 3, 3, 3, 2] and torch.equal(whole[-5:-1, 1:], codes)


def test_published_models_read_conversations(published: tuple[Path, Path]) -> None:
    model, text = CatTTS.from_pretrained(published[0])
    codes, turn = torch.randint(0, 64, (4, 32)), conversation.render_user("a dog")
    opening = opening_rows(model.config, text, "a dog", codes)
    assert torch.equal(opening, conversation.continuation_rows(model.config, text, turn, codes))
    whole = example_rows(model.config, text, "a dog", codes)
    assert torch.equal(whole, conversation.training_rows(model.config, text, turn, codes))
    assert whole[len(opening) :, 0].tolist()[:2] == [611, 602]  # the end of the speech, and of the turn
