"""The plan for a text of any length: a request for every segment, and the pauses around them."""

from dataclasses import dataclass

from cat_tts import SamplingOptions
from inference.engine.request import Mode, Request
from inference.engine.seeds import derived_seed
from inference.synthesis.synthesizer import Synthesizer
from inference.text.segmentation import SEGMENT_SECONDS, SegmentedText, expected_seconds, split
from inference.voices.voice import Voice


@dataclass(frozen=True, kw_only=True)
class LongFormPlan:
    """The segments of a text and their requests."""

    segmented_text: SegmentedText
    requests: tuple[Request, ...]
    """One for every segment."""

    @property
    def is_single_segment(self) -> bool:
        """Whether the plan is a single request without pauses, whose audio is not trimmed."""
        (segment, *more), lead = self.segmented_text.segments, self.segmented_text.lead_seconds
        return not more and not lead and not segment.pause_seconds

    @property
    def expected_seconds(self) -> float:
        """The approximate duration of the audio with its pauses."""
        spoken = sum(
            expected_seconds(segment.text) + segment.pause_seconds for segment in self.segmented_text.segments
        )
        return self.segmented_text.lead_seconds + spoken


def plan(
    synthesizer: Synthesizer,
    text: str,
    voice: Voice,
    *,
    depth: int | None = None,
    seed: int = 0,
    sampling: SamplingOptions | None = None,
    mode: Mode = "continuation",
    segment_seconds: float = SEGMENT_SECONDS,
    max_seconds: float | None = None,
) -> LongFormPlan:
    """Split a text and create the requests of its segments.

    Every segment continues the same prompt, so that the voice cannot drift.

    Args:
        synthesizer: The models.
        text: A text of any length, which may contain pause directives.
        voice: The voice of all segments.
        depth: Number of codebooks; all by default.
        seed: Seed of the first segment; those of the others are derived from it and their numbers.
        sampling: Sampling options; by default those that suit the model.
        mode: How the model uses the prompt.
        segment_seconds: Longest expected duration of a segment.
        max_seconds: Length limit of every segment; by default it is derived from its text.

    Returns:
        The plan. A text of one segment without pauses becomes the single request with `seed` itself.

    Raises:
        ValueError: the text or an option cannot be used; the message is one line.
    """
    segmented_text = split(text, segment_seconds)
    requests = tuple(
        synthesizer.request(
            segment.text,
            voice,
            depth=depth,
            seed=derived_seed(seed, index),
            sampling=sampling,
            mode=mode,
            max_seconds=max_seconds,
        )
        for index, segment in enumerate(segmented_text.segments)
    )
    return LongFormPlan(segmented_text=segmented_text, requests=requests)
