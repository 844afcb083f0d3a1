"""A take is its stream: the same samples whatever the chunks, and whatever was left of it cancelled."""

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts import SamplingOptions
from inference import Synthesizer, Take, TakeStream, Voice
from inference.engine.job import StopReason

WORDS, TEXT = "What the recording says.", "Good morning, old fox."
NEVER_STOP = SamplingOptions(decision_temperature=0)


@pytest.fixture(scope="module")
def synthesizer(bundle: Path) -> Synthesizer:
    return Synthesizer.from_pretrained(bundle, device="cpu")


@pytest.fixture(scope="module")
def speaker(synthesizer: Synthesizer, voice: np.ndarray) -> Voice:
    return synthesizer.voice((voice, 24_000), WORDS)


@pytest.mark.parametrize("depth", [1, 6])
@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 400])
def test_a_stream_is_the_take_to_the_bit(
    synthesizer: Synthesizer, speaker: Voice, chunk: int, depth: int
) -> None:
    take = synthesizer.take(TEXT, speaker, depth=depth, seed=5, sampling=NEVER_STOP, max_seconds=1.04)
    stream = synthesizer.stream(
        TEXT, speaker, depth=depth, seed=5, sampling=NEVER_STOP, max_seconds=1.04, chunk_frames=chunk
    )
    chunks = list(stream)
    frames = [len(part) / 1920 for part in chunks]
    assert frames[:-1] == [chunk] * (len(frames) - 1) and sum(frames) == len(take.codes) == 13
    assert all(part.dtype == np.float32 for part in chunks)
    assert np.concatenate(chunks).tobytes() == take.audio.tobytes() == stream.take.audio.tobytes()
    assert torch.equal(stream.take.codes, take.codes)
    assert (stream.take.stop_reason, stream.frames, stream.sample_rate) == ("limit", 13, 24_000)
    assert np.ptp(take.audio) > 0.5, "silence is the same in any chunks"


def test_audio_comes_before_the_take_is_over(synthesizer: Synthesizer, speaker: Voice) -> None:
    with synthesizer.stream(TEXT, speaker, sampling=NEVER_STOP, max_seconds=0.8) as stream:
        first = next(stream)
        assert (len(first), stream.frames) == (1920, 1)
        with pytest.raises(ValueError, match="the take is not over: read its stream to the end, or close it"):
            _ = stream.take
        assert stream.collect().audio[:1920].tobytes() == first.tobytes()


def test_what_a_closed_stream_has_handed_out_is_its_take(synthesizer: Synthesizer, speaker: Voice) -> None:
    whole = synthesizer.take(TEXT, speaker, seed=1, sampling=NEVER_STOP, max_seconds=0.8)
    stream = synthesizer.stream(TEXT, speaker, seed=1, sampling=NEVER_STOP, max_seconds=0.8)
    heard = [next(stream), next(stream), next(stream)]
    stream.close()
    stream.close()
    assert list(stream) == []
    assert stream.take.stop_reason == "cancelled" and torch.equal(stream.take.codes, whole.codes[:3])
    assert stream.take.audio.tobytes() == np.concatenate(heard).tobytes() == whole.audio[: 3 * 1920].tobytes()


def test_a_stream_that_nobody_read_is_an_empty_take(synthesizer: Synthesizer, speaker: Voice) -> None:
    stream = synthesizer.stream(TEXT, speaker, depth=2)
    stream.close()
    take = stream.take
    assert (take.audio.shape, take.codes.shape, take.stop_reason) == ((0,), (0, 2), "cancelled")


def opened(synthesizer: Synthesizer, speaker: Voice, seed: int) -> TakeStream:
    return synthesizer.stream(TEXT, speaker, seed=seed, sampling=NEVER_STOP, max_seconds=0.8)


def test_streams_that_are_open_together_do_not_mix(synthesizer: Synthesizer, speaker: Voice) -> None:
    alone = [opened(synthesizer, speaker, seed).collect() for seed in range(3)]
    streams = [opened(synthesizer, speaker, seed) for seed in range(3)]
    heard: list[list[np.ndarray]] = [[], [], []]
    for _ in range(10):
        for parts, stream in zip(heard[::-1], streams[::-1], strict=True):
            parts.append(next(stream))
    for parts, take in zip(heard, alone, strict=True):
        assert np.concatenate(parts).tobytes() == take.audio.tobytes()


