"""Adapted models are created once, cached for a while, and finish their requests when evicted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts import SamplingOptions
from inference import Synthesizer
from inference.engine.options import SynthesisOptions
from inference.synthesis.adapted_services import VoiceServices
from inference.synthesis.runner import LocalRunner
from inference.synthesis.service import Service, ServiceClosed
from inference.synthesis.speaker_adaptation import adapt_to_speaker
from inference.voices.voice import Voice

NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture
def service(bundle: Path) -> Iterator[Service]:
    synthesizer = Synthesizer.from_pretrained(bundle, device="cpu")
    with Service(synthesizer, slots=2, waiting=5, max_seconds=9, patience=7) as service:
        yield service


@pytest.fixture
def voices(service: Service, prompt_file: Path) -> list[Voice]:
    voice = service.models.load_voice(prompt_file, "What it says.")
    return [voice, replace(voice, codes=voice.codes.flip(0)), replace(voice, text="Something else.")]


def test_a_model_is_adapted_once_per_voice(service: Service, voices: list[Voice]) -> None:
    services = VoiceServices(service)
    assert services.get(voices[0], 0) is service
    adapted = [services.get(voice, 2) for voice in voices]
    assert len({*adapted, service}) == 4
    assert [services.get(voice, 2) for voice in voices] == adapted and services.get(
        voices[0], 3
    ) not in adapted
    for one in adapted:
        assert (one.engine.slots, one.engine.waiting, one.max_seconds, one.patience) == (2, 5, 9, 7)
    request = service.models.request("Good morning.", voices[1], SynthesisOptions(depth=3))
    wanted = LocalRunner(adapt_to_speaker(service.models, voices[1], 2)).stream(request).collect()
    assert torch.equal(adapted[1].stream(request).collect().codes, wanted.codes)


def test_an_evicted_service_finishes_its_requests(service: Service, voices: list[Voice]) -> None:
    services = VoiceServices(service, max_adapted=1)
    oldest = services.get(voices[0], 1)
    request = service.models.request(
        "Good morning.", voices[0], SynthesisOptions(depth=3, max_seconds=2, sampling=NEVER_STOP)
    )
    with oldest.stream(request) as stream:
        next(stream)
        newest = services.get(voices[1], 1)
        assert sum(1 for _ in stream) == 24
    assert stream.result.stop_reason == "limit"
    with pytest.raises(ServiceClosed):
        oldest.stream(request)
    assert len(newest.stream(replace(request, voice=voices[1])).collect().codes) == 25
