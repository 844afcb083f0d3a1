import re
from pathlib import Path

import pytest

from cat_tts.text.tokenizers import (
    HuggingFaceText,
    SentencePieceText,
    load_text_tokenizer,
    train_sentencepiece,
)
from tests.helpers.paths import GOLDEN

PUBLISHED = GOLDEN / "prompt"
SENTENCE = "The quick brown fox jumps over a lazy dog, while seven boxing wizards watch from the village."
SENTENCES = [" ".join(SENTENCE.split()[i::j]) for i in range(8) for j in range(1, 5)]


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceText:
    return train_sentencepiece(SENTENCES, tmp_path_factory.mktemp("text") / "text.model", vocab_size=295)


def test_sentencepiece_special_pieces(sentencepiece: SentencePieceText, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    sentencepiece.save(tmp_path)
    pieces = SentencePieceProcessor(model_file=str(tmp_path / "text.model"))
    assert [pieces.id_to_piece(i) for i in range(4)] == ["<pad>", "<audio_start>", "<audio_end>", "<slot>"]
    assert [pieces.is_control(i) for i in range(5)] == [True, True, True, True, False]
    assert pieces.unk_id() == 4 and pieces.is_unknown(4)
    assert sentencepiece.vocab_size == 295


@pytest.mark.parametrize(
    "text", ["the quick brown fox", "zebra \u4f60\u597d \U0001f600", "<audio_start><slot> <pad>"]
)
def test_sentencepiece_round_trip(sentencepiece: SentencePieceText, text: str) -> None:
    ids = sentencepiece.encode(text)
    assert sentencepiece.decode(ids) == text
    assert min(ids) > 4, "text must not become a special or unknown piece"


def test_sentencepiece_normalises(sentencepiece: SentencePieceText) -> None:
    assert sentencepiece.decode(sentencepiece.encode("  The\u00a0QUICK\n\ufb01sh ")) == "the quick fish"
    assert sentencepiece.encode("") == []


def test_sentencepiece_training_is_deterministic(tmp_path: Path) -> None:
    for name in ("a.model", "b.model"):
        train_sentencepiece(iter(SENTENCES), tmp_path / name, vocab_size=295)
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()


def test_sentencepiece_impossible_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size=5000 does not suit"):
        train_sentencepiece(SENTENCES, tmp_path / "text.model", vocab_size=5000)


def test_huggingface_recognises_special_tokens_and_adds_none() -> None:
    text = HuggingFaceText(PUBLISHED)
    assert text.vocab_size == 621
    assert text.encode("<|im_start|>\n<|im_end|>") == [601, 198, 602]
    assert text.decode(text.encode(" Hello , you\u4f60<|im_end|>\n")) == " Hello , you\u4f60<|im_end|>\n"


@pytest.mark.parametrize("kind", ["sentencepiece", "huggingface"])
def test_save_and_load(kind: str, sentencepiece: SentencePieceText, tmp_path: Path) -> None:
    text = sentencepiece if kind == "sentencepiece" else HuggingFaceText(PUBLISHED)
    text.save(tmp_path)
    loaded = load_text_tokenizer(tmp_path)
    assert type(loaded) is type(text)
    assert loaded.vocab_size == text.vocab_size
    assert loaded.encode("The quick brown fox.<|im_end|>") == text.encode("The quick brown fox.<|im_end|>")


def test_published_folder_with_its_model_config(tmp_path: Path) -> None:
    for file in ("prompt/tokenizer.json", "prompt/tokenizer_config.json", "tts_local_small/config.json"):
        (tmp_path / Path(file).name).write_bytes((PUBLISHED.parent / file).read_bytes())
    assert load_text_tokenizer(tmp_path).encode("<|im_end|>") == [602]


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(tmp_path))} holds no text tokenizer: expected text\.model"
    ):
        load_text_tokenizer(tmp_path)
