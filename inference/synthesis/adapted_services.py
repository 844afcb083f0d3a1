"""Services of models that are tuned to voices, beside the one of the model as it is."""

import threading

from inference.synthesis.service import Service
from inference.synthesis.speaker_adaptation import tuned
from inference.voices.voice import Recent, Voice

KEPT = 4
"""Tuned models that are kept: each is as large as the model, and comes with an engine and a thread."""


class VoiceServices:
    """`service` for everybody, and one more for each of the voices that were last tuned to."""

    def __init__(self, service: Service, kept: int = KEPT) -> None:
        self.service = service
        self._tuned: Recent[Service] = Recent(kept, lambda _: 1, _finish)

    def of(self, voice: Voice, steps: int | None) -> Service:
        """The service of what is tuned to `voice` by `steps`, see `tuned`; for None, that of everybody.

        What is new takes a second or some; who asks for the same at once waits for it. ValueError as `tuned`.
        """
        if steps is None:
            return self.service

        def make() -> Service:
            engine = self.service.engine
            return Service(
                tuned(self.service.synthesizer, voice, steps),
                slots=engine.slots,
                waiting=engine.waiting,
                max_seconds=self.service.max_seconds,
                patience=self.service.patience,
            )

        return self._tuned.of((voice.key, voice.text, steps), make)


def _finish(service: Service) -> None:
    """Let it end what it is making, without waiting for that."""
    threading.Thread(target=service.close, kwargs={"finish": True}, daemon=True).start()
