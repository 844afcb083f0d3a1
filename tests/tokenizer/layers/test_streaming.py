from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokenizer.config import StageConfig, tiny
from tokenizer.layers.attention import attend, frequencies, rotary_factors, rotate
from tokenizer.layers.streaming import StageCache, capacity
from tokenizer.layers.transformer import Stage
from tokenizer.model import AudioTokenizer

CPU = torch.device("cpu")
SHORT_STREAM = replace(tiny(), context_seconds=0.32)
"""Windows of 4, 8, 16 and 32 steps: streams of a few frames are longer than their windows."""


def cache(window: int, batch: int = 1, layers: int = 1) -> StageCache:
    block = torch.zeros(layers, 2, batch, 2, capacity(window), 6, dtype=torch.float64)
    return StageCache(block, window, frequencies(6, 10_000.0, CPU))


def stage(window: int) -> Stage:
    shape = StageConfig(
        patch_size=1, input_dim=6, dim=16, output_dim=6, num_layers=2, num_heads=2, ffn_dim=32
    )
    built = Stage(shape, window, rope_period=100.0, layer_scale=0.5)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def tokenizer() -> AudioTokenizer:
    built = AudioTokenizer(SHORT_STREAM).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return built


def codes(batch: int, frames: int) -> Tensor:
    return torch.randint(32, (batch, frames, 6))


