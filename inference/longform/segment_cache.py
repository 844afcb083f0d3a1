"""Synthesized segments on disk, each named by the hash of everything that determines it."""

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from inference.engine.job import StopReason
from inference.engine.request import Request
from inference.engine.stopping_rules import Thresholds
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.voice import content_key

FORMAT = 2
"""Must be increased when the same request comes to mean other audio."""
_KEY = "made"
"""Entry of a file's metadata."""


@dataclass(frozen=True, kw_only=True)
class CachedSegment:
    """The audio of a segment, and how it was synthesized."""

    audio: Float[np.ndarray, " s"]
    stop_reason: StopReason
    attempts: int
    seed: int


class SegmentCache:
    """A folder of segments of one model; files are written atomically, and processes may share the folder."""

    def __init__(self, path: Path, synthesizer: Synthesizer) -> None:
        """Open or create the folder.

        Args:
            path: The folder.
            synthesizer: The models whose segments are cached.

        Raises:
            ValueError: the folder cannot be created.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: cannot be a cache folder ({error.strerror}); name another") from None
        self.path = path
        self._text_tokenizer, self._model = synthesizer.text_tokenizer, model_key(synthesizer)

    def find(self, request: Request, settings: object) -> CachedSegment | None:
        """Return a segment that was stored before.

        Args:
            request: The request of the segment.
            settings: Everything that determines the segment beside its request; it must be JSON-serializable.

        Returns:
            The segment, or None where it was not stored.

        Raises:
            ValueError: its file is broken.
        """
        path = self._file(request, settings)
        try:
            with safe_open(path, framework="np") as file:
                return CachedSegment(audio=file.get_tensor("audio"), **json.loads(file.metadata()[_KEY]))
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: broken; delete it, and it will be synthesized again") from None

    def store(self, request: Request, settings: object, segment: CachedSegment) -> None:
        """Store a segment.

        Args:
            request: The request of the segment.
            settings: Everything that determines the segment beside its request, as for `find`.
            segment: What was synthesized.

        Raises:
            ValueError: the file cannot be written.
        """
        record = {"stop_reason": segment.stop_reason, "attempts": segment.attempts, "seed": segment.seed}
        path = self._file(request, settings)
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        try:
            partial.write_bytes(save({"audio": segment.audio}, {_KEY: json.dumps(record)}))
            os.replace(partial, path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror}); make room for it") from None
        finally:
            partial.unlink(missing_ok=True)

    def _file(self, request: Request, settings: object) -> Path:
        ids = [self._text_tokenizer.encode(text) for text in (request.voice.text, request.text)]
        values = [FORMAT, self._model, ids, request, Thresholds(), settings]
        serialized = json.dumps(values, default=_serializable)
        return self.path / f"{hashlib.sha256(serialized.encode()).hexdigest()[:32]}.safetensors"


def model_key(synthesizer: Synthesizer) -> str:
    """Hash the configurations and weights of all models; the type of weights is that of the computation.

    Args:
        synthesizer: The models.

    Returns:
        A hexadecimal digest.
    """
    digest = hashlib.sha256()
    optional = synthesizer.asr_model, synthesizer.voices.discriminators
    scoring_models = [model for model in optional if model is not None]
    for model in (synthesizer.tts, synthesizer.tokenizer, *scoring_models):
        digest.update(repr(model.config).encode())
        for name, weight in model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _serializable(value: object) -> object:
    return content_key(value) if isinstance(value, Tensor) else vars(value)
