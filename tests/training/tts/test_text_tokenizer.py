from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.config import SpecialTokens, tiny
from cat_tts.text.phonemes import PHONEMES_FILE, PhonemeText, phonemes
from cat_tts.text.special_tokens import SPECIAL_IDS
from cat_tts.text.tokenizers import SENTENCEPIECE_FILE, SentencePieceText, load_text_tokenizer
from training.data.code_shards import read_codes, read_info
from training.train_tts import train
from training.tts.recipes import TTSTraining
from training.tts.recipes import tiny as recipe
from training.tts.setup import starting_model
from training.tts.text_tokenizer import build_text_tokenizer, replace_text_tokenizer, token_durations


def options(codes: Path, **changes: object) -> TTSTraining:
    return replace(recipe(), codes=codes, **changes)


def test_a_run_reads_phonemes_and_continues_to_read_them(codes: Path, tmp_path: Path) -> None:
    made = options(codes, run=tmp_path / "run", steps=2, text="phonemes", save_every=1)
    train(made)
    model, text = CatTTS.from_pretrained(tmp_path / "run" / "model")
    assert isinstance(text, PhonemeText)
    assert set(text.symbols) == {
        one for spoken_text in read_codes(codes)["text"][:] for one in phonemes(spoken_text)
    }
    assert model.config.text_vocab_size == text.vocab_size == len(model.config.token_durations or ())
    train(replace(made, steps=4))
    assert (tmp_path / "run" / PHONEMES_FILE).read_bytes() == (
        tmp_path / "run" / "model" / PHONEMES_FILE
    ).read_bytes()
    assert not (tmp_path / "run" / SENTENCEPIECE_FILE).exists()


def test_a_model_that_is_trained_on_keeps_what_it_reads(codes: Path, bundle: Path, tmp_path: Path) -> None:
    """Whatever a preset would have new models read."""
    made = options(codes, run=tmp_path, init=str(bundle / "tts"), text="phonemes")
    model, text = starting_model(made, read_codes(codes), read_info(codes))
    assert isinstance(text, SentencePieceText)
    assert model.config == CatTTS.from_pretrained(bundle / "tts")[0].config


def test_a_model_is_taught_phonemes(codes: Path, bundle: Path, tmp_path: Path) -> None:
    """All weights but those of the text are its own, and the special tokens keep theirs."""
    made = options(codes, run=tmp_path, init=str(bundle / "tts"), text="phonemes", new_text=True, steps=1)
    model, text = starting_model(made, read_codes(codes), read_info(codes))
    before = CatTTS.from_pretrained(bundle / "tts")[0].state_dict()
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert changed == {"text_embedding.weight"}
    table = after["text_embedding.weight"]
    assert len(table) == text.vocab_size
    assert torch.equal(table[:SPECIAL_IDS], before["text_embedding.weight"][:SPECIAL_IDS].float())
    train(made)
    assert isinstance(load_text_tokenizer(tmp_path), PhonemeText)
    assert isinstance(load_text_tokenizer(tmp_path / "model"), PhonemeText)


def test_new_text_is_for_models_that_exist(codes: Path) -> None:
    with pytest.raises(ValueError, match="new_text teaches a trained model another text"):
        options(codes, new_text=True)


def test_text_frames_follow_the_lengths_of_the_codes(codes: Path, tmp_path: Path) -> None:
    shards = read_codes(codes)
    text = build_text_tokenizer(tmp_path, "phonemes", shards, 0)
    frames = token_durations(tiny(), text, shards)
    assert frames is not None and len(frames) == text.vocab_size
    expected = sum(frames[i] for spoken_text in shards["text"][:] for i in text.encode(spoken_text))
    assert expected == pytest.approx(sum(shards["frames"][:]), rel=0.2)
    assert token_durations(replace(tiny(), time_aligned_positions=False), text, shards) is None


@pytest.mark.parametrize(
    "changes",
    [{"full_text_head": True}, {"tokens": SpecialTokens(pad=9, audio_start=10, audio_end=11, slot=12)}],
)
def test_a_model_that_begins_with_qwen3_keeps_its_text(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="new_text: this model begins with Qwen3"):
        replace_text_tokenizer(CatTTS(replace(tiny(), **changes)), PhonemeText(["a"]), None)
