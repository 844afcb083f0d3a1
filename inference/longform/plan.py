"""The plan for a text of any length: a request for every segment, and the pauses around them."""

from dataclasses import dataclass, replace

from inference.engine.options import SynthesisOptions
from inference.engine.request import Request, check_texts
from inference.engine.seeds import derived_seed
from inference.synthesis.models import SpeechModels
from inference.text.normalization import normalize
from inference.text.segmentation import expected_seconds, split
from inference.voices.voice import Voice


@dataclass(frozen=True, kw_only=True)
class SpeechPlan:
    """The requests of a text, and the pauses between them."""

    requests: tuple[Request, ...]
    """One for every segment."""
    pauses: tuple[float, ...]
    """Seconds of silence before the first segment and after each."""
    options: SynthesisOptions
    """Those of the text; each request has a seed of its own."""

    @property
    def is_single_segment(self) -> bool:
        """Whether the plan is a single request without pauses, whose audio is not trimmed."""
        return len(self.requests) == 1 and not any(self.pauses)

    @property
    def expected_seconds(self) -> float:
        """The approximate duration of the audio with its pauses."""
        return sum(self.pauses) + sum(expected_seconds(request.text) for request in self.requests)


def plan(
    models: SpeechModels, text: str, voice: Voice, options: SynthesisOptions | None = None
) -> SpeechPlan:
    """Split a text, spelled out as it is spoken, and create the requests of its segments.

    Every segment continues the same prompt, so that the voice cannot drift.

    Args:
        models: What will speak.
        text: A text of any length, which may contain pause directives.
        voice: The voice of all segments.
        options: How to speak.

    Returns:
        The plan. A text of one segment without pauses becomes the single request with the seed itself; other
        seeds are derived from it and the numbers of the segments.

    Raises:
        ValueError: the text or an option cannot be used; the message is one line.
    """
    options = models.resolve(options)
    check_texts(text, voice.text if isinstance(voice, Voice) else "?", options.mode)
    split_text = split(normalize(text) if options.normalize else text, options.segment_seconds)
    requests = tuple(
        models.request(segment.text, voice, replace(options, seed=derived_seed(options.seed, index)))
        for index, segment in enumerate(split_text.segments)
    )
    pauses = (split_text.lead_seconds, *(segment.pause_seconds for segment in split_text.segments))
    return SpeechPlan(requests=requests, pauses=pauses, options=options)
