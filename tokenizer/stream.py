"""What a stream remembers: the keys and values that its layers can still look back at."""

import copy
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.attention import Sight, rotary_table, rotate, sight
from tokenizer.lookup import Lookup

SMALLEST_RESERVE = 16
"""Steps that fit behind the past before it has to be moved, when the window is very short."""


@dataclass
class StageCache:
    """The past of one stage's layers for a batch of streams that share one clock.

    A layer's steps stand one behind the other in a block a little longer than the window, the next step
    at `stop`. When the block is full, what is still to be seen moves to its beginning: a call copies no
    past, attention reads one contiguous piece, and memory does not grow.
    """

    keys: Float[Tensor, "l b h c d"]
    values: Float[Tensor, "l b h c d"]
    window: int
    rope_period: float
    stop: int
    position: int = 0
    """Of the next step, for all rows; only differences between positions matter."""
    lived: list[int] = field(default_factory=list)
    """Steps of each row's stream so far."""

    @classmethod
    def empty(
        cls, layers: int, batch: int, heads: int, head_dim: int, window: int, rope_period: float, like: Tensor
    ) -> "StageCache":
        """The state in which `batch` streams begin."""
        reserve = max(window // 4, SMALLEST_RESERVE)
        keys = like.new_zeros(layers, batch, heads, window - 1 + reserve, head_dim)
        return cls(keys, torch.zeros_like(keys), window, rope_period, window - 1, lived=[0] * batch)

    def extend(self, steps: int, rows: int | None = None) -> "Chunk":
        """Move the first `rows`, or all, on by `steps`; what `Chunk.append` gets from each layer fills them.

        The other rows lose their past: the clock moves on without them.
        """
        rows = len(self.lived) if rows is None else rows
        living = self.lived[:rows]
        past = min(max(living), self.window - 1)
        hidden = None
        if min(living) < past:
            lived = torch.tensor(living, device=self.keys.device)[:, None]
            hidden = torch.arange(past + steps, device=self.keys.device) < past - lived
        seen = sight(steps, past + steps, self.window, self.keys, hidden)
        turns = rotary_table(self.position, steps, self.keys.shape[-1], self.rope_period, self.keys.device)
        if self.stop + steps > self.keys.shape[3] and steps <= self.keys.shape[3] - (self.window - 1):
            for block in (self.keys, self.values):
                past_end = block[:, :rows, :, self.stop - self.window + 1 : self.stop]
                block[:, :rows, :, : self.window - 1] = past_end.clone()
            self.stop = self.window - 1
        chunk = Chunk(self, rows, self.stop, past, steps, seen, turns)
        self.stop = self.stop + steps if chunk.fits else self.window - 1
        self.position += steps
        self.lived = [count + steps for count in living] + [0] * (len(self.lived) - rows)
        return chunk

    def restart(self, row: int) -> None:
        """Let `row` begin anew: what was before stays where it is, but this row no longer sees it."""
        self.lived[row] = 0

    def move(self, source: int, target: int) -> None:
        """Let `target` be what `source` is, and `source` begin anew."""
        if source != target:
            for block in (self.keys, self.values):
                block[:, target] = block[:, source]
            self.lived[target] = self.lived[source]
        self.lived[source] = 0

    def adopt(self, row: int, other: "StageCache") -> None:
        """Give `row` the past of the only row of `other`, its keys turned to where this clock stands.

        Where no row has a past, the clock is set as well, so that a stream alone is the same every time.
        """
        if not any(self.lived):
            self.position, self.stop = other.position, self.window - 1
        kept = min(other.lived[0], self.window - 1)
        turn = rotary_table(
            self.position - other.position, 1, self.keys.shape[-1], self.rope_period, self.keys.device
        )
        theirs, mine = slice(other.stop - kept, other.stop), slice(self.stop - kept, self.stop)
        self.keys[:, row, :, mine] = rotate(other.keys[:, 0, :, theirs], turn)
        self.values[:, row, :, mine] = other.values[:, 0, :, theirs]
        self.lived[row] = other.lived[0]

    def past(self) -> "StageCache":
        """What can still be seen, alone: no room to go on, but to be adopted."""
        kept = slice(self.stop - min(max(self.lived), self.window - 1), self.stop)
        twin = copy.copy(self)
        twin.keys, twin.values = self.keys[:, :, :, kept].clone(), self.values[:, :, :, kept].clone()
        twin.stop, twin.lived = twin.keys.shape[3], self.lived.copy()
        return twin

    def copy(self) -> "StageCache":
        twin = copy.copy(self)
        twin.keys, twin.values, twin.lived = self.keys.clone(), self.values.clone(), self.lived.copy()
        return twin


@dataclass(frozen=True)
class Chunk:
    """The steps of one call: where they go, what they see, and their rotary turns."""

    cache: StageCache
    rows: int
    start: int
    past: int
    steps: int
    seen: Sight
    turns: Tensor

    @property
    def fits(self) -> bool:
        return self.start + self.steps <= self.cache.keys.shape[3]

    def append(
        self, layer: int, keys: Float[Tensor, "b h t d"], values: Float[Tensor, "b h t d"]
    ) -> tuple[Float[Tensor, "b h m d"], Float[Tensor, "b h m d"]]:
        """Remember one layer's keys and values; return them behind the past that they may look back at."""
        blocks = (block[layer, : self.rows] for block in (self.cache.keys, self.cache.values))
        keys, values = (self._append(block, new) for block, new in zip(blocks, (keys, values), strict=True))
        return keys, values

    def _append(self, block: Tensor, new: Tensor) -> Tensor:
        first, stop = self.start - self.past, self.start + self.steps
        if self.fits:
            block[:, :, self.start : stop] = new
            return block[:, :, first:stop]
        whole = torch.cat([block[:, :, first : self.start], new], 2)
        kept = whole[:, :, max(0, whole.shape[2] - self.cache.window + 1) :]
        end = self.cache.window - 1
        block[:, :, end - kept.shape[2] : end] = kept
        return whole


@dataclass
class StreamCache:
    """Where a batch of streams of one direction stands; each row may begin and end when it likes.

    A call may bring fewer rows than there are: they are the first ones, and the others lose their past.
    """

    stages: list[StageCache]
    lookup: Lookup
    """Of the weights with which the streams began."""

    @property
    def batch(self) -> int:
        return len(self.stages[0].lived)

    def restart(self, row: int) -> None:
        """Let `row` begin a new stream with an empty past, while the others go on."""
        for stage in self.stages:
            stage.restart(row)

    def adopt(self, row: int, other: "StreamCache") -> None:
        """Let `row` go on from where `other`, a stream alone, stands; `other` is left as it is."""
        if other.batch != 1:
            raise ValueError(f"a row can adopt one stream, not {other.batch}: give a cache of batch 1")
        for stage, theirs in zip(self.stages, other.stages, strict=True):
            stage.adopt(row, theirs)

    def move(self, source: int, target: int) -> None:
        """Let row `target` go on as row `source`, and that begin anew."""
        for stage in self.stages:
            stage.move(source, target)

    def past(self) -> "StreamCache":
        """What a stream that goes on from here has to adopt; it takes no more memory than that."""
        return StreamCache([stage.past() for stage in self.stages], self.lookup)

    @property
    def nbytes(self) -> int:
        """Of the keys and values."""
        return sum(stage.keys.nbytes + stage.values.nbytes for stage in self.stages)

    def copy(self) -> "StreamCache":
        """A second stream that goes on from here on its own."""
        return StreamCache([stage.copy() for stage in self.stages], self.lookup)
