"""The models that judge: a tiny Whisper of `transformers`' layout, and what is said when one is missing."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import resample

from eval.assets import AssetError, sha256
from eval.metrics import backends
from tokenizer import save_audio

SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>"]
SPECIAL += ["<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of 16 features with random weights, whose words are single letters."""
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor
    from transformers import WhisperForConditionalGeneration as Whisper

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    letters = [chr(ord("a") + i) for i in range(26)]
    ids = {token: number for number, token in enumerate(letters + SPECIAL)}
    (folder / "vocab.json").write_text(json.dumps({letter: ids[letter] for letter in letters}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = {"tokenizer_class": "WhisperTokenizer", "additional_special_tokens": SPECIAL[1:]}
    tokenizer |= dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), SPECIAL[0])
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    WhisperFeatureExtractor(feature_size=8, chunk_length=30).save_pretrained(folder)
    config = WhisperConfig(
        vocab_size=len(ids),
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=12,
        bos_token_id=ids[SPECIAL[0]],
        eos_token_id=ids[SPECIAL[0]],
        pad_token_id=ids[SPECIAL[0]],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        init_std=1.0,
    )
    model = Whisper(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"],
        eos_token_id=ids[SPECIAL[0]],
        pad_token_id=ids[SPECIAL[0]],
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["<|en|>"], "<|zh|>": ids["<|zh|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        suppress_tokens=[ids[token] for token in SPECIAL[1:]],
        max_length=12,
    )
    model.half().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("language", "token"), [("en", "<|en|>"), ("zh", "<|zh|>")])
def test_whisper_is_greedy_in_its_language_and_float32(
    whisper: Path, tmp_path: Path, language: backends.Language, token: str, voice: np.ndarray
) -> None:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    path = tmp_path / "a.wav"
    save_audio(path, torch.from_numpy(voice), 24_000)
    recognizer = backends.load_recognizer("whisper-large-v3", language, None, str(whisper), "cpu")
    transcript = recognizer.transcribe(path)
    assert (recognizer.name, recognizer.official) == (f"Whisper of {whisper.name}", False)
    assert recognizer.files["model.safetensors"] == sha256(whisper / "model.safetensors")
    assert {"config.json", "generation_config.json", "vocab.json", "merges.txt"} <= recognizer.files.keys()

    import soundfile

    audio, rate = soundfile.read(path)
    audio = resample(audio, int(len(audio) * 16_000 / rate))
    processor = WhisperProcessor.from_pretrained(whisper)
    model = WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32).eval()
    features = processor(audio, sampling_rate=16_000, return_tensors="pt").input_features
    start = ["<|startoftranscript|>", token, "<|transcribe|>", "<|notimestamps|>"]
    ids = processor.tokenizer.convert_tokens_to_ids(start)
    end = processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    words = []
    with torch.inference_mode():
        while len(ids) < 12 and (not words or words[-1] != end):
            logits = model(features, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            logits[26 + 1 :] = -torch.inf
            words.append(int(logits.argmax()))
            ids.append(words[-1])
    letters = "".join(chr(ord("a") + word) for word in words if word < 26)
    assert transcript == letters != ""


@pytest.mark.parametrize(
    ("name", "language", "weights", "message"),
    [
        ("whisper-base", "en", None, "no assets folder"),
        ("paraformer", "en", None, "paraformer transcribes Chinese"),
        ("whisper-large-v3", "en", "/no/such/folder", "/no/such/folder: no such folder"),
    ],
)
def test_a_missing_model_is_reported_in_one_line(
    name: str, language: backends.Language, weights: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        backends.load_recognizer(name, language, None, weights, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("funasr") is not None, reason="funasr is installed")
def test_a_missing_package_is_told_with_its_cure() -> None:
    with pytest.raises(ValueError, match="paraformer needs the package funasr: pip install funasr"):
        backends.load_recognizer("paraformer", "zh", None, None, "cpu")


def test_a_missing_speaker_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file; name wavlm_large_finetune\.pth"):
        backends.load_speakers(tmp_path / "none.pth", None)
    with pytest.raises(AssetError, match="CAT_TTS_EVAL_ASSETS"):
        backends.load_speakers(None, None)
