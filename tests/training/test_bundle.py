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


def test_an_asr_model_comes_with_the_bundle(bundle: Path, tmp_path: Path) -> None:
    text = SentencePieceText(bundle / "tts" / "text.model")
    CatASR(asr_config.tiny()).save_pretrained(tmp_path / "asr", text)
    write(Bundle(out=tmp_path, tokenizer=bundle / "tokenizer", tts=bundle / "tts", asr=tmp_path / "asr"))
    asr_model = Synthesizer.from_pretrained(tmp_path, device="cpu").asr_model
    assert asr_model is not None and asr_model.config == asr_config.tiny()
    assert {weight.dtype for weight in asr_model.parameters()} == {torch.float32}
    assert Synthesizer.from_pretrained(bundle, device="cpu").asr_model is None


def test_discriminators_come_with_the_bundle(bundle: Path, tmp_path: Path) -> None:
    own = Discriminators(discriminators.tiny())
    own.save_pretrained(tmp_path / "own")
    write(
        Bundle(
            out=tmp_path, tokenizer=bundle / "tokenizer", tts=bundle / "tts", discriminators=tmp_path / "own"
        )
    )
    loaded = Synthesizer.from_pretrained(tmp_path, device="cpu").voices.discriminators
    assert loaded is not None and loaded.config == own.config and not loaded.training
    for stored, weight in zip(loaded.parameters(), own.parameters(), strict=True):
        assert torch.equal(stored, weight.half().float()) and not stored.requires_grad
    assert Synthesizer.from_pretrained(bundle, device="cpu").voices.discriminators is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"codebook_size": 64}, r"the ASR reads \(6, 64\) codebooks and codes, with a CTC head: give one"),
        ({"ctc_layer": None}, r"no CTC head: give one with a CTC head, of the \(6, 32\) that the TTS"),
    ],
)
def test_an_asr_model_that_does_not_fit_is_refused(
    bundle: Path, tmp_path: Path, change: dict, complaint: str
) -> None:
    asr = CatASR(replace(asr_config.tiny(), **change))
    asr.save_pretrained(tmp_path / "asr", SentencePieceText(bundle / "tts" / "text.model"))
    out, folder = tmp_path / "out", tmp_path / "asr"
    with pytest.raises(ValueError, match=complaint):
        write(Bundle(out=out, tokenizer=bundle / "tokenizer", tts=bundle / "tts", asr=folder))
    assert not (tmp_path / "out").exists()
