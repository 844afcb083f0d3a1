"""What a stream remembers: the keys and values that its layers can still look back at."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from tokenizer.layers.attention import Sight, rotate, sight, turns
from tokenizer.layers.quantizer_inference import Lookup, Search
from tokenizer.layers.vocoder import VocoderState

SMALLEST_RESERVE = 16
"""Steps that fit behind the past before it has to be moved, when the window is very short."""


@dataclass(frozen=True)
class Chunk:
    """The steps of one call to a stage: how they turn, what they see, and where they are remembered."""

    turns: Complex[Tensor, "t one one half"]
    seen: Sight
    past: tuple[Float[Tensor, "two b h p d"], ...] = ()
    """By layer; only where past and chunk do not fit into the block together."""
    write: tuple[Float[Tensor, "two b h w d"], ...] = ()
    read: tuple[Float[Tensor, "two b h m d"], ...] = ()

    @property
    def steps(self) -> int:
        return len(self.turns)

    def extend(
        self, layer: int, qkv: Float[Tensor, "three b h t d"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h m d"], Float[Tensor, "b h m d"]]:
        """One layer's queries, and keys and values behind the past that the queries may look back at."""
        if not self.write:
            q, k, v = qkv.unbind()
            return q, k, v
        q, kv = qkv[0], qkv[1:]
        if kv.requires_grad:
            kv = kv.detach()
        if self.past:
            kv = torch.cat([self.past[layer], kv], -2)
            self.write[layer].copy_(kv[..., kv.shape[-2] - self.write[layer].shape[-2] :, :])
        else:
            self.write[layer].copy_(kv)
            kv = self.read[layer]
        k, v = kv.unbind()
        return q, k, v


def alone(x: Float[Tensor, "n d"], steps: int, window: int, frequencies: Float[Tensor, " half"]) -> Chunk:
    """A whole signal at once: no past, and nothing to remember."""
    return Chunk(turns(0, steps, frequencies)[:, None, None], sight(steps, steps, window, x))


