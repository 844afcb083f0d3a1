"""The state of a stream: the keys and values that its layers can still attend to."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenizer.layers.attention import AttentionMask, build_mask, rotary_factors, rotate
from tokenizer.layers.chunk import Chunk
from tokenizer.layers.quantizer_inference import QuantizerDecoder, QuantizerEncoder
from tokenizer.layers.vocoder import VocoderState

MIN_RESERVE = 16
"""Steps that fit behind the history before it has to be moved, when the window is very short."""


def capacity(window: int) -> int:
    """Return the number of steps that a layer's block holds."""
    return window - 1 + max(window // 4, MIN_RESERVE)


@dataclass
class StageCache:
    """Keys and values of one stage's layers, for a batch of streams that share one clock.

    A layer's steps stand one behind the other in a block somewhat longer than the window, the next step
    at `stop`. When the block is full, what can still be attended to moves to its beginning: a call copies no
    history, attention reads one contiguous piece, and memory does not grow.
    """

    block: Float[Tensor, "l two b h c d"]
    window: int
    frequencies: Float[Tensor, " half"]
    parts: Any = None
    """What the stage computes with: its projection in, its layers' parts, its projection out."""
    adaptations: Float[Tensor, "b o d"] | None = None
    """Decoder adaptations (per-speaker adapters of the last projection) by slot: what each adds to the weight
    of the projection out. None where no slot ever had one."""

    def __post_init__(self) -> None:
        self.lengths = [0] * self.block.shape[2]
        """Steps of each slot's stream so far."""
        self._cached_mask: tuple[int, int, AttentionMask] | None = None
        self._begin_block(0)

    @property
    def reserve(self) -> int:
        """Steps that fit behind the history."""
        return self.block.shape[-2] - self.window + 1

    @property
    def position(self) -> int:
        """Position of the next step, for all slots; only differences between positions matter."""
        return self._position + self.stop - self.window + 1

    def extend(self, steps: int, slots: int | None = None) -> Chunk:
        """Advance the first slots, whose layers then cache their keys and values through the chunk.

        The other slots lose their history: the clock moves on without them.

        Args:
            steps: Steps by which to advance.
            slots: Number of slots that advance; all where it is None.

        Returns:
            The chunk of these steps.
        """
        block, lengths = self.block[:, :, :slots], self.lengths[:slots]
        history, end = min(max(lengths), self.window - 1), self.window - 1
        if self.stop + steps > block.shape[-2] and steps <= self.reserve:
            block[..., :end, :] = block[..., self.stop - end : self.stop, :].clone()
            self._begin_block(self.position)
        first, stop = self.stop - history, self.stop + steps
        mask = self._mask(lengths, history, steps)
        if steps <= self.reserve:
            chunk = Chunk(
                self._rotary_factors[self.stop - end : stop - end],
                mask,
                write=block[..., self.stop : stop, :].unbind(),
                read=block[..., first:stop, :].unbind(),
            )
            self.stop = stop
        else:
            chunk = Chunk(
                rotary_factors(self.position, steps, self.frequencies)[:, None, None],
                mask,
                write=block[..., max(0, end - history - steps) : end, :].unbind(),
                history=block[..., first : self.stop, :].unbind(),
            )
            self._begin_block(self.position + steps)
        self.lengths = [length + steps for length in lengths] + [0] * (len(self.lengths) - len(lengths))
        return chunk

    def _begin_block(self, position: int) -> None:
        """Set the clock: the history ends at the window's end in the block, and `position` comes next."""
        self.stop, self._position = self.window - 1, position
        self._rotary_factors = rotary_factors(position, self.reserve, self.frequencies)[:, None, None]

    def reset(self, slot: int) -> None:
        """Begin a new stream in `slot`: its old steps stay where they are, but are masked.

        Where no slot has a history, the clock begins anew too, so that a single stream is the same every
        time.
        """
        self.lengths[slot] = 0
        self.set_adaptation(slot, None)
        if not any(self.lengths):
            self._begin_block(0)

    def move(self, source: int, target: int) -> None:
        """Move the stream of slot `source` to slot `target`, and reset `source`."""
        if source != target:
            self.block[:, :, target] = self.block[:, :, source]
            self.lengths[target] = self.lengths[source]
            self.set_adaptation(target, self._adaptation(source))
        self.reset(source)

    def load_state(self, slot: int, other: "StageCache") -> None:
        """Continue the only stream of `other` in `slot`, its keys rotated to where this clock stands.

        Where no slot has a history, the clock is set to that of `other`.

        Args:
            slot: The slot that takes the history.
            other: A cache of batch 1; it is left as it is.
        """
        if not any(self.lengths):
            self._begin_block(other.position)
        steps = min(other.lengths[0], self.window - 1)
        rotation = rotary_factors(self.position - other.position, 1, self.frequencies)
        source = other.block[:, :, 0, :, other.stop - steps : other.stop]
        target = self.block[:, :, slot, :, self.stop - steps : self.stop]
        target[:, 0], target[:, 1] = rotate(source[:, 0], rotation), source[:, 1]
        self.lengths[slot] = other.lengths[0]
        self.set_adaptation(slot, other._adaptation(0))

    def set_adaptation(self, slot: int, decoder_adaptation: Float[Tensor, "o d"] | None) -> None:
        """Set the decoder adaptation (a per-speaker adapter of the last projection) of `slot`, or remove it.

        Args:
            slot: The slot that it applies to.
            decoder_adaptation: What is added to the weight of the projection out; None for nothing.
        """
        if self.adaptations is None and decoder_adaptation is not None:
            self.adaptations = self.block.new_zeros(len(self.lengths), *decoder_adaptation.shape)
        if self.adaptations is not None:
            self.adaptations[slot] = 0 if decoder_adaptation is None else decoder_adaptation

    def _adaptation(self, slot: int) -> Tensor | None:
        return None if self.adaptations is None else self.adaptations[slot]

    def snapshot(self) -> "StageCache":
        """Return only what can still be attended to: nothing can follow it, but `load_state` can read it."""
        steps = min(max(self.lengths), self.window - 1)
        duplicate = copy.copy(self)
        duplicate.adaptations = None if self.adaptations is None else self.adaptations.clone()
        duplicate.block = self.block[..., self.stop - steps : self.stop, :].clone()
        duplicate.stop, duplicate.lengths = steps, self.lengths.copy()
        duplicate._position = self.position + self.window - 1 - steps
        return duplicate

    def copy(self) -> "StageCache":
        """Return an independent copy."""
        duplicate = copy.copy(self)
        duplicate.adaptations = None if self.adaptations is None else self.adaptations.clone()
        duplicate.block, duplicate.lengths = self.block.clone(), self.lengths.copy()
        return duplicate

    def _mask(self, lengths: list[int], history: int, steps: int) -> AttentionMask:
        """Return the mask of a call; it is cached, as it stays the same once all streams fill the window."""
        if min(lengths) < history:
            device = self.block.device
            available = torch.tensor(lengths, device=device)[:, None]
            padding_mask = torch.arange(history + steps, device=device) < history - available
            return build_mask(steps, history + steps, self.window, self.block, padding_mask)
        if self._cached_mask is None or self._cached_mask[:2] != (history, steps):
            mask = build_mask(steps, history + steps, self.window, self.block)
            self._cached_mask = history, steps, mask
        return self._cached_mask[2]


@dataclass
class StreamCache:
    """The state of a batch of streams of one direction; each slot's stream may begin and end at any time.

    A call may bring fewer signals than there are slots: they use the first ones, and the others lose their
    history.
    """

    stages: list[StageCache]
    quantizer: QuantizerEncoder | QuantizerDecoder
    """An encoder or a decoder, with the weights with which the streams began."""
    vocoder: VocoderState | None = None
    """State of the vocoder of streams to decode, where the decoder ends in one."""

    @property
    def batch(self) -> int:
        """Number of slots."""
        return len(self.stages[0].lengths)

    def reset(self, slot: int) -> None:
        """Begin a new stream with an empty history in `slot`, while the others continue."""
        for stage in self.stages:
            stage.reset(slot)
        if self.vocoder:
            self.vocoder.reset(slot)

    def load_state(self, slot: int, other: "StreamCache") -> None:
        """Continue in `slot` from the state of a single stream, which is left as it is.

        Args:
            slot: The slot that continues.
            other: A cache of batch 1 and of the same direction, or its `snapshot`.

        Raises:
            ValueError: If `other` holds several streams, or is of the other direction.
        """
        if other.batch != 1:
            raise ValueError(f"a slot holds one stream, not {other.batch}: give a cache of batch 1")
        if type(self.quantizer) is not type(other.quantizer):
            raise ValueError("a stream to decode cannot continue one to encode, nor the other way round")
        for stage, source in zip(self.stages, other.stages, strict=True):
            stage.load_state(slot, source)
        if self.vocoder and other.vocoder:
            self.vocoder.load_state(slot, other.vocoder)

    def move(self, source: int, target: int) -> None:
        """Move the stream of slot `source` to slot `target`, and reset `source`."""
        for stage in self.stages:
            stage.move(source, target)
        if self.vocoder:
            self.vocoder.move(source, target)

    def snapshot(self) -> "StreamCache":
        """Return the state that `load_state` needs to continue from here, in no more memory than that."""
        vocoder = self.vocoder.copy() if self.vocoder else None
        return StreamCache([stage.snapshot() for stage in self.stages], self.quantizer, vocoder)

    def set_adaptation(self, slot: int, decoder_adaptation: Float[Tensor, "o d"]) -> None:
        """Set the decoder adaptation (a per-speaker adapter of the last projection) of `slot`, to its reset.

        Args:
            slot: A slot of streams to decode.
            decoder_adaptation: What is added to the weight of the decoder's last projection.
        """
        self.stages[-1].set_adaptation(slot, decoder_adaptation)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values, of decoder adaptations, and of the vocoder's state."""
        tensors = (tensor for stage in self.stages for tensor in (stage.block, stage.adaptations))
        total = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        return total + (self.vocoder.nbytes if self.vocoder else 0)

    def copy(self) -> "StreamCache":
        """Return an independent copy: a second stream that continues from here."""
        vocoder = self.vocoder.copy() if self.vocoder else None
        return StreamCache([stage.copy() for stage in self.stages], self.quantizer, vocoder)
