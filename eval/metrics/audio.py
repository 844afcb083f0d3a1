"""Compute the metrics of the tables, each with its exact definition.

Audio is float32 numpy [s], mono, in [-1, 1].
PESQ, STOI, similarity and transcription run at 16 kHz (soxr HQ resamples other rates). A metric that is
undefined for a pair raises `MetricError`: callers count it, and never drop it silently. The two scoring
models are those of `eval.assets`: a word error rate by Whisper base or a similarity by CAM++ cannot be
compared with published ones of Whisper large or WavLM.
"""

import functools
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import kaldi_native_fbank
import numpy as np
import pystoi
import soxr
import torch
from whisper_normalizer.english import EnglishTextNormalizer

from eval.assets import AssetError, verify

METRIC_RATE = 16_000


class MetricError(ValueError):
    """The metric has no value for this audio, which is silent, too short or not finite."""


@dataclass(frozen=True, kw_only=True)
class WordErrors:
    """Word errors of one utterance: substitutions, deletions and insertions against its reference."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per reference word; it may exceed 1."""
        return self.errors / self.words


def word_error_rate(reference: str, hypothesis: str) -> WordErrors:
    """Count word errors (jiwer) after both sides went through Whisper's English normalizer.

    The normalizer is `whisper_normalizer.english.EnglishTextNormalizer`, its spelling table included: lower
    case, no punctuation, contractions spread, numbers as digits, American spelling, bracketed remarks and
    hesitations removed.

    Args:
        reference: The text that was to be spoken.
        hypothesis: The transcript of the speech.

    Returns:
        The errors and the number of reference words.

    Raises:
        ValueError: If no word of the reference is left after normalization.
    """
    wanted, transcribed = normalize_english(reference), normalize_english(hypothesis)
    if not any(map(str.isalnum, wanted)):
        raise ValueError(f"text {reference!r} holds no word after normalisation; give a text with words")
    found = jiwer.process_words(wanted, transcribed)
    errors = found.substitutions + found.deletions + found.insertions
    return WordErrors(errors=errors, words=len(wanted.split()))


def corpus_rate(results: Sequence[WordErrors]) -> float:
    """Return all errors over all reference words (micro average) of at least one utterance."""
    return sum(result.errors for result in results) / sum(result.words for result in results)


def normalize_english(text: str) -> str:
    """Return a text as the word error rate compares it."""
    return _normalizer()(text).strip()


@functools.cache
def _normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


def resample(audio: np.ndarray, sample_rate: int, target: int = METRIC_RATE) -> np.ndarray:
    """Resample audio with soxr HQ; audio that has the rate already is returned unchanged.

    Args:
        audio: [s] at `sample_rate`.
        sample_rate: In Hz.
        target: The new rate in Hz.

    Returns:
        float32 samples [t] at `target`.
    """
    audio = np.asarray(audio, dtype=np.float32)
    return audio if sample_rate == target else soxr.resample(audio, sample_rate, target, quality="HQ")