def capacity(window: int) -> int:
    """Steps that a layer's block holds."""
    return window - 1 + max(window // 4, SMALLEST_RESERVE)


@dataclass
class StageCache:
    """The past of one stage's layers, for a batch of streams that share one clock.

    A layer's steps stand one behind the other in a block somewhat longer than the window, the next step
    at `stop`. When the block is full, what can still be seen moves to its beginning: a call copies no
    past, attention reads one contiguous piece, and memory does not grow.
    """

    block: Float[Tensor, "l two b h c d"]
    window: int
    frequencies: Float[Tensor, " half"]
    parts: Any = None
    """What the stage computes with: its projection in, its layers' parts, its projection out."""
    timbres: Float[Tensor, "b o d"] | None = None
    """What each row adds to the projection out; None where no row ever did."""

    def __post_init__(self) -> None:
        self.lived = [0] * self.block.shape[2]
        """Steps of each row's stream so far."""
        self._sight: tuple[int, int, Sight] | None = None
        self._begin_block(0)

    @property
    def reserve(self) -> int:
        """Steps that fit behind the past."""
        return self.block.shape[-2] - self.window + 1

    @property
    def position(self) -> int:
        """Of the next step, for all rows; only differences between positions matter."""
        return self._position + self.stop - self.window + 1

    def extend(self, steps: int, rows: int | None = None) -> Chunk:
        """Move the first `rows`, or all, on by `steps`; what each layer passes through the chunk fills them.

        The other rows lose their past: the clock moves on without them.
        """
        block, living = self.block[:, :, :rows], self.lived[:rows]
        past, end = min(max(living), self.window - 1), self.window - 1
        if self.stop + steps > block.shape[-2] and steps <= self.reserve:
            block[..., :end, :] = block[..., self.stop - end : self.stop, :].clone()
            self._begin_block(self.position)
        first, stop, seen = self.stop - past, self.stop + steps, self._seen(living, past, steps)
        if steps <= self.reserve:
            chunk = Chunk(
                self._turns[self.stop - end : stop - end],
                seen,
                write=block[..., self.stop : stop, :].unbind(),
                read=block[..., first:stop, :].unbind(),
            )
            self.stop = stop
        else:
            chunk = Chunk(
                turns(self.position, steps, self.frequencies)[:, None, None],
                seen,
                write=block[..., max(0, end - past - steps) : end, :].unbind(),
                past=block[..., first : self.stop, :].unbind(),
            )
            self._begin_block(self.position + steps)
        self.lived = [count + steps for count in living] + [0] * (len(self.lived) - len(living))
        return chunk

    def _begin_block(self, position: int) -> None:
        """The past stands at the beginning of the block, and the step at `position` comes next."""
        self.stop, self._position = self.window - 1, position
        self._turns = turns(position, self.reserve, self.frequencies)[:, None, None]

    def restart(self, row: int) -> None:
        """Let `row` begin anew: what was before stays where it is, but this row no longer sees it.

        Where no row has a past, the clock begins anew too, so that a stream alone is the same every time.
        """
        self.lived[row] = 0
        self.tint(row, None)
        if not any(self.lived):
            self._begin_block(0)

    def move(self, source: int, target: int) -> None:
        """Let `target` be what `source` is, and `source` begin anew."""
        if source != target:
            self.block[:, :, target] = self.block[:, :, source]
            self.lived[target] = self.lived[source]
            self.tint(target, self._timbre(source))
        self.restart(source)

    def adopt(self, row: int, other: "StageCache") -> None:
        """Give `row` the past of the only row of `other`, its keys turned to where this clock stands.

        Where no row has a past, the clock is set to theirs.
        """
        if not any(self.lived):
            self._begin_block(other.position)
        kept = min(other.lived[0], self.window - 1)
        turning = turns(self.position - other.position, 1, self.frequencies)
        past = other.block[:, :, 0, :, other.stop - kept : other.stop]
        own = self.block[:, :, row, :, self.stop - kept : self.stop]
        own[:, 0], own[:, 1] = rotate(past[:, 0], turning), past[:, 1]
        self.lived[row] = other.lived[0]
        self.tint(row, other._timbre(0))

    def tint(self, row: int, timbre: Float[Tensor, "o d"] | None) -> None:
        """Let `row` add `timbre`, or nothing, to the stage's projection out."""
        if self.timbres is None and timbre is not None:
            self.timbres = self.block.new_zeros(len(self.lived), *timbre.shape)
        if self.timbres is not None:
            self.timbres[row] = 0 if timbre is None else timbre

    def _timbre(self, row: int) -> Tensor | None:
        return None if self.timbres is None else self.timbres[row]

    def past(self) -> "StageCache":
        """What can still be seen, alone: no room to go on, but to be adopted."""
        kept = min(max(self.lived), self.window - 1)
        twin = copy.copy(self)
        twin.timbres = None if self.timbres is None else self.timbres.clone()
        twin.block = self.block[..., self.stop - kept : self.stop, :].clone()
        twin.stop, twin._position, twin.lived = (
            kept,
            self.position + self.window - 1 - kept,
            self.lived.copy(),
        )
        return twin

    def copy(self) -> "StageCache":
        twin = copy.copy(self)
        twin.timbres = None if self.timbres is None else self.timbres.clone()
        twin.block, twin.lived = self.block.clone(), self.lived.copy()
        return twin

    def _seen(self, living: list[int], past: int, steps: int) -> Sight:
        """Kept from call to call, as it stays the same once all rows have lived for a window."""
        if min(living) < past:
            lived = torch.tensor(living, device=self.block.device)[:, None]
            hidden = torch.arange(past + steps, device=self.block.device) < past - lived
            return sight(steps, past + steps, self.window, self.block, hidden)
        if self._sight is None or self._sight[:2] != (past, steps):
            self._sight = past, steps, sight(steps, past + steps, self.window, self.block)
        return self._sight[2]


@dataclass
class StreamCache:
    """Where a batch of streams of one direction stands; each row may begin and end when it likes.

    A call may bring fewer rows than there are: they are the first ones, and the others lose their past.
    """

    stages: list[StageCache]
    quantizer: Search | Lookup
    """A Search encodes, a Lookup decodes, with the weights with which the streams began."""
    vocoder: VocoderState | None = None
    """Of streams to decode, where the decoder ends in one."""

    @property
    def batch(self) -> int:
        return len(self.stages[0].lived)

    def restart(self, row: int) -> None:
        """Let `row` begin a new stream with an empty past, while the others go on."""
        for stage in self.stages:
            stage.restart(row)
        if self.vocoder:
            self.vocoder.restart(row)

    def adopt(self, row: int, other: "StreamCache") -> None:
        """Let `row` go on from where `other`, a stream alone, stands; `other` is left as it is."""
        if other.batch != 1:
            raise ValueError(f"a row can adopt one stream, not {other.batch}: give a cache of batch 1")
        if type(self.quantizer) is not type(other.quantizer):
            raise ValueError("a stream to decode cannot go on from one to encode, nor the other way round")
        for stage, theirs in zip(self.stages, other.stages, strict=True):
            stage.adopt(row, theirs)
        if self.vocoder and other.vocoder:
            self.vocoder.adopt(row, other.vocoder)

    def move(self, source: int, target: int) -> None:
        """Let row `target` go on as row `source`, and that begin anew."""
        for stage in self.stages:
            stage.move(source, target)
        if self.vocoder:
            self.vocoder.move(source, target)

    def past(self) -> "StreamCache":
        """What a stream that goes on from here has to adopt; it takes no more memory than that."""
        vocoder = self.vocoder.copy() if self.vocoder else None
        return StreamCache([stage.past() for stage in self.stages], self.quantizer, vocoder)

    def tint(self, row: int, timbre: Float[Tensor, "o d"]) -> None:
        """Let `row` of streams to decode add `timbre` to the decoder's last projection, until it restarts."""
        self.stages[-1].tint(row, timbre)

    @property
    def nbytes(self) -> int:
        """Of the keys and values, of timbres, and of what a vocoder remembers."""
        held = (tensor for stage in self.stages for tensor in (stage.block, stage.timbres))
        blocks = sum(tensor.nbytes for tensor in held if tensor is not None)
        return blocks + (self.vocoder.nbytes if self.vocoder else 0)

    def copy(self) -> "StreamCache":
        """A second stream that goes on from here on its own."""
        vocoder = self.vocoder.copy() if self.vocoder else None
        return StreamCache([stage.copy() for stage in self.stages], self.quantizer, vocoder)
