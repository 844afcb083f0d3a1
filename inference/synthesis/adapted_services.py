"""Services of models that are adapted to speakers, beside the service of the unadapted model."""

import threading

from inference.synthesis.service import Service
from inference.synthesis.speaker_adaptation import adapt_to_speaker
from inference.voices.recent_cache import RecentCache
from inference.voices.voice import Voice

MAX_ADAPTED = 4
"""Adapted models that are cached: each is as large as the model, and has an engine and a thread."""


class VoiceServices:
    """The `service` of the unadapted model, and one more for each of the latest adapted voices."""

    def __init__(self, service: Service, max_adapted: int = MAX_ADAPTED) -> None:
        """Cache up to `max_adapted` services beside `service`."""
        self.service = service
        self._adapted: RecentCache[Service] = RecentCache(max_adapted, lambda _: 1, _close_later)

    def get(self, voice: Voice, steps: int) -> Service:
        """Return the service whose model is adapted to a voice.

        A new one takes some seconds; threads that request the same one at once wait for it.

        Args:
            voice: The voice with its transcript.
            steps: Training steps, see `adapt_to_speaker`; 0 returns the service of the unadapted model.

        Returns:
            A service that is open, and is closed when it is evicted from the cache.

        Raises:
            ValueError: as `adapt_to_speaker`.
        """
        if not steps:
            return self.service

        def create() -> Service:
            engine = self.service.engine
            return Service(
                adapt_to_speaker(self.service.models, voice, steps),
                slots=engine.slots,
                waiting=engine.waiting,
                max_seconds=self.service.max_seconds,
                patience=self.service.patience,
            )

        return self._adapted.get((voice.key, voice.text, steps), create)


def _close_later(service: Service) -> None:
    """Close a service after its running requests, without waiting for them."""
    threading.Thread(target=service.close, kwargs={"finish": True}, daemon=True).start()
