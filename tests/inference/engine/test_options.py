"""Options are read or refused at the door."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from cat_tts import SamplingOptions
from inference import RetryPolicy, SynthesisOptions


def test_whole_numbers_of_other_libraries_are_read() -> None:
    options = SynthesisOptions(depth=np.int32(8), seed=torch.tensor(5)).checked()  # pyright: ignore[reportArgumentType]
    assert (options.depth, options.seed) == (8, 5)
    assert type(options.depth) is type(options.seed) is int
    assert SynthesisOptions(seed=-(2**63)).checked().seed == -(2**63)
    seconds = SynthesisOptions(max_seconds=np.float32(2)).checked().max_seconds  # pyright: ignore[reportArgumentType]
    assert seconds == 2 and type(seconds) is float
    flags = SynthesisOptions(normalize=np.False_, policy=RetryPolicy(strict=np.True_)).checked()  # pyright: ignore[reportArgumentType]
    assert flags.normalize is False and flags.policy.strict is True
    policy = RetryPolicy(retries=np.int64(1), candidates=np.uint8(2)).checked()  # pyright: ignore[reportArgumentType]
    assert policy == RetryPolicy(retries=1, candidates=2) and type(policy.retries) is int


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": 1.0}, "seed=1.0: give a whole number"),
        ({"seed": 2**63}, f"seed={2**63}: give a whole number"),
        ({"seed": -(2**63) - 1}, f"seed={-(2**63) - 1}: give a whole number from"),
        ({"seed": True}, "seed=True: give a whole number"),
        ({"seed": None}, "seed=None: give a whole number"),
        ({"seed": np.array([[1], [2]])}, "seed=array([[1], [2]]): give a whole number"),
        ({"depth": "8"}, "depth='8': give a whole number"),
        ({"depth": b"8"}, "depth=b'8': give a whole number"),
        ({"depth": 2.5}, "depth=2.5: give a whole number"),
        ({"depth": np.float32(8)}, "depth=np.float32(8.0): give a whole number"),
        ({"mode": "clone"}, "mode 'clone': choose continuation or reference"),
        ({"mode": None}, "mode None: choose continuation or reference"),
        ({"mode": np.array(["a", "b"])}, "mode array(['a', 'b'], dtype='<U1'): choose continuation"),
        ({"max_seconds": 0.0}, "a length limit of 0.0 s: give a positive number of seconds"),
        ({"max_seconds": -1}, "a length limit of -1 s"),
        ({"max_seconds": math.inf}, "a length limit of inf s"),
        ({"max_seconds": math.nan}, "a length limit of nan s"),
        ({"max_seconds": 1e308}, "a length limit of 1e+308 s"),
        ({"max_seconds": 10**400}, "a length limit of 1000"),
        ({"max_seconds": "3"}, "a length limit of '3' s"),
        ({"max_seconds": True}, "a length limit of True s"),
        ({"segment_seconds": 0}, "segments of 0 s: give a positive number of seconds"),
        ({"segment_seconds": None}, "segments of None s: give a positive number of seconds"),
        ({"normalize": "no"}, "normalize='no': give True or False"),
        ({"adapt_decoder": None}, "adapt_decoder=None: give True or False"),
        ({"adapt_steps": -1}, "adapt_steps=-1: give a whole number from 0 to 1000"),
        ({"adapt_steps": 1001}, "adapt_steps=1001: give a whole number from 0 to 1000"),
        ({"sampling": {"temperature": 1}}, "sampling={'temperature': 1}: give SamplingOptions(...)"),
        ({"policy": None}, "policy=None: give RetryPolicy(...)"),
        ({"policy": 3}, "policy=3: give RetryPolicy(...)"),
    ],
)
def test_wrong_types_and_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        SynthesisOptions(**wrong).checked()
    assert str(refusal.value).startswith(message) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("retries", -1, "a whole number from 0 to 100"),
        ("retries", 101, "a whole number from 0 to 100"),
        ("retries", 1.0, "a whole number"),
        ("retries", True, "a whole number"),
        ("candidates", 0, "a whole number from 1 to 64"),
        ("candidates", 65, "a whole number from 1 to 64"),
        ("candidate_depth", 0, "a whole number from 1"),
        ("candidate_depth", None, "a whole number"),
        ("strict", 1, "True or False"),
        ("stop_runaways", None, "True or False"),
    ],
)
def test_wrong_policies_are_refused(name: str, value: Any, wanted: str) -> None:
    """Also as a part of options."""
    policy = RetryPolicy(**{name: value})
    for check in (policy.checked, SynthesisOptions(policy=policy).checked):
        with pytest.raises(ValueError, match=f"^{name}={value}: give {wanted}"):
            check()


def test_a_policy_that_may_replace_a_result() -> None:
    assert RetryPolicy().checks and RetryPolicy(retries=0, candidates=2).checks
    assert not RetryPolicy(retries=0).checks


def test_sampling_options_are_taken_as_they_are() -> None:
    sampling = SamplingOptions(temperature=0)
    assert SynthesisOptions(sampling=sampling).sampling is sampling
