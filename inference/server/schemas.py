"""The body of a request for speech."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from inference.server.audio_encoder import Format
from inference.server.errors import ApiError
from inference.server.limits import Limits

LIVE_FORMATS = ("pcm", "opus")
"""Formats that clients choose to play at once."""


class VoiceName(BaseModel):
    """The name of a voice as newer clients send it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: str


class SpeechRequest(BaseModel):
    """The body that OpenAI's clients send, with four more fields: `depth`, `seed`, `policy` and `strict`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    input: str
    voice: str | VoiceName
    response_format: Format = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    speed: float = 1.0
    instructions: str | None = None
    depth: int | None = None
    seed: int = 0
    policy: Literal["live", "checked"] | None = None
    """Whether speech is sent while it is synthesized, or when every segment was checked and, where it failed,
    synthesized again. By default events, pcm and opus are live, and files are checked."""
    strict: bool = False
    """Answer with an error where all attempts at a segment failed."""

    @property
    def live(self) -> bool:
        """Whether speech is sent while it is synthesized."""
        if self.policy is not None:
            return self.policy == "live"
        return self.stream_format == "sse" or self.response_format in LIVE_FORMATS

    @property
    def voice_name(self) -> str:
        """The name of the voice, however the client sent it."""
        return self.voice if isinstance(self.voice, str) else self.voice.id

    def check(self, model: str, limits: Limits) -> None:
        """Refuse what this server does not do, whatever the voice.

        Args:
            model: The name of the model that this server has.
            limits: What a request may cost.

        Raises:
            ApiError: The model, the speed, the instructions or the text cannot be served.
        """
        check_model(self.model, model)
        if self.speed != 1:
            message = f"speed {self.speed}: this model sets its own speaking rate, so leave the speed at 1"
            raise ApiError(400, message, code="unsupported_value", param="speed")
        if self.instructions:
            message = "instructions: this model follows its prompt and no instructions, so leave them out"
            raise ApiError(400, message, code="unsupported_parameter", param="instructions")
        if len(self.input) > limits.max_characters:
            message = (
                f"input: {len(self.input)} characters, and {limits.max_characters} are the most: split it"
            )
            raise ApiError(400, message, code="string_above_max_length", param="input")
        try:
            self.input.encode()
        except UnicodeEncodeError:
            raise ApiError(400, "input: is no Unicode text", code="invalid_value", param="input") from None


def check_model(name: str, model: str) -> None:
    """Refuse another model than the one that this server has.

    Args:
        name: The model that the client names.
        model: The name of the model that this server has.

    Raises:
        ApiError: They differ.
    """
    if name != model:
        message = f"model {name[:80]!r} does not exist: this server has {model!r}"
        raise ApiError(404, message, code="model_not_found", param="model")
