"""Joining and leaving a batch, and that sequences do not depend on each other. The frames themselves are
tested by `test_cat_tts_generate`, on the same path."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cat_tts.config import tiny
from cat_tts.generation.continuation import Continuation
from cat_tts.generation.frame_decoder import FrameDecoder
from cat_tts.generation.sampling import SamplingOptions
from cat_tts.model.tts import CatTTS
from cat_tts.sequences.rows import frame_rows, positions, text_rows

GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)
SAMPLED = SamplingOptions(temperature=0.9, top_k=12, top_p=0.9, repetition_penalty=1.3)
OTHERS = SamplingOptions(temperature=1.2, top_k=0, top_p=1.0, decision_temperature=0.5)
SLOT, END, PAD = 3, 2, 32


@pytest.fixture(params=["plain", "adapters"])
def model(request: pytest.FixtureRequest) -> CatTTS:
    """Weights large enough for every input to matter; to continue or to stop is the toss of a loaded coin."""
    published = {"adapter_dim": 20, "full_text_head": True, "time_aligned_positions": False}
    config = tiny() if request.param == "plain" else replace(tiny(), **published)
    model = CatTTS(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.25)
        model.depth.decision_head.weight.mul_(0.1)
    return model


def request(model: CatTTS, text: int, frames: int, **settings: Any) -> Continuation:
    config = model.config
    ids = [*torch.randint(10, 300, (text,)).tolist(), config.tokens.audio_start]
    codes = torch.randint(config.codebook_size, (frames, config.num_codebooks))
    rows = torch.cat([text_rows(config, ids), frame_rows(config, codes, config.tokens.slot)])
    settings = {"depth": 4, "seed": 0, "max_frames": 12, "min_frames": 12, "options": SAMPLED, **settings}
    return Continuation(rows=rows, positions=positions(config, rows, 2.5), **settings)


def with_voices(model: CatTTS, requests: list[Continuation]) -> list[Continuation]:
    """Let the model read voice vectors, and give each request one of its own, but for the second."""
    model.add_speaker_projection(8)
    assert model.speaker_projection is not None
    model.speaker_projection.weight.detach().normal_(std=0.25)
    speakers = torch.nn.functional.normalize(torch.randn(len(requests), 8), dim=1)
    return [replace(each, speaker=None if i == 1 else speakers[i]) for i, each in enumerate(requests)]


def decode_alone(model: CatTTS, continuation: Continuation) -> Tensor:
    decoder, rows = FrameDecoder[None](model), []
    sequence = decoder.join(continuation, None)
    while not sequence.ended:
        decoder.step()
        rows.append(sequence.row)
    return torch.stack(rows)


def mixed_requests(model: CatTTS) -> list[Continuation]:
    """Requests that have nothing in common."""
    return [
        request(model, 9, 4, depth=4, seed=3),
        request(model, 3, 0, depth=6, seed=5, options=GREEDY, max_frames=20),
        request(model, 30, 5, depth=1, seed=2, options=OTHERS, min_frames=2, max_frames=30),
        request(model, 5, 2, depth=3, seed=-9, max_frames=3),
        request(model, 1, 8, depth=6, seed=2**40, options=OTHERS, max_frames=9),
        request(model, 250, 8, depth=2, seed=1, options=replace(SAMPLED, top_k=1, guidance=3.0)),
        request(model, 6, 3, depth=5, seed=8, options=replace(OTHERS, guidance=1.5), max_frames=6),
    ]


@pytest.mark.parametrize("voices", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_sequences_do_not_depend_on_one_another(model: CatTTS, static: bool, voices: bool) -> None:
    """They join at different times, outlast each other, reuse others' slots, and one is removed."""
    requests = mixed_requests(model)
    if voices:
        without, requests = requests, with_voices(model, requests)
        same = [
            torch.equal(*(decode_alone(model, each) for each in pair))
            for pair in zip(without, requests, strict=True)
        ]
        assert same[1] and not any(same[2:]), "a voice changed nothing"
    waiting, results = list(range(len(requests))), {i: [] for i in range(len(requests))}
    decoder, steps, most = FrameDecoder[int](model, slots=3), 0, 0
    decoder.static = static
    while waiting or decoder.active:
        if waiting and decoder.free and steps % 2 == 0:
            i = waiting.pop(0)
            assert decoder.join(requests[i], i) is decoder.active[-1]
        assert decoder.free == 3 - len(decoder.active)
        most = max(most, len(decoder.active))
        for sequence in decoder.step():
            results[sequence.owner].append(sequence.row)
            if sequence.ended or (sequence.owner == 1 and steps == 9):
                decoder.leave(sequence)
        steps += 1
    assert most == 3 and 0 < len(results[1]) < 20
    for i, continuation in enumerate(requests):
        expected = decode_alone(model, continuation)
        if i == 1:
            expected = expected[: len(results[1])]
        assert torch.equal(torch.stack(results[i]), expected), i


