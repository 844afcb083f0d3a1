"""A result equals its stream: samples do not depend on chunks, and closing cancels the rest."""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts import SamplingOptions
from inference import SynthesisResult, SynthesisStream, Synthesizer, Voice
from inference.engine.job import StopReason
from inference.engine.options import UNWATCHED, SynthesisOptions
from inference.synthesis.runner import LocalRunner

PROMPT_TEXT, TEXT = "What the recording says.", "Good morning, old fox."
NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, voice: np.ndarray) -> Voice:
    return synthesizer.load_voice((voice, 24_000), PROMPT_TEXT)


@pytest.mark.parametrize("depth", [1, 6])
@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 400])
def test_a_stream_equals_the_result_to_the_bit(
    synthesizer: Synthesizer, speaker: Voice, chunk: int, depth: int
) -> None:
    result = synthesizer.synthesize(
        TEXT,
        speaker,
        SynthesisOptions(depth=depth, seed=5, sampling=NEVER_STOP, max_seconds=1.04, policy=UNWATCHED),
    )
    stream = synthesizer.stream(
        TEXT,
        speaker,
        SynthesisOptions(depth=depth, seed=5, sampling=NEVER_STOP, max_seconds=1.04, policy=UNWATCHED),
        chunk_frames=chunk,
    )
    chunks = list(stream)
    frames = [len(part) / 1920 for part in chunks]
    assert frames[:-1] == [chunk] * (len(frames) - 1) and sum(frames) == len(result.codes) == 13
    assert all(part.dtype == np.float32 for part in chunks)
    assert np.concatenate(chunks).tobytes() == result.audio.tobytes() == stream.result.audio.tobytes()
    assert torch.equal(stream.result.codes, result.codes)
    assert (stream.result.stop_reason, stream.frames, stream.sample_rate) == ("limit", 13, 24_000)
    assert np.ptp(result.audio) > 0.5, "silence is the same in any chunks"


def test_audio_comes_before_the_result_is_complete(synthesizer: Synthesizer, speaker: Voice) -> None:
    with synthesizer.stream(
        TEXT, speaker, SynthesisOptions(sampling=NEVER_STOP, max_seconds=0.8, policy=UNWATCHED)
    ) as stream:
        first = next(stream)
        assert (len(first), stream.frames) == (1920, 1)
        with pytest.raises(
            ValueError, match="the result is not complete: read its stream to the end, or close it"
        ):
            _ = stream.result
        assert stream.collect().audio[:1920].tobytes() == first.tobytes()


def test_the_result_of_a_closed_stream_is_what_was_returned(synthesizer: Synthesizer, speaker: Voice) -> None:
    whole = synthesizer.synthesize(
        TEXT, speaker, SynthesisOptions(seed=1, sampling=NEVER_STOP, max_seconds=0.8, policy=UNWATCHED)
    )
    stream = synthesizer.stream(
        TEXT, speaker, SynthesisOptions(seed=1, sampling=NEVER_STOP, max_seconds=0.8, policy=UNWATCHED)
    )
    received = [next(stream), next(stream), next(stream)]
    stream.close()
    stream.close()
    assert list(stream) == []
    assert stream.result.stop_reason == "cancelled" and torch.equal(stream.result.codes, whole.codes[:3])
    assert (
        stream.result.audio.tobytes()
        == np.concatenate(received).tobytes()
        == whole.audio[: 3 * 1920].tobytes()
    )


def test_an_unread_stream_has_an_empty_result(synthesizer: Synthesizer, speaker: Voice) -> None:
    stream = synthesizer.stream(TEXT, speaker, SynthesisOptions(depth=2, policy=UNWATCHED))
    stream.close()
    result = stream.result
    assert (result.audio.shape, result.codes.shape, result.stop_reason) == ((0,), (0, 2), "cancelled")


def opened(synthesizer: Synthesizer, speaker: Voice, seed: int) -> SynthesisStream:
    return synthesizer.stream(
        TEXT, speaker, SynthesisOptions(seed=seed, sampling=NEVER_STOP, max_seconds=0.8, policy=UNWATCHED)
    )


def test_open_streams_do_not_mix(synthesizer: Synthesizer, speaker: Voice) -> None:
    separate = [opened(synthesizer, speaker, seed).collect() for seed in range(3)]
    streams = [opened(synthesizer, speaker, seed) for seed in range(3)]
    received: list[list[np.ndarray]] = [[], [], []]
    for _ in range(10):
        for parts, stream in zip(received[::-1], streams[::-1], strict=True):
            parts.append(next(stream))
    for parts, result in zip(received, separate, strict=True):
        assert np.concatenate(parts).tobytes() == result.audio.tobytes()