def stoi(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Compute short-time objective intelligibility (pystoi, the 2011 measure, not extended).

    Signals are cut to the shorter. Frames 40 dB below the loudest of the reference are removed first.
    Identical audio gives 1.

    Args:
        reference: [s] clean audio at `sample_rate`.
        degraded: [t] audio to score, at the same rate.
        sample_rate: In Hz.

    Raises:
        MetricError: If fewer than 30 frames of 12.8 ms are left, the reference is silent, or a signal is not
            finite.
    """
    clean, other = _pair(reference, degraded, sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean, other, METRIC_RATE, extended=False))
        except (RuntimeWarning, ValueError) as error:
            raise MetricError(f"STOI is undefined: {error}") from error


def pesq_wb(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Compute wide-band PESQ, ITU-T P.862.2, as MOS-LQO.

    Signals are cut to the shorter. Identical audio gives 4.644; level does not matter.

    Args:
        reference: [s] clean audio at `sample_rate`.
        degraded: [t] audio to score, at the same rate.
        sample_rate: In Hz.

    Raises:
        MetricError: If there is less than a quarter second or no speech, or a signal is silent or not finite.
    """
    return _pesq(reference, degraded, sample_rate, "wb")


def pesq_nb(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> float:
    """Compute narrow-band PESQ, ITU-T P.862.1, as MOS-LQO.

    It gets 16 kHz audio, as in codec papers; at 8 kHz the scores differ. Arguments and errors are those of
    `pesq_wb`.
    """
    return _pesq(reference, degraded, sample_rate, "nb")


def _pesq(reference: np.ndarray, degraded: np.ndarray, sample_rate: int, mode: str) -> float:
    from pesq import PesqError, pesq  # pyright: ignore[reportMissingImports]  # needs a C compiler

    clean, other = _pair(reference, degraded, sample_rate)
    if not other.any():
        raise MetricError("PESQ is undefined: the degraded audio is silent")
    try:
        return float(pesq(METRIC_RATE, clean, other, mode))
    except (PesqError, ValueError) as error:
        raise MetricError(f"PESQ is undefined: {error}") from error


def _pair(reference: np.ndarray, degraded: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both signals at 16 kHz, cut to the shorter."""
    require_finite(reference, degraded)
    count = min(len(reference), len(degraded))
    if not np.any(reference[:count]):
        raise MetricError("there is no audio to compare with: the reference is empty or silent")
    return resample(reference[:count], sample_rate), resample(degraded[:count], sample_rate)


def require_finite(*signals: np.ndarray) -> None:
    """Raise MetricError where a signal [s] holds NaN or infinite samples."""
    if not all(np.isfinite(signal).all() for signal in signals):
        raise MetricError("the audio holds NaN or infinite samples")


class Transcriber:
    """Transcribes speech with Whisper base (int8), beam 5, temperature 0, no context, no timestamps.

    CPU threads follow OMP_NUM_THREADS.

    Args:
        folder: The assets folder.
        language: A language code of Whisper's.

    Raises:
        AssetError: If a file of the model is missing or broken.
    """

    def __init__(self, folder: Path | str, language: str = "en") -> None:
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]  # large

        verify(folder, "whisper-base/")
        self._language = language
        self._model = WhisperModel(str(Path(folder) / "whisper-base"), device="cpu", compute_type="int8")

    def __call__(self, audio: np.ndarray, sample_rate: int) -> str:
        """Transcribe audio; the transcript is empty where there is no speech.

        Args:
            audio: [s] at `sample_rate`.
            sample_rate: In Hz.

        Raises:
            MetricError: If the audio is not finite.
        """
        require_finite(audio)
        if not len(audio):
            return ""
        segments, _ = self._model.transcribe(
            resample(audio, sample_rate),
            language=self._language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()


class SpeakerEncoder:
    """Embeds speakers with CAM++ (3D-Speaker, Chinese-English common).

    Its input is 80 Kaldi filter banks less their mean. The network's code is loaded from `folder`, the assets
    folder, after its checksum was compared.

    Raises:
        AssetError: If a file of the model is missing or broken.
    """

    def __init__(self, folder: Path | str) -> None:
        verify(folder, "campplus/")
        folder = Path(folder) / "campplus"
        spec = importlib.util.spec_from_file_location("camplusplus", folder / "camplusplus.py")
        if spec is None or spec.loader is None:
            raise AssetError(f"{folder} cannot be loaded; run: python -m eval.assets {folder.parent}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._network = module.CAMPPlus(feat_dim=80, embedding_size=192).eval()
        weights = torch.load(folder / "campplus_cn_en_common.pt", map_location="cpu", weights_only=True)
        self._network.load_state_dict(weights)

    def embed(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the unit-length embedding [192] of the speaker of the whole audio.

        Args:
            audio: [s] at `sample_rate`.
            sample_rate: In Hz.

        Raises:
            MetricError: If the audio is silent, not finite, or shorter than 0.1 s.
        """
        require_finite(audio)
        if len(audio) < 0.1 * sample_rate or not np.any(audio):
            raise MetricError("similarity is undefined: the audio is silent or shorter than 0.1 s")
        features = torch.from_numpy(_filter_banks(resample(audio, sample_rate)))
        with torch.inference_mode():
            embedding = self._network(features[None])[0].numpy()
        return embedding / np.linalg.norm(embedding)

    def similarity(self, first: np.ndarray, first_rate: int, second: np.ndarray, second_rate: int) -> float:
        """Return the cosine of two embeddings; errors are those of `embed`.

        Two strangers score well above 0: compare it with the scores of such pairs.

        Args:
            first: [s] at `first_rate`.
            first_rate: In Hz.
            second: [t] at `second_rate`.
            second_rate: In Hz.
        """
        return float(self.embed(first, first_rate) @ self.embed(second, second_rate))


def _filter_banks(audio: np.ndarray) -> np.ndarray:
    """Return log Mel filter banks [t, 80] of 16 kHz audio [s], 25 ms every 10 ms, with mean 0 over time."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = METRIC_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = 80
    options.energy_floor = 0.0
    banks = kaldi_native_fbank.OnlineFbank(options)
    banks.accept_waveform(METRIC_RATE, audio.tolist())
    banks.input_finished()
    features = np.stack([banks.get_frame(i) for i in range(banks.num_frames_ready)])
    return features - features.mean(0, keepdims=True)
