import pytest

from inference.text.duration import expected_frames


@pytest.mark.parametrize(
    ("text", "frames"),
    [("abc", 2.7), (" a b\n", 2.7), ("你好", 6.2), ("こんにちは", 15.5), ("안녕", 6.2), ("ok 好", 2.7 + 3.1)],
)
def test_expected_frames(text: str, frames: float) -> None:
    assert expected_frames(text) == pytest.approx(frames)
