"""Which requests are answered live and which are checked first, by format and by field."""

from typing import Any, get_args

import pytest

from inference.server.audio_encoder import Format
from inference.server.schemas import SpeechRequest
from tests.helpers.serving import PAYLOAD


def is_live(**fields: Any) -> bool:
    return SpeechRequest.model_validate({**PAYLOAD, **fields}).live


@pytest.mark.parametrize(
    ("kind", "live"),
    [("mp3", False), ("wav", False), ("flac", False), ("aac", False), ("pcm", True), ("opus", True)],
)
def test_files_are_checked_and_streams_are_live(kind: str, live: bool) -> None:
    """By default; events are live in every format, and the field decides whatever the format."""
    assert is_live(response_format=kind) is live
    assert is_live(response_format=kind, policy=None) is live
    assert is_live(response_format=kind, stream_format="sse") is True
    for events in ("audio", "sse"):
        assert is_live(response_format=kind, stream_format=events, policy="live") is True
        assert is_live(response_format=kind, stream_format=events, policy="checked") is False


def test_every_format_has_a_policy() -> None:
    assert {kind for kind in get_args(Format) if is_live(response_format=kind)} == {"pcm", "opus"}
    assert is_live() is False, "mp3, the default, is a file"
