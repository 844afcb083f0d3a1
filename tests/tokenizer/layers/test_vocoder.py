import math

import pytest
import torch
from torch import Tensor

from tokenizer.config import VocoderConfig
from tokenizer.layers.vocoder import TYPICAL_MAGNITUDE, Vocoder

PATCH, RATE, SECOND = 240, 24_000, 100
BANDS = 64
SILENT = -6.0
CPU = torch.device("cpu")


def vocoder() -> Vocoder:
    return Vocoder(VocoderConfig(bands=BANDS, lowest_pitch=64.0), PATCH, RATE)


def steady(steps: int, *, octaves: float = 0.0, harmonic: float = SILENT, noise: float = SILENT) -> Tensor:
    """The same controls at every step, and in all bands."""
    step = torch.tensor(
        [octaves] + [harmonic - TYPICAL_MAGNITUDE] * BANDS + [noise - TYPICAL_MAGNITUDE] * BANDS
    )
    return step.expand(1, steps, -1).clone()


def lively(batch: int, steps: int) -> Tensor:
    """Controls in which everything changes at every step."""
    pitch = 0.5 * torch.randn(batch, steps, 1)
    return torch.cat([pitch, torch.randn(batch, steps, 2 * BANDS) / 2 - 0.5 - TYPICAL_MAGNITUDE], -1)


