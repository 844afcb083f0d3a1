"""Pieces of speech on disk, each named by all that determines it."""

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
"""To be raised when the same request comes to mean other audio."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A piece of speech, and how it came about."""

    audio: Float[np.ndarray, " s"]
    stop_reason: StopReason
    attempts: int
    seed: int


class WorkFolder:
    """Keeps what one model makes. A piece is written whole or not at all; others may write beside us."""

    def __init__(self, path: Path, synthesizer: Synthesizer) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: cannot be a work folder ({error.strerror}); name another") from None
        self.path = path
        self._text, self._model = synthesizer.text, model_key(synthesizer)

    def find(self, request: Request, how: object) -> Made | None:
        """What `keep` was given for the same; `how` is all that determines the piece beside its request."""
        path = self._file(request, how)
        try:
            with safe_open(path, framework="np") as file:
                return Made(audio=file.get_tensor("audio"), **json.loads(file.metadata()["made"]))
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: broken; delete it, and the piece will be made again") from None

    def keep(self, request: Request, how: object, made: Made) -> None:
        record = {"stop_reason": made.stop_reason, "attempts": made.attempts, "seed": made.seed}
        path = self._file(request, how)
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        try:
            partial.write_bytes(save({"audio": made.audio}, {"made": json.dumps(record)}))
            os.replace(partial, path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror}); make room for it") from None
        finally:
            partial.unlink(missing_ok=True)

    def _file(self, request: Request, how: object) -> Path:
        ids = [self._text.encode(text) for text in (request.voice.text, request.text)]
        known = json.dumps([FORMAT, self._model, ids, request, Thresholds(), how], default=_plain)
        return self.path / f"{hashlib.sha256(known.encode()).hexdigest()[:32]}.safetensors"


def model_key(synthesizer: Synthesizer) -> str:
    """Names all models by their configurations and weights, whose type is that of the computation."""
    digest = hashlib.sha256()
    judges = [one for one in (synthesizer.listener, synthesizer.voices.judge) if one is not None]
    for model in (synthesizer.tts, synthesizer.tokenizer, *judges):
        digest.update(repr(model.config).encode())
        for name, weight in model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _plain(value: object) -> object:
    return content_key(value) if isinstance(value, Tensor) else vars(value)
