import math

import pytest
import torch

from tokenizer.config import VocoderConfig
from tokenizer.layers.vocoder import Vocoder
from training.data.pitch_tracking import track_pitch

TRACKER_RATE, HOP = 24_000, 240


def voice(octaves: torch.Tensor) -> torch.Tensor:
    """Pulses of a pitch, with the slope of a voice."""
    config = VocoderConfig()
    controls = torch.full((1, len(octaves), config.controls), -6.0)
    controls[0, :, 0] = octaves
    controls[0, :, 1 : 1 + config.bands] = 1 - torch.arange(config.bands) / 30
    return Vocoder(config, HOP, TRACKER_RATE)(controls)


@pytest.mark.parametrize("hertz", [75.0, 120.0, 200.0, 350.0])
def test_a_steady_pitch_is_found_and_no_octave_of_it(hertz: float) -> None:
    found = track_pitch(voice(torch.full((60,), math.log2(hertz / 120))), TRACKER_RATE, HOP)
    assert (found.octaves[0, 5:-5] - math.log2(hertz / 120)).abs().max() < 0.01
    assert found.confidence[0, 5:-5].min() > 0.9


def test_a_glide_is_where_the_vocoder_has_it() -> None:
    wanted = torch.linspace(-0.5, 0.7, 100)
    found = track_pitch(voice(wanted), TRACKER_RATE, HOP)
    assert (found.octaves[0, 8:-8] - wanted[8:-8]).abs().mean() < 0.01


def test_noise_and_silence_have_no_pitch() -> None:
    noise = 0.1 * torch.randn(2, TRACKER_RATE, generator=torch.Generator().manual_seed(0))
    assert track_pitch(noise, TRACKER_RATE, HOP).confidence.mean() < 0.1
    assert track_pitch(torch.zeros(1, TRACKER_RATE), TRACKER_RATE, HOP).confidence.max() == 0


def test_rows_do_not_see_each_other() -> None:
    one, two = voice(torch.zeros(40)), voice(torch.full((40,), 0.5))
    batched = track_pitch(torch.cat([one, two]), TRACKER_RATE, HOP)
    torch.testing.assert_close(batched.octaves[1:], track_pitch(two, TRACKER_RATE, HOP).octaves)
