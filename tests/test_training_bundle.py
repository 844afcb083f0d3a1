from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cat_tts import CatTTS, SamplingOptions
from cat_tts import config as tts_presets
from cat_tts.text import SentencePieceText
from inference import Synthesizer
from tokenizer import AudioTokenizer
from tokenizer import config as presets
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
