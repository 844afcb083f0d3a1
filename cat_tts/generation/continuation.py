"""The sequences of a frame decoder: requests to continue one, and their state."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from cat_tts.generation.sampling import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """A request to the frame decoder: a sequence to continue, and how."""

    rows: Int[Tensor, "n c"]
    positions: Float[Tensor, " n"] | None = None
    """Rotary positions of the rows (`build_prompt`), by default their index; new rows count on."""
    depth: int
    seed: int
    options: SamplingOptions
    min_frames: int = 1
    """The model may not stop before this many frames."""
    max_frames: int
    forced: Int[Tensor, "f k"] | None = None
    """The first k codebooks of the f frames, decided already; the model adds the deeper ones."""


@dataclass
class ActiveSequence:
    """A sequence in the batch of a frame decoder, and how far it is."""

    request: Continuation
    slot: int
    length: int
    """Rows that the temporal cache holds."""
    position: float
    """Position of the next row."""
    frames: int = 0
    """Frames generated so far; the last one is not in the temporal cache yet."""

    @property
    def limit(self) -> int:
        """Number of frames at which the sequence ends at the latest."""
        forced = self.request.forced
        return self.request.max_frames if forced is None else min(len(forced), self.request.max_frames)
