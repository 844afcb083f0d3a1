import json
from pathlib import Path

import pytest
import torch

from tests.helpers.paths import ROOT
from tests.training.test_train_tokenizer import options
from tokenizer import AudioTokenizer
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.recipes import tiny
from training.train_tokenizer import train

EMBEDDED = ROOT / "cat_tts" / "pretrained" / "mini" / "tokenizer"


def test_the_embedded_model_can_be_trained_on_whatever_shape_the_preset_has(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its shape stays, and a new semantic head fits it."""
    embedded = AudioTokenizer.from_pretrained(EMBEDDED)
    few = {"batches": {"batch_seconds": 0.16}, "trainable": "decoder", "steps": 1, "adversarial_from": None}
    with caplog.at_level("INFO"):
        model = train(options(tmp_path, corpus, init=EMBEDDED, **few))
    assert model.config == embedded.config
    assert torch.equal(model.encoder[0].layers[0].qkv.weight, embedded.encoder[0].layers[0].qkv.weight)
    head = SemanticHead.from_pretrained(tmp_path / "model" / "semantic")
    assert head.config.latent_dim == embedded.config.code_dim != tiny().shape.semantic.latent_dim
    assert "the preset's config.encoder.0.patch_size is 240, not 480" in caplog.text
    saved = json.loads((tmp_path / "run.json").read_text())["shape"]["model"]
    assert saved["encoder"][0]["dim"] == embedded.config.encoder[0].dim