def close(mine: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 1e-3, "silence would agree with anything"
    torch.testing.assert_close(mine, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize(
    ("octaves", "hertz", "harmonics"),
    [
        (math.log2(160 / 120), 160, 71),  # 71 * 160 Hz <= 0.95 * 12 kHz = 11.4 kHz
        (1.0, 240, 47),
        (5.0, 500, 22),  # the highest pitch
        (-5.0, 64, 178),  # the lowest
    ],
)
def test_a_steady_pitch_has_equal_lines_at_its_multiples_and_unit_power(
    octaves: float, hertz: int, harmonics: int
) -> None:
    audio = vocoder()(steady(SECOND, octaves=octaves, harmonic=0.0))[0]
    assert audio.shape == (RATE,)
    lines = torch.fft.rfft(audio).abs() / (RATE / 2)  # a bin is 1 Hz, and a cosine of amplitude 1 is 1
    expected = torch.zeros(RATE // 2 + 1)
    expected[hertz : harmonics * hertz + 1 : hertz] = math.sqrt(2 / harmonics)
    torch.testing.assert_close(lines, expected, atol=2e-3, rtol=0)
    assert audio.square().mean().item() == pytest.approx(1, rel=0.01)


def test_a_glide_is_where_it_should_be() -> None:
    """One octave up over one patch: 240 samples at 120 * 2**(i / 240) Hz are 1.733 cycles."""
    controls = steady(3, harmonic=0.0)
    controls[0, 1:, 0] = 1.0
    state = vocoder().state(1, CPU)
    vocoder()(controls[:, :1], state)
    assert state.phase.item() % 1 == pytest.approx(0.2, abs=1e-6)  # 1.2 cycles of 120 Hz
    vocoder()(controls[:, 1:2], state)
    cycles = sum(120 * 2 ** (i / 240) / 24_000 for i in range(1, 241))
    assert cycles == pytest.approx(1.733, abs=1e-3)
    assert state.phase.item() % 1 == pytest.approx((1.2 + cycles) % 1, abs=1e-6)


@pytest.mark.parametrize("part", ["harmonic", "noise"])
def test_level_follows_the_magnitudes(part: str) -> None:
    once = vocoder()(steady(20, **{part: -1.0}))
    twice = vocoder()(steady(20, **{part: -1.0 + math.log10(2)}))
    torch.testing.assert_close(twice, 2 * once, atol=1e-4, rtol=1e-4)
    loudest = [vocoder()(steady(20, **{part: level})) for level in (2.0, 9.0)]
    assert torch.equal(*loudest)


def test_noise_has_the_level_of_each_band() -> None:
    """Bands are evenly spaced in mel: half of them are below 700 * (sqrt(1 + 12000 / 700) - 1) = 2282 Hz."""
    controls = steady(4 * SECOND, noise=0.0)
    controls[..., 1 + BANDS + BANDS // 2 :] = -1.0 - TYPICAL_MAGNITUDE
    audio = vocoder()(controls)[0]
    power = torch.fft.rfft(audio).abs().square() / len(
        audio
    )  # four bins a Hz; 1 for white noise of unit power
    assert power[4 * 200 : 4 * 2000].mean().item() == pytest.approx(1, rel=0.1)
    assert power[4 * 2600 : 4 * 11_000].mean().item() == pytest.approx(0.01, rel=0.1)


def test_pulses_have_the_level_of_each_band() -> None:
    controls = steady(SECOND, octaves=1.0, harmonic=0.0)
    controls[..., 1 + BANDS // 2 : 1 + BANDS] = -1.0 - TYPICAL_MAGNITUDE
    lines = torch.fft.rfft(vocoder()(controls)[0]).abs()[240 : 47 * 240 + 1 : 240] / (RATE / 2)
    full = math.sqrt(2 / 47)
    torch.testing.assert_close(lines[1:8], torch.full((7,), full), atol=0.05 * full, rtol=0)  # to 1920 Hz
    torch.testing.assert_close(lines[11:], torch.full((36,), 0.1 * full), atol=0.01 * full, rtol=0)


def test_every_patch_depends_on_its_step_and_three_before_but_no_later() -> None:
    """Responses of 480 samples reach two patches on, and a patch begins with the step before's filters."""
    controls = lively(1, 9).requires_grad_()
    (vocoder()(controls)[:, 5 * PATCH : 6 * PATCH] * torch.randn(PATCH)).sum().backward()
    assert controls.grad is not None
    assert controls.grad[0].abs().sum(-1).nonzero().flatten().tolist() == [2, 3, 4, 5]
    changed = controls.detach().clone()
    changed[:, 6:] = lively(1, 3)
    before, after = vocoder()(controls.detach()), vocoder()(changed)
    assert torch.equal(before[:, : 6 * PATCH], after[:, : 6 * PATCH])
    assert (before - after)[:, 6 * PATCH : 7 * PATCH].abs().amax() > 0.1


def test_gradients_reach_all_magnitudes_and_are_right() -> None:
    controls = lively(1, 4).requires_grad_()
    weights = torch.randn(4 * PATCH)
    (vocoder()(controls)[0] * weights).sum().backward()
    assert controls.grad is not None
    assert (controls.grad[0, :, 0] == 0).all() and (controls.grad[0, :, 1:] != 0).all()
    along, small = torch.randn(controls.shape), 1e-2
    along[..., 0] = 0
    with torch.no_grad():
        up, down = (vocoder()(controls + sign * small * along)[0] @ weights for sign in (1, -1))
    slope = ((up - down) / (2 * small)).item()
    assert (controls.grad * along).sum().item() == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("chunks", [[60], [1] * 60, [7, 1, 30, 2, 20]])
def test_streamed_equals_offline(chunks: list[int]) -> None:
    controls, state = lively(2, 60), vocoder().state(2, CPU)
    streamed = torch.cat([vocoder()(part, state) for part in controls.split(chunks, 1)], 1)
    close(streamed, vocoder()(controls))


def test_noise_does_not_break_where_its_table_ends() -> None:
    """131072 samples are 546 patches and a part of one."""
    controls, state = steady(600, noise=0.0), vocoder().state(1, CPU)
    streamed = torch.cat([vocoder()(part, state) for part in controls.split([540, 1, 3, 56], 1)], 1)
    close(streamed, vocoder()(controls))
    close(streamed[:, 2**17 : 2**17 + 10 * PATCH], streamed[:, : 10 * PATCH])


def test_signals_of_a_batch_sound_as_single_ones() -> None:
    controls = lively(3, 12)
    batched = vocoder()(controls)
    for slot in range(3):
        close(batched[slot : slot + 1], vocoder()(controls[slot : slot + 1]))


def test_slots_begin_move_and_continue_at_any_time() -> None:
    voice = vocoder()
    a, b, c, d = (lively(1, n) for n in (30, 12, 30, 20))
    primed = voice.state(1, CPU)
    voice(d[:, :9], primed)
    duplicate = primed.copy()
    state = voice.state(3, CPU)
    voice(lively(3, 4), state)
    for slot in range(3):
        state.reset(slot)
    batched = voice(torch.cat([a[:, :12], b, c[:, :12]]), state)
    state.move(2, 1)  # b has ended: c is in slot 1 now
    two = voice(torch.cat([a[:, 12:19], c[:, 12:19]]), state)
    voice(lively(1, 3), duplicate)
    state.load_state(2, primed)
    three = voice(torch.cat([a[:, 19:], c[:, 19:], d[:, 9:]]), state)
    for parts, whole, begin in [
        ([batched[0], two[0], three[0]], a, 0),
        ([batched[1]], b, 0),
        ([batched[2], two[1], three[1]], c, 0),
        ([three[2]], d, 9),
    ]:
        close(torch.cat(parts), voice(whole)[0, begin * PATCH :])


def test_slots_that_are_left_out_lose_their_history() -> None:
    voice, state = vocoder(), vocoder().state(2, CPU)
    a, b = lively(1, 10), lively(1, 5)
    voice(torch.cat([a[:, :3], lively(1, 3)]), state)
    voice(a[:, 3:5], state)
    close(voice(torch.cat([a[:, 5:], b]), state)[1:], voice(b))


def test_a_stream_in_training_continues_without_its_gradient() -> None:
    """In-place changes of the state must not break the backward pass of the call before."""
    controls, state = lively(1, 8).requires_grad_(), vocoder().state(1, CPU)
    first, second = (vocoder()(part, state) for part in controls.split(4, 1))
    (first.square().sum() + second.square().sum()).backward()
    assert controls.grad is not None and controls.grad.isfinite().all()


def test_autocast_does_not_touch_it() -> None:
    controls = lively(1, 10)
    with torch.autocast("cpu", torch.bfloat16):
        audio = vocoder()(controls)
    assert torch.equal(audio, vocoder()(controls))
