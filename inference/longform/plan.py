"""A text of any length as it is asked of a model: a request for every piece, and the silence around them."""

from dataclasses import dataclass

from cat_tts import SamplingOptions
from inference.engine.request import Mode, Request
from inference.engine.seeds import derived_seed
from inference.synthesis.synthesizer import Synthesizer
from inference.text.segmentation import PIECE_SECONDS, Script, split, usual_seconds
from inference.voices.voice import Voice


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is spoken, piece by piece."""

    script: Script
    requests: tuple[Request, ...]
    """One for every piece of the script."""

    @property
    def alone(self) -> bool:
        """It is a single take, heard as it is."""
        (piece, *more), lead = self.script.pieces, self.script.lead_seconds
        return not more and not lead and not piece.pause_seconds

    @property
    def usual_seconds(self) -> float:
        """About how long all of it lasts."""
        spoken = sum(usual_seconds(piece.text) + piece.pause_seconds for piece in self.script.pieces)
        return self.script.lead_seconds + spoken


def plan(
    synthesizer: Synthesizer,
    text: str,
    voice: Voice,
    *,
    depth: int | None = None,
    seed: int = 0,
    sampling: SamplingOptions | None = None,
    mode: Mode = "continuation",
    piece_seconds: float = PIECE_SECONDS,
    max_seconds: float | None = None,
) -> Plan:
    """Every piece continues the same prompt, so that the voice cannot drift, with a seed derived from `seed`
    and its number; the first has the seed itself, and a text of one piece without pauses is its take.

    ValueError, in one line, for all that can be refused.
    """
    script = split(text, piece_seconds)
    requests = tuple(
        synthesizer.request(
            piece.text,
            voice,
            depth=depth,
            seed=derived_seed(seed, index),
            sampling=sampling,
            mode=mode,
            max_seconds=max_seconds,
        )
        for index, piece in enumerate(script.pieces)
    )
    return Plan(script=script, requests=requests)
