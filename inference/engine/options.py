"""How a text is to be spoken: the options that every way into this software shares."""

import math
import operator
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Annotated, Literal, get_args

import numpy as np
import tyro

from cat_tts import SamplingOptions
from inference.text.segmentation import SEGMENT_SECONDS

Mode = Literal["continuation", "reference"]
MAX_ADAPT_STEPS = 1000
MAX_SECONDS = 1e9
MAX_CANDIDATES = 64
CANDIDATE_DEPTH = 4
"""Enough to distinguish words and voice, at a fraction of the computation."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """What is done about speech that repeats itself, falls silent, does not end, or says other words."""

    stop_runaways: bool = True
    """End speech at once when it repeats itself or stays silent."""
    retries: int = 2
    """Further attempts at a segment that repeats itself, falls silent or does not come to an end, or in which
    the speech recognizer that a model includes does not recognize the text."""
    candidates: Annotated[int, tyro.conf.arg(name="best-of")] = 1
    """Synthesize so many candidates of each segment at a low depth, and extend the best one in depth."""
    candidate_depth: int = CANDIDATE_DEPTH
    """Codebooks of the candidates."""
    strict: bool = False
    """Fail where all attempts at a segment failed, instead of returning the best of them."""

    def checked(self) -> "RetryPolicy":
        """Return this policy, with numbers of other libraries as Python's.

        Raises:
            ValueError: a value means nothing, or has a wrong type.
        """
        return replace(
            self,
            stop_runaways=check_flag("stop_runaways", self.stop_runaways),
            retries=check_whole("retries", self.retries, 0, 100),
            candidates=check_whole("candidates", self.candidates, 1, MAX_CANDIDATES),
            candidate_depth=check_whole("candidate_depth", self.candidate_depth, 1, 2**31),
            strict=check_flag("strict", self.strict),
        )

    @property
    def checks(self) -> bool:
        """Whether a result may be replaced by another one, so that it is only certain at its end."""
        return self.retries > 0 or self.candidates > 1


ONE_ATTEMPT = RetryPolicy(retries=0)
"""Only ends runaway speech: for streams that must not wait."""
UNWATCHED = RetryPolicy(stop_runaways=False, retries=0)
"""Takes what the model gives, as measurements of the model alone need it."""


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions:
    """How a text is to be spoken; everything has a default."""

    depth: int | None = None
    """Codebooks to predict and decode, 1 to all; more sound better and take longer. All by default."""
    seed: int = 0
    """Another seed gives another take; the same seed gives the same file."""
    sampling: Annotated[SamplingOptions | None, tyro.conf.Suppress] = None
    """How codes are drawn; by default as suits the model."""
    mode: Mode = "continuation"
    """How the prompt is used: continued after its transcript, or (published models) as a reference."""
    max_seconds: float | None = None
    """Length limit of each segment; by default twice what such a text usually takes."""
    segment_seconds: float = SEGMENT_SECONDS
    """A text that usually takes longer is split into segments of up to this length, all from one prompt."""
    normalize: bool = True
    """Spell out numbers, dates, units and money, in English and Chinese."""
    adapt_decoder: bool = True
    """Whether a decoder that ends in a vocoder is adapted to the voice, which takes a second."""
    adapt_steps: int = 0
    """Train a copy of the model for so many steps on the recording first: a small model comes nearer to the
    voice."""
    policy: tyro.conf.OmitArgPrefixes[RetryPolicy] = field(default_factory=RetryPolicy)

    def checked(self) -> "SynthesisOptions":
        """Return these options, with numbers of other libraries as Python's.

        Raises:
            ValueError: a value means nothing, or has a wrong type.
        """
        if not isinstance(self.mode, str) or self.mode not in get_args(Mode):
            raise ValueError(f"mode {in_one_line(self.mode)}: choose {' or '.join(get_args(Mode))}")
        if not isinstance(self.sampling, SamplingOptions | None):
            raise ValueError(f"sampling={in_one_line(self.sampling)}: give SamplingOptions(...)")
        if not isinstance(self.policy, RetryPolicy):
            raise ValueError(f"policy={in_one_line(self.policy)}: give RetryPolicy(...)")
        seconds, depth = self.max_seconds, self.depth
        return replace(
            self,
            depth=None if depth is None else check_whole("depth", depth, -(2**31), 2**31),
            seed=check_whole("seed", self.seed, -(2**63), 2**63 - 1),
            max_seconds=None if seconds is None else check_seconds("a length limit", seconds),
            segment_seconds=check_seconds("segments", self.segment_seconds),
            normalize=check_flag("normalize", self.normalize),
            adapt_decoder=check_flag("adapt_decoder", self.adapt_decoder),
            adapt_steps=check_whole("adapt_steps", self.adapt_steps, 0, MAX_ADAPT_STEPS),
            policy=self.policy.checked(),
        )


def check_whole(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number of whatever library as Python's.

    Raises:
        ValueError: it is none, or out of range.
    """
    try:
        number = operator.index(value)  # pyright: ignore[reportArgumentType]  # a TypeError is the answer
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name}={in_one_line(value)}: give a whole number")
    if not low <= number <= high:
        raise ValueError(f"{name}={in_one_line(value)}: give a whole number from {low} to {high}")
    return number


def check_flag(name: str, value: object) -> bool:
    """Return a truth value of whatever library as Python's.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={in_one_line(value)}: give True or False")
    return bool(value)


def check_seconds(name: str, value: object) -> float:
    """Return a number of seconds of whatever library as Python's.

    Raises:
        ValueError: it is none, not positive, or beyond all measure.
    """
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not 0 < number <= MAX_SECONDS:
        raise ValueError(f"{name} of {in_one_line(value)} s: give a positive number of seconds")
    return number


def in_one_line(value: object) -> str:
    """Return how Python writes a value, for the one line of an error."""
    return " ".join(repr(value).split())[:80]
