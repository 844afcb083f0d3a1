import json
import shutil
from pathlib import Path

import pytest
import torch

from cat_tts.asr.config import ASRTokens
from cat_tts.asr.from_qwen3 import from_qwen3
from tests.helpers.qwen3 import write_qwen3


@pytest.mark.parametrize("tied", [True, False])
def test_a_qwen3_predicts_as_before(tied: bool, tmp_path: Path) -> None:
    llm = write_qwen3(tmp_path, tied)
    asr, text_tokenizer = from_qwen3(tmp_path, num_codebooks=6, codebook_size=32)
    assert asr.config.tokens == ASRTokens(audio_start=27, audio_end=28, text_end=29)
    assert (asr.config.tied, asr.config.num_codebooks, text_tokenizer.vocab_size) == (tied, 6, 30)
    ids = torch.tensor([[27, 1, 2, 2, 1]])
    with torch.no_grad():
        states, _ = asr.eval().states(asr.text_embedding(ids), None)
        torch.testing.assert_close(asr.logits(states[0]), llm(ids).logits[0])


def test_what_is_no_qwen3_is_refused(tmp_path: Path) -> None:
    write_qwen3(tmp_path, True)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, "model_type": "qwen2"}))
    with pytest.raises(ValueError, match="model_type='qwen2' is no Qwen3"):
        from_qwen3(tmp_path)


def test_a_tokenizer_without_the_markers_is_refused(bundle: Path, tmp_path: Path) -> None:
    write_qwen3(tmp_path, True)
    shutil.copy(bundle / "tts" / "text.model", tmp_path)
    with pytest.raises(ValueError, match=r"its tokenizer lacks <\|vision_start\|>"):
        from_qwen3(tmp_path)
