"""The models that score speech, behind two small interfaces, each with the checksums of its files.

The official ones of Seed-TTS-Eval are Whisper large-v3 (English), Paraformer (Chinese) and WavLM large with
an ECAPA-TDNN, which have to be downloaded; `eval.assets` fetches smaller ones, whose scores are on another
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
    """Transcribes speech of one language."""

    name: str
    official: bool
    """Whether Seed-TTS-Eval transcribes the language with this model."""
    files: dict[str, str]
    """SHA-256 by name."""

    def transcribe(self, path: Path) -> str:
        """Transcribe a file.

        Args:
            path: Audio that `load_audio` can read.

        Returns:
            The transcript.
        """
        ...


class VoiceEncoder(Protocol):
    """Maps speech to a vector whose direction stands for the speaker."""

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Embed the speaker of audio.

        Args:
            audio: [s] at `sample_rate`.
            sample_rate: In Hz.

        Returns:
            A unit-length embedding [e].

        Raises:
            MetricError: If there is no speaker in the audio.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Speakers:
    """A voice encoder, its name and the checksums of its files."""

    name: str
    official: bool
    files: dict[str, str]
    encoder: VoiceEncoder


class WhisperBase:
    """Whisper base of the assets folder, run by `eval.metrics.audio.Transcriber`.

    Args:
        assets: The assets folder.
        language: Language of the speech.

    Raises:
        ValueError: If faster-whisper is not installed, or a file of the model is missing or broken.
    """

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
    s, beyond which audio is ignored.

    Args:
        model: A folder or hub id of `transformers`' layout; any size of Whisper will do.
        language: Language of the speech.
        device: A torch device name.

    Raises:
        ValueError: If there is no such folder, and the hub does not provide it.
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
    """Paraformer-zh of FunASR, run on one file at a time without voice activity detection or punctuation.

    That is how the official script runs it. FunASR downloads the model, and loads its pickled weights in its
    own way.

    Args:
        language: Language of the speech; only "zh" is possible.
        device: A torch device name.

    Raises:
        ValueError: If the language is another one, FunASR is not installed, or the model cannot be loaded.
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
    """Load one of `RECOGNIZERS`.

    Args:
        name: Its name.
        language: Language of the speech.
        assets: The assets folder, for whisper-base.
        weights: A folder or hub id that replaces the weights of whisper-large-v3.
        device: A torch device name, for the others.

    Returns:
        The recognizer.

    Raises:
        ValueError: If a package or the weights are missing, or the model does not know the language.
    """
    if name == "whisper-base":
        return WhisperBase(require_assets(assets), language)
    if name == "paraformer":
        return Paraformer(language, device)
    return WhisperLarge(weights or WHISPER_LARGE, language, device)


def load_speakers(checkpoint: Path | None, assets: Path | None) -> Speakers:
    """Load the official speaker model from its checkpoint, or by default CAM++ from the assets.

    Args:
        checkpoint: The file wavlm_large_finetune.pth; None chooses CAM++.
        assets: The assets folder, for CAM++.

    Returns:
        The speaker model.

    Raises:
        ValueError: If the checkpoint or the assets are missing, or are not the expected files.
    """
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
