"""Models that are tuned to voices are made once, kept for a while, and finish what they are making."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts import SamplingOptions
from inference import Synthesizer
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.service import Service, ServiceClosed
from inference.synthesis.speaker_adaptation import tuned
from inference.voices.voice import Voice

NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture
def service(bundle: Path) -> Iterator[Service]:
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    with Service(synthesizer, slots=2, waiting=5, max_seconds=9, patience=7) as service:
        yield service


@pytest.fixture
def voices(service: Service, prompt_file: Path) -> list[Voice]:
    heard = service.synthesizer.voice(prompt_file, "What it says.")
    return [heard, replace(heard, codes=heard.codes.flip(0)), replace(heard, text="Something else.")]


def test_a_voice_is_tuned_to_once(service: Service, voices: list[Voice]) -> None:
    services = VoiceServices(service)
    assert services.of(voices[0], None) is service
    own = [services.of(voice, 2) for voice in voices]
    assert len({*own, service}) == 4
    assert [services.of(voice, 2) for voice in voices] == own and services.of(voices[0], 3) not in own
    for one in own:
        assert (one.engine.slots, one.engine.waiting, one.max_seconds, one.patience) == (2, 5, 9, 7)
    request = service.synthesizer.request("Good morning.", voices[1], depth=3)
    wanted = tuned(service.synthesizer, voices[1], 2).start(request).collect()
    assert torch.equal(own[1].take(request).codes, wanted.codes)


def test_the_oldest_ends_when_it_has_finished(service: Service, voices: list[Voice]) -> None:
    services = VoiceServices(service, kept=1)
    oldest = services.of(voices[0], 1)
    request = service.synthesizer.request(
        "Good morning.", voices[0], depth=3, max_seconds=2, sampling=NEVER_STOP
    )
    with oldest.stream(request) as stream:
        next(stream)
        newest = services.of(voices[1], 1)
        assert sum(1 for _ in stream) == 24
    assert stream.take.stop_reason == "limit"
    with pytest.raises(ServiceClosed):
        oldest.take(request)
    assert len(newest.take(replace(request, voice=voices[1])).codes) == 25
