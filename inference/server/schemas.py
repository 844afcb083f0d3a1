"""What a client asks for when it asks for speech."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from inference.server.audio_encoder import Format
from inference.server.errors import ApiError
from inference.server.limits import Limits


class VoiceName(BaseModel):
    """A voice as newer clients name it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: str


class SpeechRequest(BaseModel):
    """What OpenAI's clients send, and two dials more: `depth` and `seed`."""

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

    @property
    def voice_name(self) -> str:
        return self.voice if isinstance(self.voice, str) else self.voice.id

    def check(self, model: str, limits: Limits) -> None:
        """ApiError for what this server does not do, whatever the voice."""
        check_model(self.model, model)
        if self.speed != 1:
            message = f"speed {self.speed}: this model sets its own pace, so leave the speed at 1"
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


def check_model(asked: str, model: str) -> None:
    """ApiError for another model than the one there is."""
    if asked != model:
        message = f"model {asked[:80]!r} does not exist: this server has {model!r}"
        raise ApiError(404, message, code="model_not_found", param="model")
