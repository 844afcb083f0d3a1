from pathlib import Path

import pytest

from cat_tts.text.phonemes import STRESS, PhonemeText, collect_phonemes, phonemes, phonemes_without_stress
from cat_tts.text.special_tokens import SPECIAL_IDS, UNKNOWN_ID
from cat_tts.text.tokenizers import load_text_tokenizer

SENTENCES = ["The quick brown fox jumps over a lazy dog.", "Yes, she sells sea shells!"]


@pytest.fixture(scope="module")
def text() -> PhonemeText:
    return collect_phonemes(SENTENCES)


def test_phonemes_by_hand() -> None:
    """A stress belongs to its vowel, words are not kept apart, punctuation is kept."""
    assert phonemes("Hello there.") == ["h", "ə", "l", f"{STRESS[0]}O", "ð", f"{STRESS[0]}ɛ", "ɹ", "."]
    assert phonemes("Yes! No?") == ["j", f"{STRESS[0]}ɛ", "s", "!", "n", f"{STRESS[0]}O", "?"]


def test_phonemes_without_stress_have_no_stress_and_no_punctuation() -> None:
    assert phonemes_without_stress("Hello there.") == ["h", "ə", "l", "O", "ð", "ɛ", "ɹ"]


def test_spelling_does_not_matter_but_sound_does() -> None:
    assert phonemes("Two knights") == phonemes("too nights")
    assert phonemes("I read it yesterday.") != phonemes("I will read it.")


def test_a_text_is_its_sentences(text: PhonemeText) -> None:
    """What stands before does not change how a sentence is read: prompt and target are joined."""
    assert text.encode(" ".join(SENTENCES)) == text.encode(SENTENCES[0]) + text.encode(SENTENCES[1])


def test_ids_are_after_the_special_ones(text: PhonemeText) -> None:
    ids = text.encode(SENTENCES[0])
    assert min(ids) >= SPECIAL_IDS and max(ids) < text.vocab_size == SPECIAL_IDS + len(text.symbols)
    assert text.decode(ids) == "".join(phonemes(SENTENCES[0]))
    assert text.decode([0, 1, 2, 3, *ids]) == text.decode(ids)
    assert text.encode("") == []


def test_what_the_model_has_not_met(text: PhonemeText) -> None:
    """An unmet stress is left out; an unmet sound is the unknown id."""
    few = PhonemeText(["ɛ", "s"])
    assert few.encode("Yes") == [UNKNOWN_ID, SPECIAL_IDS, SPECIAL_IDS + 1]


@pytest.mark.parametrize("foreign_text", ["\u4f60\u597d", "Hello \u4f60\u597d \u4f60."])
def test_what_is_no_english(text: PhonemeText, foreign_text: str) -> None:
    """Not even a part of a text is left out in silence."""
    with pytest.raises(ValueError, match="reads English in Latin letters, and cannot read '\u4f60\u597d'"):
        text.encode(foreign_text)


def test_letters_with_marks_are_read(text: PhonemeText) -> None:
    assert phonemes("caf\u00e9") and text.encode("na\u00efve caf\u00e9")


def test_save_and_load(text: PhonemeText, tmp_path: Path) -> None:
    text.save(tmp_path)
    loaded = load_text_tokenizer(tmp_path)
    assert isinstance(loaded, PhonemeText)
    assert loaded.encode(SENTENCES[0]) == text.encode(SENTENCES[0])


@pytest.mark.parametrize("content", ["[]", "{}", '{"symbols": ["a"], "more": 1}', "no JSON"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "phonemes.json").write_text(content)
    with pytest.raises(ValueError, match=r"phonemes\.json: "):
        load_text_tokenizer(tmp_path)


def test_the_same_sentences_give_the_same_ids(text: PhonemeText) -> None:
    assert collect_phonemes(reversed(SENTENCES)).symbols == text.symbols