@pytest.mark.gpu
def test_graphs_give_the_same_frames(model: CatTTS) -> None:
    """Recorded, as on CUDA by default, and not."""
    continuation, model = mixed_requests(model)[:3], model.to("cuda")
    results = []
    for static in (True, False):
        decoder = FrameDecoder[list[Tensor]](model, slots=3)
        decoder.static = static
        rows = [decoder.join(each, []).owner for each in continuation]
        while decoder.active:
            for sequence in decoder.step():
                sequence.owner.append(sequence.row)
                if sequence.ended:
                    decoder.leave(sequence)
        results.append([torch.stack(each) for each in rows])
    for recorded, eager in zip(*results, strict=True):
        assert torch.equal(recorded, eager)


def test_order(model: CatTTS) -> None:
    """Sequences join at the end, and the last one takes the place of one that leaves."""
    decoder = FrameDecoder[str](model, slots=3)
    assert (decoder.free, decoder.active, decoder.step()) == (3, [], [])
    first, second, third = (
        decoder.join(request(model, 3, 2, max_frames=frames), f"of {frames}") for frames in (2, 5, 6)
    )
    assert decoder.active == [first, second, third] and decoder.free == 0
    assert decoder.step() == [first, second, third] and not first.ended
    assert decoder.step() == [first, second, third] and first.ended and not second.ended
    with pytest.raises(AssertionError, match="an ended sequence has not left"):
        decoder.step()
    assert decoder.leave(first) == 0 and decoder.active == [third, second]
    assert decoder.leave(second) == 1 and decoder.free == 2
    fourth = decoder.join(request(model, 2, 2), "new")
    assert [sequence.owner for sequence in decoder.step()] == ["of 6", "new"]
    assert (third.frames, fourth.frames) == (3, 1)
    decoder.clear()
    assert (decoder.free, decoder.active) == (3, [])


def test_a_sequence_ends_where_the_model_stops(model: CatTTS) -> None:
    model.depth.decision_head.weight.detach().zero_()
    rows = decode_alone(model, request(model, 3, 2, depth=3, min_frames=2, max_frames=50))
    assert 2 < len(rows) < 50
    assert (rows[:-1, 0] == SLOT).all() and (rows[:-1, 1:] < PAD).all()
    assert rows[-1].tolist() == [END, PAD, PAD, PAD]


def test_first_layers_of_the_first_frame_are_equal_at_every_depth(model: CatTTS) -> None:
    """Given the same state; later frames read all layers of the earlier ones, so their states differ."""
    model.code_embeddings[5].weight.detach().zero_()
    for table in model.code_embeddings:
        table.weight.detach()[PAD] = 0
    continuation = request(model, 6, 0, depth=6)
    deep, same, shallow = (decode_alone(model, replace(continuation, depth=depth)) for depth in (6, 5, 2))
    assert torch.equal(deep[:, :6], same), "layer 6 was results to be unread"
    assert torch.equal(deep[0, :3], shallow[0])


def test_forced_codes_are_used_and_completed(model: CatTTS) -> None:
    """Forced by its own first codebooks, a sequence is itself again; it ends where they end, never before."""
    continuation = request(model, 6, 3, depth=6, max_frames=9)
    whole = decode_alone(model, continuation)
    ends = replace(continuation, min_frames=1, max_frames=40)
    assert torch.equal(decode_alone(model, replace(ends, forced=whole[:7, 1:4])), whole[:7])
    other = decode_alone(model, replace(ends, forced=(whole[:7, 1:4] + 1) % PAD))
    assert torch.equal(other[:, 1:4], (whole[:7, 1:4] + 1) % PAD)
    assert len(other) == 7 and (other[:, 0] == SLOT).all()
    assert not torch.equal(other[:, 4:], whole[:7, 4:])


def test_the_cache_grows_in_blocks(model: CatTTS) -> None:
    decoder = FrameDecoder[None](model, slots=2)
    small = decoder.cache_bytes
    decoder.join(request(model, 250, 0, max_frames=20), None)
    assert decoder.cache_bytes == small
    for _ in range(8):
        decoder.step()
    assert decoder.temporal.capacity == 512 and decoder.cache_bytes > small


def test_bad_input(model: CatTTS) -> None:
    with pytest.raises(ValueError, match="slots=0: a decoder needs room"):
        FrameDecoder(model, slots=0)
    decoder = FrameDecoder[None](model)
    for depth in (0, 7):
        with pytest.raises(ValueError, match=f"depth={depth} but this model has 6 codebooks"):
            decoder.join(request(model, 1, 0, depth=depth), None)
    with pytest.raises(ValueError, match="max_frames=0"):
        decoder.join(request(model, 1, 0, max_frames=0), None)
    with pytest.raises(ValueError, match="this model reads no voice vectors"):
        decoder.join(replace(request(model, 1, 0), speaker=torch.ones(8)), None)
    assert decoder.free == 1