def close(mine: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 0.1, "silence would agree with anything"
    torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunks", [[90], [1] * 90, [5, 1, 9, 75], [2, 20, 68], [40, 17, 16, 17]])
@pytest.mark.parametrize("window", [1, 2, 6, 40, 200])
def test_chunks_of_any_length_equal_one_call(chunks: list[int], window: int) -> None:
    """Chunks fit behind the history, make it move, or are longer than the whole block."""
    q, k, v = (torch.randn(2, 2, 90, 6, dtype=torch.float64) for _ in range(3))
    state, parts, at = cache(window, 2), [], 0
    for steps in chunks:
        chunk = state.extend(steps)
        now = slice(at, at + steps)
        queries, keys, values = chunk.extend(0, torch.stack([q, k, v])[..., now, :])
        parts.append(attend(queries, keys, values, window, chunk.mask))
        at += steps
    torch.testing.assert_close(torch.cat(parts, 2), attend(q, k, v, window))
    assert (state.position, state.lengths) == (90, [90, 90])


def test_a_chunk_comes_behind_what_it_can_still_attend_to() -> None:
    state, step = cache(window=4), 0
    for steps in [2, 1, 1, 6, 15, 30, 1]:  # the block holds 3 + 16
        new = torch.arange(step, step + steps, dtype=torch.float64).view(1, 1, -1, 1).expand(1, 2, -1, 6)
        _, keys, values = state.extend(steps).extend(0, torch.stack([new, new, -new]))
        assert torch.equal(values, -keys)
        step += steps
        assert keys[0, 1, :, 3].tolist() == list(range(max(0, step - steps - 3), step))


def test_history_is_never_concatenated_and_memory_never_grows() -> None:
    state = cache(window=40)
    before, moved = state.block.data_ptr(), 0
    for _ in range(500):
        stop = state.stop
        _, keys, _ = state.extend(1).extend(0, torch.ones(3, 1, 2, 1, 6, dtype=torch.float64))
        assert keys.untyped_storage().data_ptr() == before
        moved += state.stop < stop + 1
    assert state.block.shape == (1, 2, 1, 2, 39 + 16, 6)
    assert moved == (500 - 1) // 16


def test_a_stream_of_days_is_as_exact_as_a_short_one() -> None:
    model, x = stage(8), torch.randn(1, 30, 6)
    late = model.cache(1)
    late._begin_block(10**8)
    torch.testing.assert_close(model(x, late), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [3, 12, 64])
def test_slots_begin_and_continue_at_any_time(window: int) -> None:
    model = stage(window)
    a, b, c = (torch.randn(1, n, 6) for n in (40, 25, 18))
    primed = model.cache(1)
    model(c[:, :8], primed)

    state, out = model.cache(2), []
    out.append(model(torch.cat([a[:, :15], torch.randn(1, 15, 6)]), state))
    state.reset(1)  # b begins while a continues
    out.append(model(torch.cat([a[:, 15:30], b[:, :15]]), state))
    state.reset(0)  # a ends here, b continues, a second b begins
    out.append(model(torch.cat([b[:, :10], b[:, 15:]]), state))
    state.load_state(1, primed)  # c continues from where its single stream was
    out.append(model(torch.cat([b[:, 10:20], c[:, 8:]]), state))

    slot0, slot1 = torch.cat(out, 1)
    for outputs, first, whole, begin in [
        (slot0, 0, a[:, :30], 0),
        (slot0, 30, b[:, :20], 0),
        (slot1, 15, b, 0),
        (slot1, 40, c, 8),
    ]:
        single = model(whole)[0, begin:]
        torch.testing.assert_close(outputs[first : first + len(single)], single, atol=1e-5, rtol=1e-5)


def test_a_single_stream_is_not_changed_by_load_state() -> None:
    model, x = stage(6), torch.randn(1, 20, 6)
    primed, state = model.cache(1), model.cache(3)
    model(x[:, :12], primed)
    duplicate = primed.copy()
    for slot in (0, 2):
        state.load_state(slot, primed)
    model(torch.randn(3, 5, 6), state)
    model(torch.randn(1, 30, 6), duplicate)
    torch.testing.assert_close(model(x[:, 12:], primed), model(x)[:, 12:], atol=1e-5, rtol=1e-5)


def test_rotating_twice_is_rotating_by_the_sum() -> None:
    """This is what `load_state` relies on."""
    x, speed = torch.randn(1, 1, 1, 8), frequencies(8, 100.0, CPU)
    by = [rotary_factors(n, 1, speed) for n in (7, -19, -12)]
    torch.testing.assert_close(rotate(rotate(x, by[0]), by[1]), rotate(x, by[2]))


@torch.no_grad()
def test_decoder_slots_join_leave_and_load() -> None:
    """Three slots of a batched stream, frames in ragged chunks: each sounds as a single stream."""
    model = tokenizer()
    long, first, second, prompt, rest = (codes(1, n) for n in (24, 7, 11, 6, 9))
    depth = {"long": 6, "first": 2, "second": 5, "rest": 3}
    primed = model.decoder_cache()
    model.decode(prompt[..., : depth["rest"]], primed)

    timeline = {  # slot: (streams, frame at which each begins)
        0: [("long", long, 0, 0)],
        1: [("first", first, 2, 0), ("second", second, 10, 0)],
        2: [("rest", rest, 5, 1)],
    }
    frames, depths = codes(3, 24), torch.ones(3, 24, dtype=torch.long)
    for slot, streams in timeline.items():
        for name, stream_codes, begin, _ in streams:
            span = slice(begin, begin + stream_codes.shape[1])
            frames[slot, span, : depth[name]] = stream_codes[0, :, : depth[name]]
            frames[slot, span, depth[name] :] = 99  # no code at all
            depths[slot, span] = depth[name]

    cache, out, at = model.decoder_cache(3), [], 0
    for steps in [2, 1, 2, 3, 1, 1, 4, 7, 3]:
        for slot, streams in timeline.items():
            for _, _, begin, loads in streams:
                if begin == at and loads:
                    cache.load_state(slot, primed)
                elif begin == at:
                    cache.reset(slot)
        span = slice(at, at + steps)
        out.append(model.decode(frames[:, span], cache, depths[:, at]))
        at += steps
    audio = torch.cat(out, 1).unflatten(1, (24, -1))
    for slot, streams in timeline.items():
        for name, stream_codes, begin, loads in streams:
            whole = torch.cat([prompt, stream_codes], 1) if loads else stream_codes
            single = model.decode(whole[..., : depth[name]]).unflatten(1, (whole.shape[1], -1))[0]
            single = single[whole.shape[1] - stream_codes.shape[1] :]
            close(audio[slot, begin : begin + stream_codes.shape[1]], single)


@torch.no_grad()
def test_encoder_slots_reset_too() -> None:
    model, x = tokenizer(), 0.3 * torch.randn(2, 12 * 1920)
    cache, begin = model.encoder_cache(2), 5 * 1920
    early = model.encode(x[:, :begin], cache=cache)
    cache.reset(1)
    late = model.encode(x[:, begin:], cache=cache)
    assert torch.equal(torch.cat([early, late], 1)[0], model.encode(x[:1])[0])
    assert torch.equal(late[1], model.encode(x[1:, begin:])[0])


def test_copies_are_independent() -> None:
    model, frames = tokenizer(), codes(1, 12)
    cache = model.decoder_cache()
    model.decode(frames[:, :4], cache)
    other = cache.copy()
    model.decode(codes(1, 9), other)
    streamed = model.decode(frames[:, 4:], cache)
    close(streamed, model.decode(frames)[:, 4 * 1920 :])


def test_streams_keep_the_codebooks_they_began_with() -> None:
    """Weights changed since then change the next call, and the next stream: no table is out of date."""
    model, frames = tokenizer(), codes(1, 3)
    before, cache = model.decode(frames), model.decoder_cache()
    with torch.no_grad():
        for layer in model.quantizer.layers:
            layer.codebook.weight.neg_()
    close(model.decode(frames, cache), before)
    assert (model.decode(frames) - before).abs().max() > 0.1
    torch.testing.assert_close(model.decode(frames, model.decoder_cache()), model.decode(frames))


def test_only_a_single_stream_can_be_loaded() -> None:
    model = tokenizer()
    with pytest.raises(ValueError, match="a slot holds one stream, not 2: give a cache of batch 1"):
        model.decoder_cache(2).load_state(0, model.decoder_cache(2))


@torch.no_grad()
@pytest.mark.parametrize("window", [3, 12, 64])
def test_the_first_slots_continue_and_the_last_one_fills_a_gap(window: int) -> None:
    """A batch that shrinks when a stream ends and grows when another is loaded."""
    model = stage(window)
    a, b, c, d = (torch.randn(1, n, 6) for n in (30, 12, 30, 20))
    primed = model.cache(1)
    model(d[:, :9], primed)
    state = model.cache(3)
    batched = model(torch.cat([a[:, :12], b, c[:, :12]]), state)
    state.move(2, 1)  # b has ended: c is in slot 1 now
    two = model(torch.cat([a[:, 12:19], c[:, 12:19]]), state)
    assert state.lengths == [19, 19, 0]
    state.load_state(2, primed.snapshot())
    three = model(torch.cat([a[:, 19:], c[:, 19:], d[:, 9:]]), state)
    for parts, whole, begin in [
        ([batched[0], two[0], three[0]], a, 0),
        ([batched[1]], b, 0),
        ([batched[2], two[1], three[1]], c, 0),
        ([three[2]], d, 9),
    ]:
        torch.testing.assert_close(torch.cat(parts), model(whole)[0, begin:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("begin", [0, 9])
def test_a_single_stream_is_the_same_to_the_bit_whatever_was_before(begin: int) -> None:
    model, x = stage(6), torch.randn(1, 20, 6)
    primed = model.cache(1)
    model(x[:, :9], primed)
    history = primed.snapshot()
    state, outputs = model.cache(2), []
    for before in (0, 5, 33):
        if before:
            model(torch.randn(2, before, 6), state)
        state.reset(0)
        state.reset(1)
        if begin:
            state.load_state(0, history)
        outputs.append(torch.cat([model(step, state) for step in x[:, begin:].split(1, 1)], 1))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_a_snapshot_takes_no_more_memory_than_the_window() -> None:
    model = tokenizer()
    short, long = model.decoder_cache(), model.decoder_cache()
    model.decode(codes(1, 2), short)
    model.decode(codes(1, 40), long)
    # Windows of 4, 8, 16 and 32 steps at 1, 2, 4 and 8 steps a frame; 4 bytes, keys and values.
    widths = [32, 16, 16, 16]
    assert short.snapshot().nbytes == 8 * sum(w * 2 * 2**i for i, w in enumerate(widths))
    assert long.snapshot().nbytes == 8 * sum(w * (4 * 2**i - 1) for i, w in enumerate(widths))
