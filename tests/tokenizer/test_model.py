from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokenizer.config import TokenizerConfig, tiny
from tokenizer.model import AudioTokenizer

SHORT_STREAM = replace(tiny(), context_seconds=0.32)
"""Windows of 32, 16, 8 and 4 steps: a stream of a few frames is longer than its window."""
FRAME = 1920
CHUNKINGS = [[20], [1] * 20, [5, 1, 7, 2, 5], [3, 17]]  # the window at the frame rate is 4


def tokenizer(config: TokenizerConfig = SHORT_STREAM) -> AudioTokenizer:
    """Random weights with norms, biases and gains off their initial values."""
    built = AudioTokenizer(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return built


def audio(batch: int, frames: int) -> Tensor:
    return 0.3 * torch.randn(batch, frames * FRAME)


def reached(leaf: Tensor, step: int) -> list[int]:
    """Which runs of `step` elements of the first sample have a gradient."""
    assert leaf.grad is not None
    return leaf.grad[0].reshape(-1, step).abs().sum(-1).nonzero().flatten().tolist()


@pytest.mark.parametrize("frame", [0, 3, 11])
def test_encoder_reads_no_future(frame: int) -> None:
    x = audio(1, 12).requires_grad_()
    (tokenizer(tiny()).latents(x)[:, frame] * torch.randn(24)).sum().backward()
    assert reached(x, FRAME) == list(range(frame + 1))


@pytest.mark.parametrize("frame", [0, 3, 11])
def test_decoder_reads_no_future(frame: int) -> None:
    latents = torch.randn(1, 12, 24, requires_grad=True)
    samples = tokenizer(tiny()).synthesize(latents)[:, frame * FRAME : (frame + 1) * FRAME]
    (samples * torch.randn(FRAME)).sum().backward()
    assert reached(latents, 24) == list(range(frame + 1))


def test_encoder_reaches_back_one_window_a_stage() -> None:
    """Frame 20 sees frames 17.. (4 a window), so steps 34 - 7 = 27.. of 40 ms, 54 - 15 = 39.. of 20 ms,
    78 - 31 = 47.. of 10 ms, and nothing before."""
    x = audio(1, 23).requires_grad_()
    (tokenizer().latents(x)[:, 20] * torch.randn(24)).sum().backward()
    assert reached(x, 240) == list(range(47, 21 * 8))


def test_decoder_reaches_back_one_window_a_stage() -> None:
    """The last sample of frame 20 is in step 167 of 10 ms, which sees 136..; so 20 ms steps from
    68 - 15 = 53.., 40 ms steps from 26 - 7 = 19.., frames from 9 - 3 = 6.."""
    latents = torch.randn(1, 23, 24, requires_grad=True)
    tokenizer().synthesize(latents)[0, 21 * FRAME - 1].backward()
    assert reached(latents, 24) == list(range(6, 21))


@pytest.mark.parametrize("chunks", CHUNKINGS)
def test_streamed_encoding_equals_offline(chunks: list[int]) -> None:
    model, x = tokenizer(), audio(2, 20)
    chunked = x.split([n * FRAME for n in chunks], 1)
    cache = model.encoder_cache(2)
    torch.testing.assert_close(torch.cat([model.latents(p, cache) for p in chunked], 1), model.latents(x))
    cache = model.encoder_cache(2)
    codes = torch.cat([model.encode(p, cache=cache) for p in chunked], 1)
    assert torch.equal(codes, model.encode(x))


@pytest.mark.parametrize("chunks", CHUNKINGS)
def test_streamed_decoding_equals_offline(chunks: list[int]) -> None:
    model, codes = tokenizer(), torch.randint(32, (2, 20, 4))
    cache = model.decoder_cache(2)
    streamed = torch.cat([model.decode(part, cache) for part in codes.split(chunks, 1)], 1)
    offline = model.decode(codes)
    torch.testing.assert_close(streamed, offline, atol=1e-5, rtol=1e-5)
    assert offline.std() > 0.1, "silence would agree with anything"


def test_window_matters() -> None:
    """Otherwise the streaming tests above would pass with no window at all."""
    model, longer = tokenizer(), AudioTokenizer(tiny()).eval()
    longer.load_state_dict(model.state_dict())
    codes = torch.randint(32, (1, 20, 4))
    difference = (model.decode(codes) - longer.decode(codes)).abs()[0].view(20, FRAME).amax(-1)
    assert difference[0] < 1e-5 and difference[4:].min() > 1e-3


def test_padded_batch_equals_single_clips() -> None:
    model, x = tokenizer(), audio(3, 9)
    samples = [9 * FRAME, 5 * FRAME - 300, FRAME]
    for row, count in zip(x, samples, strict=True):
        row[count:] = 0
    codes = model.encode(x)
    for i, count in enumerate(samples):
        single = model.encode(x[i : i + 1, :count])
        assert single.shape == (1, -(-count // FRAME), 6)
        assert torch.equal(codes[i : i + 1, : single.shape[1]], single)
        rebuilt = model.decode(codes)[i : i + 1, : single.shape[1] * FRAME]
        torch.testing.assert_close(model.decode(single), rebuilt, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", range(1, 7))
def test_depth_takes_the_first_codebooks(depth: int) -> None:
    model, x = tokenizer(), audio(2, 4)
    codes = model.encode(x)
    assert torch.equal(model.encode(x, depth), codes[..., :depth])
    rebuilt = model(x, torch.tensor([depth, 6])).audio
    torch.testing.assert_close(rebuilt[:1], model.decode(codes[:1, :, :depth]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rebuilt[1:], model.decode(codes[1:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("missing", [1, 500, 1919])
def test_last_frame_is_completed_with_silence(missing: int) -> None:
    model, x = tokenizer(), audio(2, 3)
    x[:, 3 * FRAME - missing :] = 0
    assert torch.equal(model.encode(x[:, : 3 * FRAME - missing]), model.encode(x))


def test_shapes_types_and_no_graph() -> None:
    model = tokenizer()
    codes = model.encode(audio(2, 2)[:, :-1])
    assert (codes.shape, codes.dtype) == ((2, 2, 6), torch.int64)
    rebuilt = model.decode(codes[..., :3])
    assert (rebuilt.shape, rebuilt.dtype, rebuilt.requires_grad) == ((2, 3840), torch.float32, False)


def test_training_pass_reaches_every_weight() -> None:
    model = tokenizer()
    out = model(audio(2, 3))
    (out.audio.square().mean() + out.commitment_loss + out.codebook_loss).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_saved_and_loaded_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    model, x = tokenizer(), audio(1, 3)
    model.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again = AudioTokenizer.from_pretrained(tmp_path / "model")
    assert again.config == model.config and not again.training
    state, loaded = model.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    codes = model.encode(x)
    assert torch.equal(again.encode(x), codes) and torch.equal(again.decode(codes), model.decode(codes))
    assert all(parameter.requires_grad for parameter in again.parameters()), "cannot be trained further"


@pytest.mark.parametrize("depth", [0, -1, 7])
def test_impossible_depth(depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth={depth} but this tokenizer has 6 codebooks: choose 1 to 6"):
        tokenizer().encode(audio(1, 1), depth)


@pytest.mark.parametrize("columns", [0, 7])
def test_codes_of_an_impossible_depth(columns: int) -> None:
    with pytest.raises(ValueError, match=f"depth={columns} but this tokenizer has 6 codebooks"):
        tokenizer().decode(torch.zeros(1, 2, columns, dtype=torch.long))


def test_every_signal_is_decoded_at_its_own_depth() -> None:
    model, codes, depth = tokenizer(), torch.randint(32, (3, 5, 4)), torch.tensor([4, 1, 3])
    spoilt = codes.clone()
    spoilt[1, :, 1:], spoilt[2, :, 3:] = -1, 10**6
    for cache in (None, model.decoder_cache(3)):
        audio = model.decode(spoilt, cache, depth)
        for row, single in enumerate(depth.tolist()):
            expected = model.decode(codes[row : row + 1, :, :single])
            torch.testing.assert_close(audio[row : row + 1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        ([0, 1], r"depth=\[0, 1\] but the codes have 3 columns: choose 1 to 3"),
        ([3, 4], r"depth=\[3, 4\] but the codes have 3 columns"),
        ([1], r"depth of shape \(1,\) for a batch of 2: give one a signal"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_impossible_depths_of_signals(depth: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer().decode(torch.zeros(2, 2, 3, dtype=torch.long), depth=torch.tensor(depth))


@pytest.mark.usefixtures("unchecked_shapes")
def test_impossible_audio() -> None:
    model = tokenizer()
    for cache in (None, model.encoder_cache()):
        with pytest.raises(ValueError, match="no samples"):
            model.encode(torch.zeros(1, 0), cache=cache)
    with pytest.raises(ValueError, match=r"audio of shape \(2000,\): give \[batch, samples\]"):
        model.encode(torch.zeros(2000))
    with pytest.raises(ValueError, match="2000 samples in a stream: give whole frames of 1920"):
        model.encode(torch.zeros(1, 2000), cache=model.encoder_cache())


def test_halves_load_separately(tmp_path: Path) -> None:
    model, x = tokenizer(), audio(1, 3)
    model.save_pretrained(tmp_path)
    codes = model.encode(x)
    encoder = AudioTokenizer.from_pretrained(tmp_path, parts="encoder")
    decoder = AudioTokenizer.from_pretrained(tmp_path, parts="decoder")
    assert torch.equal(encoder.encode(x), codes)
    assert torch.equal(decoder.decode(codes), model.decode(codes))
    assert [n for n in encoder.state_dict() if n.startswith("decoder")] == []
    assert [n for n in decoder.state_dict() if n.startswith("encoder")] == []
    for call in (lambda: decoder.encode(x), decoder.encoder_cache, lambda: decoder(x)):
        with pytest.raises(ValueError, match="this tokenizer has no encoder: load it with parts='both' or"):
            call()
    for call in (lambda: encoder.decode(codes), encoder.decoder_cache, lambda: encoder(x)):
        with pytest.raises(ValueError, match="this tokenizer has no decoder: load it with parts='both' or"):
            call()
    with pytest.raises(ValueError, match="half a tokenizer, the encoder, cannot be saved"):
        encoder.save_pretrained(tmp_path / "half")
    with pytest.raises(ValueError, match="parts='quantizer': choose one of both, encoder, decoder"):
        AudioTokenizer.from_pretrained(tmp_path, parts="quantizer")  # pyright: ignore[reportArgumentType]


def test_the_unused_half_is_not_read(tmp_path: Path) -> None:
    """It may even be missing."""
    model = tokenizer()
    model.save_pretrained(tmp_path)
    without_encoder = {n: w for n, w in model.state_dict().items() if not n.startswith("encoder.")}
    save_file(without_encoder, tmp_path / "model.safetensors")
    codes = torch.randint(32, (1, 2, 6))
    decoder = AudioTokenizer.from_pretrained(tmp_path, parts="decoder")
    assert torch.equal(decoder.decode(codes), model.decode(codes))
    with pytest.raises(ValueError, match="the weights do not fit"):
        AudioTokenizer.from_pretrained(tmp_path)


def test_a_cache_serves_one_direction() -> None:
    model = tokenizer()
    with pytest.raises(ValueError, match="this cache is of a stream to encode: give one of decoder_cache"):
        model.decode(torch.zeros(1, 1, 6, dtype=torch.long), model.encoder_cache())
    with pytest.raises(ValueError, match="this cache is of a stream to decode: give one of encoder_cache"):
        model.encode(audio(1, 1), cache=model.decoder_cache())
    with pytest.raises(ValueError, match="a stream to decode cannot continue one to encode"):
        model.decoder_cache().load_state(0, model.encoder_cache())
