"""What the stopping rules detect as runaway speech, and what not."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from inference import Synthesizer
from inference.engine.options import SynthesisOptions
from inference.engine.stopping_rules import Repetition, Silence, Thresholds, runaway_guard
from inference.synthesis.runner import LocalRunner

THRESHOLDS = Thresholds()


def first_alarm(
    detector: Repetition | Silence, frames: Iterable[Tensor] | Iterable[np.ndarray]
) -> int | None:
    """Return the number of frames until the detector reports, or None."""
    for count, frame in enumerate(frames, 1):
        if reason := detector.feed(frame):  # pyright: ignore[reportArgumentType]
            assert reason == ("repetition" if isinstance(detector, Repetition) else "silence")
            return count
    return None


def columns(first: list[int]) -> Tensor:
    """Return codes with this first codebook and a second one that never repeats."""
    return torch.stack([torch.tensor(first), torch.arange(len(first))], 1)


def random_codes(count: int) -> list[int]:
    return torch.randint(1024, (count,), generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("period", [1, 2, 7, 25])
def test_periodic_codes(period: int) -> None:
    """Repetition is detected when the window and the period before it are periodic, wholly or nearly."""
    before, cycle = random_codes(50), [2000 + n for n in range(period)]
    alarm = first_alarm(Repetition(THRESHOLDS), columns(before + cycle * 99))
    assert alarm == 50 + period + 32  # 32 of 37 are the first share above 0.85


def test_nearly_periodic_codes() -> None:
    cycle = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] * 20
    slips = [2000 + n if n % 20 == 0 else code for n, code in enumerate(cycle)]
    assert first_alarm(Repetition(THRESHOLDS), columns(slips)) is not None
    slips = [2000 + n if n % 5 == 0 else code for n, code in enumerate(cycle)]
    assert first_alarm(Repetition(THRESHOLDS), columns(slips)) is None


def test_speech_is_not_periodic() -> None:
    """Random codes, a sentence spoken three times, a code for 1.5 s and a repeated word are accepted."""
    phrase = random_codes(60)
    assert first_alarm(Repetition(THRESHOLDS), columns(random_codes(3000))) is None
    assert first_alarm(Repetition(THRESHOLDS), columns(phrase + phrase + phrase)) is None
    assert first_alarm(Repetition(THRESHOLDS), columns([*phrase, *[7] * 19, *phrase])) is None
    assert first_alarm(Repetition(THRESHOLDS), columns(phrase[:20] * 2 + phrase[20:])) is None


def test_constant_codes() -> None:
    """26 equal frames are 25 that equal the one before; another code in any codebook restarts the count."""
    still = torch.tensor([[5, 6, 7]] * 60)
    assert first_alarm(Repetition(THRESHOLDS), still) == 26
    still[20, 2] = 0
    assert first_alarm(Repetition(Thresholds(window=99)), still) == 22 + 25


def levels(*parts: tuple[float, int]) -> list[np.ndarray]:
    """Return frames of a constant level in dBFS."""
    return [np.full(1920, 10 ** (db / 20), np.float32) for db, count in parts for _ in range(count)]


def test_silence_while_text_remains() -> None:
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-20, 30), (-61, 99))) == 30 + 37
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-20, 30), (-59, 99))) is None
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-10, 30), (-51, 99))) == 30 + 37
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-20, 30), (-61, 36), (-30, 1), (-61, 36))) is None


def test_silence_from_the_start_and_digital_silence() -> None:
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-61, 99))) == 37
    assert first_alarm(Silence(1000, THRESHOLDS), [np.zeros(1920, np.float32)] * 99) == 37
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-55, 99))) is None


def test_trailing_silence() -> None:
    """The shorter limit applies after the expected duration."""
    assert first_alarm(Silence(30, THRESHOLDS), levels((-20, 30), (-70, 99))) == 30 + 31
    assert first_alarm(Silence(65, THRESHOLDS), levels((-20, 30), (-70, 99))) == 66
    assert first_alarm(Silence(1000, THRESHOLDS), levels((-20, 30), (-70, 99))) == 30 + 37


def test_a_guard_ends_a_request(bundle: Path, prompt_file: Path) -> None:
    """It ends in the middle with its reason; without the guard the same frames are continued."""
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    text = "the lazy fox sleeps under the old tree near the river"
    voice = synthesizer.load_voice(prompt_file, "what the recording says")
    request = synthesizer.request(text, voice, SynthesisOptions(depth=2, seed=3, max_seconds=4.0))
    runner = LocalRunner(synthesizer)
    free = runner.stream(request).collect()
    strict = runaway_guard(text, Thresholds(quiet_db=-100, silent_frames=5, trailing_frames=5))
    stopped = runner.stream(request, guard=strict).collect()
    assert stopped.stop_reason == "silence" and len(stopped.codes) == 5
    assert torch.equal(stopped.codes, free.codes[:5])
    assert np.array_equal(stopped.audio, free.audio[: 5 * 1920])
    stopped = runner.stream(request, guard=runaway_guard(text, Thresholds(same_frames=0))).collect()
    assert stopped.stop_reason == "repetition" and len(stopped.codes) == 1