def test_closed_and_dropped_streams_block_nothing(synthesizer: Synthesizer, speaker: Voice) -> None:
    separate = opened(synthesizer, speaker, 0).collect()
    with opened(synthesizer, speaker, 1) as left:
        next(left)
    assert left.result.stop_reason == "cancelled"
    forgotten = opened(synthesizer, speaker, 2)
    next(forgotten)
    del forgotten
    gc.collect()
    again = opened(synthesizer, speaker, 0)
    assert next(again).tobytes() == separate.audio[:1920].tobytes()
    assert again.collect().audio.tobytes() == separate.audio.tobytes()


def test_a_guard_gets_every_frame_and_may_end_the_request(synthesizer: Synthesizer, speaker: Voice) -> None:
    frames: list[tuple[torch.Tensor, np.ndarray]] = []

    def guard(codes: torch.Tensor, audio: np.ndarray) -> StopReason | None:
        frames.append((codes, audio))
        return "silence" if len(frames) == 4 else None

    options = SynthesisOptions(depth=3, sampling=NEVER_STOP, max_seconds=0.8)
    request = synthesizer.request(TEXT, speaker, options)
    result = LocalRunner(synthesizer).stream(request, guard=guard).collect()
    assert (result.stop_reason, len(result.codes)) == ("silence", 4)
    assert torch.equal(torch.stack([codes for codes, _ in frames]), result.codes)
    assert np.concatenate([audio for _, audio in frames]).tobytes() == result.audio.tobytes()


def test_an_error_in_a_guard_ends_its_request(synthesizer: Synthesizer, speaker: Voice) -> None:
    def guard(codes: torch.Tensor, audio: np.ndarray) -> StopReason | None:
        raise ZeroDivisionError("of the guard")

    stream = LocalRunner(synthesizer).stream(synthesizer.request(TEXT, speaker), guard=guard)
    assert len(next(stream)) == 1920, "the frame was there before the guard failed"
    with pytest.raises(ZeroDivisionError, match="of the guard"):
        next(stream)
    with pytest.raises(ZeroDivisionError):
        _ = stream.result
    assert opened(synthesizer, speaker, 0).collect().stop_reason == "limit"


@pytest.mark.parametrize("chunk", [0, -1, 1.5, None, True])
def test_invalid_chunk_sizes(synthesizer: Synthesizer, speaker: Voice, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"^chunk_frames={chunk}: give a whole number"):
        synthesizer.stream(TEXT, speaker, SynthesisOptions(policy=UNWATCHED), chunk_frames=chunk)


@pytest.mark.parametrize("sampling", [SamplingOptions(), SamplingOptions(temperature=0)])
@pytest.mark.parametrize(("first_depth", "depth"), [(1, 6), (2, 3), (3, 3), (4, 2), (3, None)])
def test_extend_depth(
    synthesizer: Synthesizer, speaker: Voice, sampling: SamplingOptions, first_depth: int, depth: int | None
) -> None:
    """The codes and the number of frames are kept; what is added is sampled with the seed."""
    first = synthesizer.synthesize(
        TEXT, speaker, SynthesisOptions(depth=first_depth, seed=7, sampling=sampling, policy=UNWATCHED)
    )
    extended, again = (synthesizer.extend_depth(first, depth) for _ in range(2))
    common = min(first_depth, depth or 6)
    assert extended.codes.shape == (len(first.codes), depth or 6)
    assert torch.equal(extended.codes[:, :common], first.codes[:, :common])
    assert torch.equal(extended.codes, again.codes) and extended.audio.tobytes() == again.audio.tobytes()
    assert (extended.stop_reason, extended.seed, extended.depth) == (first.stop_reason, 7, depth or 6)
    if depth == first_depth:
        assert extended.audio.tobytes() == first.audio.tobytes()


def test_added_codebooks_depend_on_the_seed(synthesizer: Synthesizer, speaker: Voice) -> None:
    """A result at full depth is not changed; another seed adds other codes to the same first codebooks."""
    full = opened(synthesizer, speaker, 3).collect()
    again = synthesizer.extend_depth(full)
    assert torch.equal(again.codes, full.codes) and again.audio.tobytes() == full.audio.tobytes()
    shallow = synthesizer.synthesize(
        TEXT,
        speaker,
        SynthesisOptions(depth=2, seed=3, sampling=NEVER_STOP, max_seconds=0.4, policy=UNWATCHED),
    )
    assert shallow.request is not None
    other = synthesizer.extend_depth(replace(shallow, request=shallow.request.changed(seed=4)))
    assert torch.equal(other.codes[:, :2], shallow.codes)
    assert not torch.equal(other.codes, synthesizer.extend_depth(shallow).codes)


def test_results_without_their_request_cannot_be_extended(synthesizer: Synthesizer) -> None:
    joined = SynthesisResult(
        audio=np.zeros(1920, np.float32),
        sample_rate=24_000,
        codes=torch.zeros(1, 6).long(),
        depth=6,
        bitrate=375.0,
        seed=0,
        stop_reason="end",
    )
    with pytest.raises(ValueError, match="has no request"):
        synthesizer.extend_depth(joined)