def test_left_and_forgotten_streams_hold_up_nobody(synthesizer: Synthesizer, speaker: Voice) -> None:
    alone = opened(synthesizer, speaker, 0).collect()
    with opened(synthesizer, speaker, 1) as left:
        next(left)
    assert left.take.stop_reason == "cancelled"
    forgotten = opened(synthesizer, speaker, 2)
    next(forgotten)
    del forgotten
    gc.collect()
    again = opened(synthesizer, speaker, 0)
    assert next(again).tobytes() == alone.audio[:1920].tobytes()
    assert again.collect().audio.tobytes() == alone.audio.tobytes()


def test_a_guard_sees_every_frame_and_may_end_the_take(synthesizer: Synthesizer, speaker: Voice) -> None:
    seen: list[tuple[torch.Tensor, np.ndarray]] = []

    def guard(codes: torch.Tensor, audio: np.ndarray) -> StopReason | None:
        seen.append((codes, audio))
        return "silence" if len(seen) == 4 else None

    take = synthesizer.take(TEXT, speaker, depth=3, sampling=NEVER_STOP, max_seconds=0.8, guard=guard)
    assert (take.stop_reason, len(take.codes)) == ("silence", 4)
    assert torch.equal(torch.stack([codes for codes, _ in seen]), take.codes)
    assert np.concatenate([audio for _, audio in seen]).tobytes() == take.audio.tobytes()


def test_a_guard_that_fails_fails_its_take(synthesizer: Synthesizer, speaker: Voice) -> None:
    def guard(codes: torch.Tensor, audio: np.ndarray) -> StopReason | None:
        raise ZeroDivisionError("of the guard")

    stream = synthesizer.stream(TEXT, speaker, guard=guard)
    assert len(next(stream)) == 1920, "the frame was there before the guard failed"
    with pytest.raises(ZeroDivisionError, match="of the guard"):
        next(stream)
    with pytest.raises(ZeroDivisionError):
        _ = stream.take
    assert opened(synthesizer, speaker, 0).collect().stop_reason == "limit"


@pytest.mark.parametrize("chunk", [0, -1])
def test_chunks_that_cannot_be(synthesizer: Synthesizer, speaker: Voice, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"^chunk_frames={chunk}: give how many"):
        synthesizer.stream(TEXT, speaker, chunk_frames=chunk)


@pytest.mark.parametrize("sampling", [SamplingOptions(), SamplingOptions(temperature=0)])
@pytest.mark.parametrize(("draft", "depth"), [(1, 6), (2, 3), (3, 3), (4, 2), (3, None)])
def test_master(
    synthesizer: Synthesizer, speaker: Voice, sampling: SamplingOptions, draft: int, depth: int | None
) -> None:
    """The draft's layers stay, as many frames as it has; what is added is drawn with its seed."""
    first = synthesizer.take(TEXT, speaker, depth=draft, seed=7, sampling=sampling)
    master, again = (synthesizer.master(first, depth) for _ in range(2))
    common = min(draft, depth or 6)
    assert master.codes.shape == (len(first.codes), depth or 6)
    assert torch.equal(master.codes[:, :common], first.codes[:, :common])
    assert torch.equal(master.codes, again.codes) and master.audio.tobytes() == again.audio.tobytes()
    assert (master.stop_reason, master.seed, master.depth) == (first.stop_reason, 7, depth or 6)
    if depth == draft:
        assert master.audio.tobytes() == first.audio.tobytes()


def test_what_a_master_adds_follows_the_seed(synthesizer: Synthesizer, speaker: Voice) -> None:
    """A take at full depth, mastered, is itself; another seed adds other codes to the same draft."""
    full = opened(synthesizer, speaker, 3).collect()
    again = synthesizer.master(full)
    assert torch.equal(again.codes, full.codes) and again.audio.tobytes() == full.audio.tobytes()
    draft = synthesizer.take(TEXT, speaker, depth=2, seed=3, sampling=NEVER_STOP, max_seconds=0.4)
    assert draft.request is not None
    other = synthesizer.master(replace(draft, request=replace(draft.request, seed=4)))
    assert torch.equal(other.codes[:, :2], draft.codes)
    assert not torch.equal(other.codes, synthesizer.master(draft).codes)


def test_takes_that_have_nothing_to_master(synthesizer: Synthesizer) -> None:
    joined = Take(
        audio=np.zeros(1920, np.float32),
        sample_rate=24_000,
        codes=torch.zeros(1, 6).long(),
        depth=6,
        bitrate=375.0,
        seed=0,
        stop_reason="end",
    )
    with pytest.raises(ValueError, match="does not say what it answers"):
        synthesizer.master(joined)
