"""Pseudo-speakers: what is done to a teacher's few voices to make many, as a function of the seed."""

from dataclasses import dataclass

import numpy as np

AMERICAN = {
    "f": ("heart", "alloy", "aoede", "bella", "jessica", "kore", "nova", "river", "sarah", "sky"),
    "m": ("adam", "echo", "eric", "fenrir", "liam", "michael", "onyx", "puck"),
}
BRITISH = {"f": ("alice", "emma", "isabella", "lily"), "m": ("daniel", "fable", "george", "lewis")}
"""Kokoro's English voices, but for the whispering one and Santa Claus."""
FOREIGN = {
    "f": (
        *("zf_xiaobei", "zf_xiaoxiao", "zf_xiaoyi", "jf_alpha", "jf_gongitsune", "jf_tebukuro"),
        *("hf_alpha", "hf_beta", "ff_siwis", "if_sara", "pf_dora"),
    ),
    "m": ("zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang", "jm_kumo", "hm_omega", "hm_psi", "im_nicola"),
}
"""Voices that lend English speakers some of their timbre; reading English by themselves they have accents."""
FOREIGN_SHARE = 0.4
"""Most of a timbre that is not English."""

WARPED = (450.0, 1000.0, 2200.0, 4800.0)
"""Hz at which a warped spectrum is held; between them, and down to 0 and up to 12 kHz, it is stretched."""

Blend = tuple[tuple[str, float], ...]
"""Voices and their weights, which add up to 1."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Pitch and formants of the teacher's voice times `alpha`, its tempo times `speed`."""

    name: str
    alpha: float
    speed: float
    timbre: Blend = ()
    """How the voice sounds; empty where the teacher has one voice."""
    prosody: Blend = ()
    """How it moves."""
    pitch: float = 0.0
    """Mean fundamental frequency in Hz; 0 leaves the teacher's. This and what follows are for teachers that
    compute a fundamental frequency and spectra before they compute a waveform."""
    melody: float = 1.0
    """Exponent of the pitch's ratio to its mean: 0 is a monotone."""
    tilt: float = 0.0
    """Decibels that two octaves gain over the ones below them."""
    band: tuple[float, float] = (1000.0, 0.0)
    """Hz and decibels of an octave that is louder or softer."""
    breath: float = 0.0
    """How much louder the noise in the voice is, in nepers."""
    warp: tuple[float, ...] = ()
    """How far the spectrum at each of `WARPED` moves up, in nepers: a vocal tract of another shape."""
    contrast: float = 1.0
    """How far resonances stand out, of as far as the teacher's do."""

    @property
    def british(self) -> bool:
        """Whether the words are to be pronounced the British way: as the first voice of the timbre."""
        return bool(self.timbre) and self.timbre[0][0].startswith("b")


def hibari_speakers(count: int, seed: int) -> list[Speaker]:
    """Women and men in turn made of the one voice: pitch, formants, melody, colour and breath are drawn.

    A speaker is a function of the seed and its number alone.
    """
    return [_hibari_speaker(i, np.random.default_rng((seed, i))) for i in range(_checked(count))]


def _hibari_speaker(number: int, draw: np.random.Generator) -> Speaker:
    man = number % 2 == 1
    formants, pitch = ((0.80, 0.93), (85.0, 150.0)) if man else ((0.95, 1.18), (160.0, 260.0))
    return Speaker(
        name=f"hibari_{number:04d}",
        alpha=round(float(draw.uniform(*formants)), 3),
        pitch=round(float(np.exp(draw.uniform(*np.log(pitch)))), 1),
        melody=round(float(draw.uniform(0.7, 1.4)), 2),
        speed=round(float(draw.uniform(0.85, 1.2)), 2),
        tilt=round(float(draw.uniform(-6, 6)), 1),
        band=(round(float(draw.uniform(500, 3500))), round(float(draw.uniform(-4, 4)), 1)),
        breath=round(float(draw.uniform(-0.4, 0.7)), 2),
        warp=tuple(round(float(moved), 3) for moved in draw.uniform(-0.3, 0.3, len(WARPED))),
        contrast=round(float(np.exp(draw.uniform(-0.3, 0.3))), 2),
    )


def kokoro_speakers(count: int, seed: int) -> list[Speaker]:
    """Women and men in turn: one to three English voices, half of them with a foreign one, resampled.

    Every third moves like another voice than it sounds. A speaker is a function of the seed and its number
    alone: more speakers are the same ones, and others.
    """
    return [_kokoro_speaker(i, np.random.default_rng((seed, i))) for i in range(_checked(count))]


def _kokoro_speaker(number: int, draw: np.random.Generator) -> Speaker:
    sex = "fm"[number % 2]
    prefix, names = ("b", BRITISH[sex]) if draw.random() < 0.3 else ("a", AMERICAN[sex])
    english = [f"{prefix}{sex}_{name}" for name in names]
    timbre = _blend(english, draw)
    prosody = _blend(english, draw) if draw.random() < 1 / 3 else timbre
    if draw.random() < 0.5:
        share = round(float(draw.uniform(0.1, FOREIGN_SHARE)), 3)
        donor = str(draw.choice(FOREIGN[sex]))
        timbre = (*((voice, round(weight * (1 - share), 6)) for voice, weight in timbre), (donor, share))
    return Speaker(
        name=f"kokoro_{number:04d}",
        alpha=round(float(draw.uniform(0.88, 1.12)), 2),
        speed=round(float(draw.uniform(0.85, 1.15)), 2),
        timbre=timbre,
        prosody=prosody,
    )


def _blend(voices: list[str], draw: np.random.Generator) -> Blend:
    """One to three voices with weights drawn evenly; the strongest first."""
    chosen = draw.choice(voices, int(draw.integers(1, 4)), replace=False).tolist()
    shares = np.sort(draw.dirichlet(np.ones(len(chosen))))[::-1].tolist()
    return tuple((voice, round(share, 3)) for voice, share in zip(chosen, shares, strict=True))


def _checked(count: int) -> int:
    if count < 1:
        raise ValueError(f"count={count} speakers: give 1 or more")
    return count
