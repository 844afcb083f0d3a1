"""Synthesized segments on disk, each named by the hash of everything that determines it."""

import hashlib
import json
import os
import secrets
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from inference.engine.request import Request
from inference.engine.result import SynthesisResult
from inference.engine.stopping_rules import Thresholds
from inference.synthesis.models import SpeechModels

FORMAT = 3
"""Must be increased when the same request comes to mean other audio."""
_KEY = "result"
"""Entry of a file's metadata."""
_RECORDED = ("seed", "stop_reason", "attempts", "intelligibility", "acceptable")


class SegmentCache:
    """A folder of segments of one model; files are written atomically, and processes may share the folder."""

    def __init__(self, path: str | Path, models: SpeechModels) -> None:
        """Open or create the folder.

        Args:
            path: The folder.
            models: The models whose segments are cached.

        Raises:
            ValueError: the folder cannot be created.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{path}: cannot be a cache folder ({error.strerror}); name another") from None
        self.path = path
        self._models, self._key = models, model_key(models)

    def find(self, request: Request) -> SynthesisResult | None:
        """Return a segment that was stored before.

        Args:
            request: The request of the segment; its policy decides too how the segment was made.

        Returns:
            The segment, or None where it was not stored.

        Raises:
            ValueError: its file is broken.
        """
        path = self._file(request)
        try:
            with safe_open(path, framework="np") as file:
                record = json.loads(file.metadata()[_KEY])
                codes = torch.from_numpy(file.get_tensor("codes")).long()
                seed = record.pop("seed")
                return SynthesisResult(
                    audio=file.get_tensor("audio"),
                    codes=codes,
                    seed=seed,
                    depth=request.depth,
                    sample_rate=self._models.sample_rate,
                    bitrate=self._models.tokenizer.config.bitrate(request.depth),
                    request=request.changed(seed=seed),
                    **record,
                )
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: broken; delete it, and it will be synthesized again") from None

    def store(self, request: Request, result: SynthesisResult) -> None:
        """Store a segment.

        Args:
            request: The request of the segment, as for `find`.
            result: What was synthesized.

        Raises:
            ValueError: the file cannot be written.
        """
        path = self._file(request)
        partial = path.with_suffix(f".{secrets.token_hex(8)}.partial")
        record = {name: getattr(result, name) for name in _RECORDED}
        tensors = {"audio": result.audio, "codes": result.codes.int().numpy()}
        try:
            partial.write_bytes(save(tensors, {_KEY: json.dumps(record)}))
            os.replace(partial, path)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written ({error.strerror}); make room for it") from None
        finally:
            partial.unlink(missing_ok=True)

    def _file(self, request: Request) -> Path:
        """Name the file of a request by all that determines what is stored in it."""
        voice, tokens = request.voice, self._models.text_tokenizer.encode
        values = [
            FORMAT,
            self._key,
            tokens(voice.text),
            tokens(request.text),
            voice.key,
            voice.adaptation_key,
        ]
        values += [request.min_frames, request.max_frames, asdict(request.options), asdict(Thresholds())]
        return self.path / f"{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]}.safetensors"


def model_key(models: SpeechModels) -> str:
    """Hash the configurations and weights of all models; the type of weights is that of the computation.

    Args:
        models: The models.

    Returns:
        A hexadecimal digest.
    """
    digest = hashlib.sha256()
    optional = models.asr_model, models.voices.discriminators
    scoring_models = [model for model in optional if model is not None]
    for model in (models.tts, models.tokenizer, *scoring_models):
        digest.update(repr(model.config).encode())
        for name, weight in model.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode())
            digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
