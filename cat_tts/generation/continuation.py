"""The sequences of a frame decoder: requests to continue one, and their state."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from cat_tts.generation.sampling import SamplingOptions

Owner = TypeVar("Owner")


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
    speaker: Float[Tensor, " e"] | None = None
    """Voice vector of the prompt, for models with a `speaker_dim`; None: none is added to the rows."""


@dataclass(eq=False)
class ActiveSequence(Generic[Owner]):
    """A sequence in the batch of a frame decoder, and how far it is."""

    request: Continuation
    owner: Owner
    """What its frames are for: any object, by which the caller recognizes the sequence."""
    length: int
    """Rows that the temporal cache holds."""
    position: float
    """Position of the next row."""
    frames: int = 0
    """Frames generated so far; the last one is not in the temporal cache yet."""
    row: Int[Tensor, " e"] = field(init=False)
    """The newest row: text id and codes [1 + depth], on the CPU."""
    stopped: bool = False
    """Whether the model has decided to stop: the row's text id is audio_end, and its codes are pads."""

    @property
    def ended(self) -> bool:
        """Whether the newest row is the last: the model stopped, or no more frames are allowed or forced."""
        forced = self.request.forced
        limit = self.request.max_frames if forced is None else min(len(forced), self.request.max_frames)
        return self.stopped or self.frames >= limit
