from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cat_tts import CatTTS, SamplingOptions
from cat_tts import config as tts_presets
from cat_tts.asr import config as asr_config
from cat_tts.asr.model import CatASR
from cat_tts.text.tokenizers import SentencePieceText
from inference import Synthesizer
from tokenizer import AudioTokenizer, discriminators
from tokenizer import config as presets
from tokenizer.discriminators import Discriminators
from training.bundle import Bundle, main
from training.bundle import bundle as write


def test_halves_are_stored_and_speak(bundle: Path, tmp_path: Path) -> None:
    main(
        [
            str(tmp_path),
            "--tokenizer",
            str(bundle / "tokenizer"),
            "--tts",
            str(bundle / "tts"),
            "--top-k",
            "7",
        ]
    )
    for part in ("tokenizer", "tts"):
        stored = load_file(tmp_path / part / "model.safetensors")
        whole = load_file(bundle / part / "model.safetensors")
        assert all(stored[name].dtype == torch.float16 for name in stored)
        assert all(torch.equal(stored[name], whole[name].half()) for name in whole)
    synthesizer = Synthesizer.from_pretrained(tmp_path, device="cpu")
    assert synthesizer.sampling == SamplingOptions(top_k=7)
    assert synthesizer.dtype == torch.float32
    assert {p.dtype for p in synthesizer.tokenizer.parameters()} == {torch.float32}


def test_models_that_do_not_fit_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = CatTTS(tts_presets.mini())
    other.save_pretrained(tmp_path / "tts", SentencePieceText(bundle / "tts" / "text.model"))
    AudioTokenizer(presets.tiny()).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(
        ValueError, match=r"speaks \(12, 1024\) codebooks and codes, the tokenizer has \(6, 32\)"
    ):
        write(Bundle(out=tmp_path / "out", tokenizer=tmp_path / "tokenizer", tts=tmp_path / "tts"))
    assert not (tmp_path / "out").exists()


def test_a_listener_comes_with_the_model(bundle: Path, tmp_path: Path) -> None:
    text = SentencePieceText(bundle / "tts" / "text.model")
    CatASR(asr_config.tiny()).save_pretrained(tmp_path / "asr", text)
    write(Bundle(out=tmp_path, tokenizer=bundle / "tokenizer", tts=bundle / "tts", asr=tmp_path / "asr"))
    listener = Synthesizer.from_pretrained(tmp_path, device="cpu").listener
    assert listener is not None and listener.config == asr_config.tiny()
    assert {weight.dtype for weight in listener.parameters()} == {torch.float32}
    assert Synthesizer.from_pretrained(bundle, device="cpu").listener is None


def test_a_judge_comes_with_the_model(bundle: Path, tmp_path: Path) -> None:
    own = Discriminators(discriminators.tiny())
    own.save_pretrained(tmp_path / "own")
    write(Bundle(out=tmp_path, tokenizer=bundle / "tokenizer", tts=bundle / "tts", judge=tmp_path / "own"))
    judge = Synthesizer.from_pretrained(tmp_path, device="cpu").voices.judge
    assert judge is not None and judge.config == own.config and not judge.training
    for stored, weight in zip(judge.parameters(), own.parameters(), strict=True):
        assert torch.equal(stored, weight.half().float()) and not stored.requires_grad
    assert Synthesizer.from_pretrained(bundle, device="cpu").voices.judge is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"codebook_size": 64}, r"the ASR reads \(6, 64\) codebooks and codes, with a second head: give one"),
        ({"ctc_layer": None}, r"no second head: give one with a second head, of the \(6, 32\) that the TTS"),
    ],
)
def test_a_listener_that_does_not_fit_is_refused(
    bundle: Path, tmp_path: Path, change: dict, complaint: str
) -> None:
    asr = CatASR(replace(asr_config.tiny(), **change))
    asr.save_pretrained(tmp_path / "asr", SentencePieceText(bundle / "tts" / "text.model"))
    out, asked = tmp_path / "out", tmp_path / "asr"
    with pytest.raises(ValueError, match=complaint):
        write(Bundle(out=out, tokenizer=bundle / "tokenizer", tts=bundle / "tts", asr=asked))
    assert not (tmp_path / "out").exists()
