"""The one way to new frames: takes join and leave between frames, and each step makes a frame for all.

decoder = FrameDecoder(model, slots=8)
slot = decoder.join(take)
while slot in decoder.active:
    row = decoder.step()[slot]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cat_tts.generation.depth_step import DepthStep, Frame
from cat_tts.generation.int8_linear import Weights, check_weights
from cat_tts.generation.sampling import Knobs, SamplingOptions
from cat_tts.generation.temporal_step import TemporalStep
from cat_tts.model.tts import CatTTS
from cat_tts.sequences.rows import untold_rows


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """One take to be made: what it continues, and how."""

    rows: Int[Tensor, "n c"]
    positions: Float[Tensor, " n"] | None = None
    """Rotary positions of the rows (`sequence.positions`), by default their count; new rows count on."""
    depth: int
    seed: int
    options: SamplingOptions
    min_frames: int = 1
    """Stopping is not on offer before."""
    max_frames: int
    forced: Int[Tensor, "f k"] | None = None
    """The first k codebooks of the f frames that the take shall have; the model adds the deeper ones."""


@dataclass
class _Take:
    asked: Continuation
    slot: int
    length: int
    """Rows that the temporal cache holds."""
    position: float
    """Of the next row."""
    frames: int = 0
    """Made so far; the last one is not in the temporal cache yet."""

    @property
    def limit(self) -> int:
        forced = self.asked.forced
        return self.asked.max_frames if forced is None else min(len(forced), self.asked.max_frames)


class FrameDecoder:
    """A fixed number of slots; every step makes one frame for all takes that are in.

    What a take becomes depends on its own rows, seed and options, not on who shares the batch nor on when
    they come and go.
    """

    def __init__(
        self, model: CatTTS, slots: int = 1, weights: Weights = "float", *, any_text: bool = False
    ) -> None:
        """Fuses the weights of the model, which reads prompts with its own: it must not change after.

        `any_text` takes the likeliest id of a full text head, whatever it is, as the published code does
        when greedy; otherwise only going on and stopping are on offer."""
        if slots < 1:
            raise ValueError(f"slots={slots}: a decoder needs room for one take or more")
        config = model.config
        self.model, self.slots = model, slots
        device = model.text_embedding.weight.device
        check_weights(weights, device)
        self.temporal = TemporalStep(model, slots, weights)
        self.depth = DepthStep(model, slots, weights, any_text=any_text)
        tables = [table.weight.detach() for table in model.code_embeddings]
        self._codes = torch.cat([*tables, tables[0].new_zeros(1, config.temporal.dim)])
        self._offsets = torch.arange(config.num_codebooks, device=device) * (config.codebook_size + 1)
        self._states = tables[0].new_zeros(slots, config.temporal.dim)
        self._twin: TemporalStep | None = None
        """Reads what the takes read but their text; there from the first guided take on."""
        self._untold = torch.zeros_like(self._states)
        self._rows = torch.zeros(slots, 1 + config.num_codebooks, dtype=torch.long, device=device)
        self._seen = torch.zeros(
            slots, config.num_codebooks, config.codebook_size, dtype=torch.bool, device=device
        )
        self.static = device.type == "cuda"
        """Compute in few shapes, a bucket of rows each, that a CUDA graph can hold."""
        self.buckets = sorted({min(2**i, slots) for i in range(slots.bit_length() + 1)})
        self._takes: list[_Take] = []  # take i lies in row i of all these

    @property
    def free(self) -> int:
        return self.slots - len(self._takes)

    @property
    def active(self) -> list[int]:
        """Slots of the takes that are in."""
        return [take.slot for take in self._takes]

    @property
    def cache_bytes(self) -> int:
        """Memory of the caches as they are now."""
        twin = self._twin.cache_bytes if self._twin else 0
        return self.temporal.cache_bytes + twin + self.depth.cache_bytes + self._seen.nbytes

    @torch.inference_mode()
    def join(self, take: Continuation) -> int:
        """Read a take's rows; its first frame comes with the next step. There must be a `free` slot."""
        config = self.model.config
        if not 1 <= take.depth <= config.num_codebooks:
            raise ValueError(f"depth={take.depth} but this model has {config.num_codebooks} codebooks")
        if take.max_frames < 1:
            raise ValueError(f"max_frames={take.max_frames}: a take has one frame or more")
        assert self.free, "no slot is free"
        row, device = len(self._takes), self._states.device
        positions = None if take.positions is None else take.positions.to(device)
        rows = take.rows.to(device)
        self._states[row] = self.temporal.prefill(row, rows, positions, take.depth)
        if take.options.guidance != 1:
            if self._twin is None:
                self._twin = self.temporal.twin()
                self.depth.reserve(2 * self.slots)
            untold = untold_rows(config, rows)
            self._untold[row] = self._twin.prefill(row, untold, positions, take.depth)
        self._seen[row] = False
        slot = min(set(range(self.slots)) - set(self.active))
        length = len(take.rows)
        last = float(length - 1 if take.positions is None else take.positions[-1])
        self._takes.append(_Take(take, slot, length, last + 1))
        self._arrange()
        return slot

    def warm_up(self, take: Continuation) -> None:
        """Make frames like those of `take` in every size of batch, so that later ones do not wait for what is
        prepared once (on CUDA: graphs). Nobody may be in."""
        for takes in self.buckets:
            slots = [self.join(take) for _ in range(takes)]
            for _ in range(2):
                self.step()
            for slot in set(slots) & set(self.active):
                self.leave(slot)

    @torch.inference_mode()
    def leave(self, slot: int) -> None:
        """Break a take off: its slot is free again."""
        self._remove(self.active.index(slot))

    @torch.inference_mode()
    def step(self) -> dict[int, Int[Tensor, " e"]]:
        """The next frame of every take, by slot: text id and `depth` codes, on the CPU.

        A row whose text id is audio_end holds no codes: the take has decided to end. Then, and with its last
        frame when it reaches max_frames or has no more forced ones, it has left, and its slot is free.
        """
        if not self._takes:
            return {}
        self._advance()
        rows = self._frame().to("cpu", copy=True)
        made: dict[int, Tensor] = {}
        for i, take in reversed(list(enumerate(self._takes))):
            row = rows[i, : 1 + take.asked.depth]
            take.frames += 1
            ended = int(row[0]) == self.model.config.tokens.audio_end
            if ended:
                row[1:] = self.model.config.pad_code
            if ended or take.frames == take.limit:
                self._remove(i)
            made[take.slot] = row
        return made

    def _advance(self) -> None:
        """Read the rows that the last step made."""
        if not any(take.frames for take in self._takes):
            return
        takes = self._padded()
        rows, lengths = self._rows[: len(takes)], [take.length for take in takes]
        codes = rows[:, 1 : 1 + self._deepest] + self._offsets[: self._deepest]
        codes = codes.masked_fill(self._dropped, len(self._codes) - 1)
        x = self.model.text_embedding(rows[:, 0]) + nn.functional.embedding(codes, self._codes).sum(1)
        positions = torch.tensor([take.position for take in takes], dtype=torch.float32).to(x.device)
        untold = None
        self.temporal.reserve(max(lengths) + 1)
        states = self.temporal(x, positions, lengths, static=self.static)
        if self._guided and self._twin is not None:
            self._twin.reserve(max(lengths) + 1)
            untold = self._twin(x, positions, lengths, static=self.static)
        # Takes that have just joined are computed along, beyond their end, and what comes of it is dropped.
        for i, take in enumerate(self._takes):
            if take.frames:
                self._states[i] = states[i]
                if untold is not None:
                    self._untold[i] = untold[i]
                take.length += 1
                take.position += 1

    def _frame(self) -> Int[Tensor, "n e"]:
        """One frame of all takes, in their order; of a row, no more counts than its take's own depth."""
        order, device, padded = self._order, self._states.device, self._padded()
        ordered = [padded[i] for i in order]
        states, seen, untold = (x[: len(order)] for x in (self._states, self._seen, self._untold))
        if self._turned is not None:
            states, seen, untold = states[self._turned], seen[self._turned], untold[self._turned]
        going = [take.frames < take.asked.min_frames or take.asked.forced is not None for take in ordered]
        made = self.depth(
            Frame(
                states=states,
                untold=untold if self._guided else None,
                counts=self._counts,
                codes=self._knobs[0],
                decision=self._knobs[1],
                seeds=self._seeds,
                frames=torch.tensor([take.frames for take in ordered], device=device),
                going=torch.tensor(going, device=device),
                seen=seen,
                forced=self._forced(ordered),
            ),
            static=self.static,
        )
        rows = self._rows[: len(order), : 1 + self._deepest]
        if self._turned is None:
            rows.copy_(made)
        else:
            rows[self._turned] = made
        if self._knobs[0].penalised:
            self._seen[: len(order), : self._deepest].scatter_(2, rows[:, 1:, None], True)
        return rows[: len(self._takes)]

    def _padded(self) -> list[_Take]:
        """All takes, where shapes are static the last one repeated to fill the bucket."""
        rows = len(self._takes)
        if self.static:
            rows = min(bucket for bucket in self.buckets if bucket >= rows)
        return self._takes + self._takes[-1:] * (rows - len(self._takes))

    def _forced(self, takes: Sequence[_Take]) -> Int[Tensor, "n k"] | None:
        if all(take.asked.forced is None for take in takes):
            return None
        codes = torch.full((len(takes), self._deepest), -1)
        for row, take in zip(codes, takes, strict=True):
            if take.asked.forced is not None:
                row[: take.asked.forced.shape[1]] = take.asked.forced[take.frames]
        return codes.to(self._states.device)

    def _remove(self, index: int) -> None:
        """Take out a take; the last one moves to its row."""
        last = len(self._takes) - 1
        if index != last:
            for tensor in (self._states, self._untold, self._rows, self._seen):
                tensor[index] = tensor[last]
            for step in (self.temporal, self._twin):
                if step is not None:
                    step.move(last, index)
            self._takes[index] = self._takes[last]
        self._takes.pop()
        self._arrange()

    def _arrange(self) -> None:
        """What follows from who is in: the deepest take is computed first, so that others can drop out.

        Where shapes are static, empty rows are computed along, like the last take, and none drops out.
        """
        if not self._takes:
            return
        device, size = self._states.device, self.model.config.codebook_size
        padded = self._padded()
        depths = [take.asked.depth for take in padded]
        self._order, self._deepest = list(range(len(depths))), max(depths)
        self._counts = (len(depths),) * self._deepest
        if not self.static:
            self._order.sort(key=lambda i: -depths[i])
            self._counts = tuple(sum(depth > k for depth in depths) for k in range(self._deepest))
        takes = [padded[i] for i in self._order]
        options = [take.asked.options for take in takes]
        self._guided = any(one.guidance != 1 for one in options)
        self._knobs = (
            Knobs.of(options, size, device),
            Knobs.of([one.decision() for one in options], 2, device),
        )
        self._seeds = torch.tensor([take.asked.seed for take in takes], device=device)
        in_order = self._order == list(range(len(takes)))
        self._turned = None if in_order else torch.tensor(self._order, device=device)
        kept = torch.tensor(depths, device=device)[:, None]
        self._dropped = torch.arange(self._deepest, device=device) >= kept
