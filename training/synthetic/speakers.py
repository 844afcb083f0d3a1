"""Draw pseudo-speakers: variations of a teacher's few voices, as a function of the seed."""

from dataclasses import dataclass

import numpy as np

AMERICAN = {
    "f": ("heart", "alloy", "aoede", "bella", "jessica", "kore", "nova", "river", "sarah", "sky"),
    "m": ("adam", "echo", "eric", "fenrir", "liam", "michael", "onyx", "puck"),
}
BRITISH = {"f": ("alice", "emma", "isabella", "lily"), "m": ("daniel", "fable", "george", "lewis")}
"""Kokoro's English voices, except the whispering one and Santa Claus."""
FOREIGN = {
    "f": (
        *("zf_xiaobei", "zf_xiaoxiao", "zf_xiaoyi", "jf_alpha", "jf_gongitsune", "jf_tebukuro"),
        *("hf_alpha", "hf_beta", "ff_siwis", "if_sara", "pf_dora"),
    ),
    "m": ("zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang", "jm_kumo", "hm_omega", "hm_psi", "im_nicola"),
}
"""Voices that are blended into English ones; alone, they read English with an accent."""
MAX_FOREIGN_SHARE = 0.4
"""Largest share of a foreign voice in a blend."""

WARP_FREQUENCIES = (450.0, 1000.0, 2200.0, 4800.0)
"""Hz of the points that a warp moves; between them, and from 0 and up to 12 kHz, it is interpolated."""

Blend = tuple[tuple[str, float], ...]
"""Names of voices and their weights, which add up to 1."""


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A variation of a teacher's voice.

    Fields from `pitch` on are for teachers that compute a fundamental frequency and spectra before they
    compute a waveform.
    """

    name: str
    alpha: float
    """Factor of pitch and formants."""
    speed: float
    """Factor of the tempo."""
    voice_blend: Blend = ()
    """Voices whose timbre is blended; empty where the teacher has one voice."""
    prosody_blend: Blend = ()
    """Voices whose prosody is blended."""
    pitch: float = 0.0
    """Mean fundamental frequency in Hz; 0 leaves the teacher's."""
    melody: float = 1.0
    """Exponent of the pitch's ratio to its mean: 0 is a monotone."""
    tilt: float = 0.0
    """Spectral tilt: decibels that two octaves gain over the two below them."""
    band: tuple[float, float] = (1000.0, 0.0)
    """Hz and gain in decibels of an octave that is louder or softer."""
    breath: float = 0.0
    """How much louder the noise in the voice is, in nepers."""
    warp: tuple[float, ...] = ()
    """Logarithms of the factors by which the spectrum at `WARP_FREQUENCIES` moves up: a vocal tract of
    another shape."""
    contrast: float = 1.0
    """Factor of the logarithmic height of resonances."""

    @property
    def british(self) -> bool:
        """Whether words are pronounced the British way: as by the first voice of the blend."""
        return bool(self.voice_blend) and self.voice_blend[0][0].startswith("b")


def hibari_speakers(count: int, seed: int) -> list[Speaker]:
    """Draw women and men in turn from Hibari's one voice.

    Pitch, formants, melody, spectral shape and breath are drawn. A speaker is a function of the seed and its
    number alone.

    Args:
        count: number of speakers.
        seed: the corpus's seed.

    Raises:
        ValueError: `count` is below 1.
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
        warp=tuple(round(float(moved), 3) for moved in draw.uniform(-0.3, 0.3, len(WARP_FREQUENCIES))),
        contrast=round(float(np.exp(draw.uniform(-0.3, 0.3))), 2),
    )


def kokoro_speakers(count: int, seed: int) -> list[Speaker]:
    """Draw women and men in turn from Kokoro's voices: blends of one to three English voices, resampled.

    Half of the blends include a foreign voice, and a third take their prosody from a blend of other voices. A
    speaker is a function of the seed and its number alone: a larger count adds speakers to the same ones.

    Args:
        count: number of speakers.
        seed: the corpus's seed.

    Raises:
        ValueError: `count` is below 1.
    """
    return [_kokoro_speaker(i, np.random.default_rng((seed, i))) for i in range(_checked(count))]


def _kokoro_speaker(number: int, draw: np.random.Generator) -> Speaker:
    sex = "fm"[number % 2]
    prefix, names = ("b", BRITISH[sex]) if draw.random() < 0.3 else ("a", AMERICAN[sex])
    english = [f"{prefix}{sex}_{name}" for name in names]
    blend = _blend(english, draw)
    prosody_blend = _blend(english, draw) if draw.random() < 1 / 3 else blend
    if draw.random() < 0.5:
        share = round(float(draw.uniform(0.1, MAX_FOREIGN_SHARE)), 3)
        foreign = str(draw.choice(FOREIGN[sex]))
        blend = (*((voice, round(weight * (1 - share), 6)) for voice, weight in blend), (foreign, share))
    return Speaker(
        name=f"kokoro_{number:04d}",
        alpha=round(float(draw.uniform(0.88, 1.12)), 2),
        speed=round(float(draw.uniform(0.85, 1.15)), 2),
        voice_blend=blend,
        prosody_blend=prosody_blend,
    )


def _blend(voices: list[str], draw: np.random.Generator) -> Blend:
    """Draw one to three voices, and weights uniformly distributed over the simplex; the largest first."""
    chosen = draw.choice(voices, int(draw.integers(1, 4)), replace=False).tolist()
    shares = np.sort(draw.dirichlet(np.ones(len(chosen))))[::-1].tolist()
    return tuple((voice, round(share, 3)) for voice, share in zip(chosen, shares, strict=True))


def _checked(count: int) -> int:
    if count < 1:
        raise ValueError(f"count={count} speakers: give 1 or more")
    return count
