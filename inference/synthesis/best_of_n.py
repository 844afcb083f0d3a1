"""Drafts at a shallow depth, which cost little, and the best of them mastered at full depth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from cat_tts.asr.ctc_score import UNHEARD, heard
from cat_tts.asr.model import CatASR
from cat_tts.generation.text_likelihood import text_evidence
from inference.engine.engine import Engine
from inference.engine.request import Request
from inference.engine.result import Take
from inference.engine.seeds import derived_seed
from inference.engine.stopping_rules import runaway_guard
from inference.synthesis.batch import together
from inference.synthesis.synthesizer import Synthesizer
from inference.text.duration import usual_frames

MOST_TOGETHER = 8
"""Drafts that are made at a time."""
DRAFT_DEPTH = 4
"""Enough to tell words and voice, at a fraction of the work."""
MIN_PACE, MAX_PACE = 0.5, 3.0
"""How much slower than usual a prompt may be spoken; beyond, its transcript does not fit it."""
UNDERSTOOD = -0.6
"""Of `heard_of`, what is good enough: two takes of three of the embedded model."""
LOWEST_VOICE, HIGHEST_VOICE = 60.0, 400.0
"""Hertz."""

Scorer = Callable[[Take], float]
"""The better the take, the higher."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best draft, mastered, and what the scorer gave to each draft."""

    take: Take
    scores: tuple[float, ...]


def best_of(
    synthesizer: Synthesizer,
    request: Request,
    drafts: int,
    *,
    draft_depth: int = DRAFT_DEPTH,
    scorer: Scorer | None = None,
    on_frame: Callable[[int], object] | None = None,
) -> Choice:
    """`best_of_each` of one request, by an engine of the synthesizer's."""
    engine = synthesizer.engine(max(1, min(drafts, MOST_TOGETHER)))
    (choice,) = best_of_each(
        synthesizer, engine, [request], drafts, draft_depth=draft_depth, scorer=scorer, on_frame=on_frame
    )
    return choice


def best_of_each(
    synthesizer: Synthesizer,
    engine: Engine,
    requests: Sequence[Request],
    drafts: int,
    *,
    draft_depth: int = DRAFT_DEPTH,
    scorer: Scorer | None = None,
    on_frame: Callable[[int], object] | None = None,
) -> list[Choice]:
    """Make drafts together, with seeds derived from each request's, rank them, and master the best at its
    depth.

    The scorer is `score` by default; of equals the first is taken. `on_frame` is called with the
    number of frames of the longest draft so far.
    """
    if drafts < 1:
        raise ValueError(f"the best of {drafts} drafts: ask for at least 1")
    if draft_depth < 1:
        raise ValueError(f"drafts of depth {draft_depth}: choose 1 or more")
    asked = [
        replace(request, depth=min(draft_depth, request.depth), seed=derived_seed(request.seed, n))
        for request in requests
        for n in range(drafts)
    ]
    takes = together(synthesizer, engine, asked, guarded=True, on_frame=on_frame)
    scores = [scorer(take) if scorer else score(synthesizer, take) for take in takes]
    rows = range(0, len(takes), drafts)
    best = [takes[max(range(row, row + drafts), key=lambda n: (scores[n], -n))] for row in rows]
    shallow = [i for i, take in enumerate(best) if take.depth < requests[i].depth]
    deep = [synthesizer.mastering(best[i], requests[i].depth) for i in shallow]
    for i, take in zip(shallow, together(synthesizer, engine, deep), strict=True):
        best[i] = replace(take, stop_reason=best[i].stop_reason)
    return [
        Choice(take=take, scores=tuple(scores[row : row + drafts]))
        for take, row in zip(best, rows, strict=True)
    ]


def watched(
    synthesizer: Synthesizer, request: Request, on_frame: Callable[[int], object] | None = None
) -> Take:
    """The take of a request, ended early where it runs away."""
    with synthesizer.start(request, guard=runaway_guard(request.text)) as stream:
        for _ in stream:
            if on_frame is not None:
                on_frame(stream.frames)
    return stream.take


def score(synthesizer: Synthesizer, take: Take) -> float:
    """Its plausibility, and how plainly it says its text, as far as the model can tell.

    A model that brings a CAT-ASR listens (`heard_of`). One that is guided (`SamplingOptions.guidance`) has
    learnt speech without its text, and gives the evidence of the text, in nats a frame.
    """
    plausible, request = plausibility(take), take.request
    if request is None or not len(take.codes):
        return plausible
    if synthesizer.listener is not None:
        return plausible + max(heard_of(synthesizer.listener, take), UNHEARD)
    if request.sampling.guidance == 1:
        return plausible
    return plausible + text_evidence(synthesizer.tts, synthesizer.job(request).continuation, take.codes)


def heard_of(listener: CatASR, take: Take) -> float:
    """`cat_tts.asr.ctc_score.heard` of a take and the text that it was to say; 0 where the text has no sound
    that the listener knows."""
    if take.request is None or not listener.spell(take.request.text):
        return 0.0
    return heard(listener, [take.codes[:, : listener.config.num_codebooks]], take.request.text)[0]


def satisfies(synthesizer: Synthesizer, take: Take) -> bool:
    """Whether a take need not be made again: it ended by itself, and if somebody listens, is understood."""
    listener = synthesizer.listener
    return take.stop_reason == "end" and (listener is None or heard_of(listener, take) >= UNDERSTOOD)


def plausibility(take: Take) -> float:
    """How much a take is like one in which the text is spoken, as far as can be told without a recogniser.

    One point for an end that the model decided; less the absolute logarithm of how much longer or shorter it
    is than the text usually takes at the pace of the prompt; and up to one point for the share of voiced
    frames, full at half of them, as in speech.
    """
    if not len(take.codes):
        return -math.inf
    ended = float(take.stop_reason == "end")
    return ended - abs(math.log(len(take.codes) / expected_frames(take))) + min(1.0, 2 * voiced_share(take))


def expected_frames(take: Take) -> float:
    """How many frames its text takes at the pace of the prompt."""
    if take.request is None:
        raise ValueError("this take does not say what it answers: score the takes that it was made of")
    voice = take.request.voice
    pace = len(voice.codes) / usual_frames(voice.text) if voice.text.strip() else 1.0
    return max(1.0, usual_frames(take.request.text) * min(max(pace, MIN_PACE), MAX_PACE))


def voiced_share(take: Take) -> float:
    """Share of its stretches of 40 ms that have a pitch: a clear peak of their autocorrelation."""
    return float(voiced(take.audio, take.sample_rate).mean())


def voiced(audio: Float[np.ndarray, " s"], sample_rate: int) -> Float[np.ndarray, " t"]:
    """1 for every 40 ms that are like themselves a pitch period later, and not 40 dB below the loudest."""
    size = sample_rate // 25
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64)
    frames = frames - frames.mean(1, keepdims=True)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * size)) ** 2)[:, :size]
    power = correlation[:, 0]
    shortest, longest = int(sample_rate / HIGHEST_VOICE), int(sample_rate / LOWEST_VOICE)
    lags = np.arange(shortest, longest + 1)
    peak = (correlation[:, lags] * size / (size - lags)).max(1)
    loud = power > max(float(power.max(initial=0.0)) * 1e-4, 1e-9)
    return (loud & (peak > 0.5 * power)).astype(np.float64)
