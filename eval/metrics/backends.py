"""The models that score speech, behind two small interfaces, each with the checksums of its files.

The official ones of Seed-TTS-Eval are Whisper large-v3 (English), Paraformer (Chinese) and WavLM large with
an ECAPA-TDNN, which have to be downloaded; `eval.assets` brings smaller ones, whose scores are of another
scale.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import torch
from huggingface_hub import snapshot_download

from eval.assets import sha256, verify
from eval.common.results import require_assets
from eval.metrics.audio import METRIC_RATE, SpeakerEncoder, Transcriber
from inference.text.normalization import Language
from tokenizer import load_audio

RECOGNIZERS = ("whisper-base", "whisper-large-v3", "paraformer")
WHISPER_LARGE = "openai/whisper-large-v3"
_WHISPER_FILES = ["*.json", "*.txt", "model.safetensors"]
_WHISPER_LANGUAGES = {"en": "english", "zh": "chinese"}


class Recognizer(Protocol):
    """Speech to text, of one language."""

    name: str
    official: bool
    """Whether Seed-TTS-Eval transcribes the language with this model."""
    files: dict[str, str]
    """SHA-256 by name."""

    def transcribe(self, path: Path) -> str:
        """Transcribe a file that `load_audio` can read."""
        ...


class VoiceEncoder(Protocol):
    """Speech to a point whose direction is the speaker."""

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Embed the speaker of audio [s]; raise MetricError where there is none."""
        ...


@dataclass(frozen=True, kw_only=True)
class Speakers:
    """A voice encoder and what there is to tell of it."""

    name: str
    official: bool
    files: dict[str, str]
    encoder: VoiceEncoder


class WhisperBase:
    """`eval.metrics.audio.Transcriber`, from the assets."""

    name, official = "Whisper base (int8, beam 5)", False

    def __init__(self, assets: Path, language: Language) -> None:
        _require("faster_whisper", "faster-whisper", "whisper-base")
        self.files = verify(assets, "whisper-base/")
        self._transcribe = Transcriber(assets, language)

    def transcribe(self, path: Path) -> str:
        """Transcribe a file, see `Recognizer`."""
        return self._transcribe(load_audio(path, METRIC_RATE).numpy(), METRIC_RATE)


class WhisperLarge:
    """Whisper large-v3 as the official script runs it.

    That is float32, greedy, without timestamps, other rates resampled to 16 kHz by FFT, and one window of 30
    s, beyond which audio is ignored. `model` is a folder or hub id of `transformers`' layout; any size of
    Whisper will do.
    """

    def __init__(self, model: str | Path, language: Language, device: str) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = _whisper_folder(model)
        self.name = "Whisper large-v3" if str(model) == WHISPER_LARGE else f"Whisper of {Path(model).name}"
        self.official = str(model) == WHISPER_LARGE and language == "en"
        paths = sorted(path for pattern in _WHISPER_FILES for path in folder.glob(pattern))
        self.files = {path.name: sha256(path) for path in paths}
        self._language, self._device = _WHISPER_LANGUAGES[language], device
        self._processor = WhisperProcessor.from_pretrained(folder)
        loaded = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
        self._model = loaded.to(device).eval()  # pyright: ignore[reportArgumentType]

    @torch.inference_mode()
    def transcribe(self, path: Path) -> str:
        """Transcribe a file, see `Recognizer`."""
        from scipy.signal import resample

        samples, rate = soundfile.read(path, always_2d=True)
        audio = samples.mean(1)
        if rate != METRIC_RATE:
            audio = resample(audio, int(len(audio) * METRIC_RATE / rate))
        features = self._processor(audio, sampling_rate=METRIC_RATE, return_tensors="pt").input_features
        ids = self._model.generate(
            features.to(self._device),
            language=self._language,
            task="transcribe",
            num_beams=1,
            do_sample=False,
        )
        return self._processor.batch_decode(ids, skip_special_tokens=True)[0]


class Paraformer:
    """paraformer-zh of FunASR, file by file without voice activity detection or punctuation, as is official.

    FunASR fetches it, and loads its pickled weights in its own way.
    """

    name, official = "Paraformer (paraformer-zh)", True

    def __init__(self, language: Language, device: str) -> None:
        if language != "zh":
            raise ValueError(f"paraformer transcribes Chinese, and the list is {language}: choose a Whisper")
        _require("funasr", "funasr", "paraformer")
        try:
            from funasr import AutoModel  # pyright: ignore[reportMissingImports]  # large

            threads = torch.get_num_threads()  # FunASR would set it to 4, for all of torch
            settings = {"ncpu": threads, "disable_update": True, "disable_pbar": True}
            self._model = AutoModel(model="paraformer-zh", device=device, **settings)
        except (ImportError, OSError, AssertionError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"paraformer-zh could not be loaded: {reason}; check the network") from error
        weights = self._model.kwargs.get("init_param")
        if not weights or not Path(weights).is_file():  # FunASR would go on with random ones
            raise ValueError("paraformer-zh came without its weights; empty FunASR's cache and try again")
        folder = Path(weights).parent
        self.files = {path.name: sha256(path) for path in sorted(folder.glob("*")) if path.is_file()}

    def transcribe(self, path: Path) -> str:
        """Transcribe a file, see `Recognizer`."""
        return self._model.generate(input=str(path), batch_size_s=300)[0]["text"]


def load_recognizer(
    name: str, language: Language, assets: Path | None, weights: str | None, device: str
) -> Recognizer:
    """One of `RECOGNIZERS`. `weights` replaces those that Whisper large-v3 comes with.

    Raises:
        ValueError: a package or the weights are missing, or it does not speak the language.
    """
    if name == "whisper-base":
        return WhisperBase(require_assets(assets), language)
    if name == "paraformer":
        return Paraformer(language, device)
    return WhisperLarge(weights or WHISPER_LARGE, language, device)


def load_speakers(checkpoint: Path | None, assets: Path | None) -> Speakers:
    """The official speaker model from its checkpoint, or by default CAM++ from the assets."""
    if checkpoint is None:
        folder = require_assets(assets)
        files = verify(folder, "campplus/")
        return Speakers(name="CAM++", official=False, files=files, encoder=SpeakerEncoder(folder))
    if not checkpoint.is_file():
        raise ValueError(
            f"--sim-checkpoint {checkpoint}: there is no such file; name wavlm_large_finetune.pth"
        )
    from eval.metrics.wavlm_speaker import WavLMSpeakerEncoder  # pyright: ignore[reportMissingImports]

    return Speakers(
        name="WavLM large + ECAPA-TDNN",
        official=True,
        files={checkpoint.name: sha256(checkpoint)},
        encoder=WavLMSpeakerEncoder(checkpoint),
    )


def _require(module: str, package: str, backend: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ValueError(f"{backend} needs the package {package}: pip install {package}")


def _whisper_folder(model: str | Path) -> Path:
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(str(model), allow_patterns=_WHISPER_FILES))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"{model}: no such folder, and the hub could not give it ({reason}); check name and network"
        raise ValueError(message) from error
