"""The one-voice teacher `hibari-tts` (Apache-2.0; distilled from Kokoro-82M): 77 h of audio per core-hour."""

import numpy as np

from training.speakers import Speaker

SOURCE = "hibari-tts"


class HibariTeacher:
    """Loading it takes about a second."""

    def __init__(self) -> None:
        try:
            from hibari import Hibari  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("synthetic speech needs its teacher: pip install hibari-tts==0.2.1") from error
        self.model = Hibari()

    def speak(self, spoken: str, speaker: Speaker, seed: int) -> np.ndarray:
        """The text read at speed / alpha, float32 at 24 kHz; played alpha times faster it is the speaker."""
        return self.model(spoken, speed=speaker.speed / speaker.alpha, seed=seed)
