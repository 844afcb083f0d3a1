"""The one way to new frames: takes join and leave between frames, and each step makes a frame for all.

decoder = FrameDecoder(model, slots=8)
slot = decoder.join(take)
while slot in decoder.active:
    row = decoder.step()[slot]
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cat_tts.depth_step import DepthStep
from cat_tts.model import CatTTS
from cat_tts.products import Weights, check_weights
from cat_tts.sampling import Knobs, SamplingOptions, gumbel_noise
from cat_tts.temporal_step import TemporalStep


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
        self._rows = torch.zeros(slots, 1 + config.num_codebooks, dtype=torch.long, device=device)
        self._seen = torch.zeros(
            slots, config.num_codebooks, config.codebook_size, dtype=torch.bool, device=device
        )
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
        return self.temporal.cache_bytes + self.depth.cache_bytes + self._seen.nbytes

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
        self._states[row] = self.temporal.prefill(row, take.rows.to(device), positions, take.depth)
        self._seen[row] = False
        slot = min(set(range(self.slots)) - set(self.active))
        length = len(take.rows)
        last = float(length - 1 if take.positions is None else take.positions[-1])
        self._takes.append(_Take(take, slot, length, last + 1))
        self._arrange()
        return slot

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
        takes = self._takes
        if not any(take.frames for take in takes):
            return
        rows, lengths = self._rows[: len(takes)], [take.length for take in takes]
        codes = rows[:, 1 : 1 + self._deepest] + self._offsets[: self._deepest]
        codes = codes.masked_fill(self._dropped, len(self._codes) - 1)
        x = self.model.text_embedding(rows[:, 0]) + nn.functional.embedding(codes, self._codes).sum(1)
        positions = torch.tensor([take.position for take in takes], dtype=torch.float32).to(x.device)
        self.temporal.reserve(max(lengths) + 1)
        states = self.temporal(x, positions, lengths)
        # Takes that have just joined are computed along, beyond their end, and what comes of it is dropped.
        for i, take in enumerate(takes):
            if take.frames:
                self._states[i] = states[i]
                take.length += 1
                take.position += 1

    def _frame(self) -> Int[Tensor, "n e"]:
        """One frame of all takes, in their order; nothing else of a row counts than its own depth."""
        takes = [self._takes[i] for i in self._order]
        device = self._states.device
        states, seen = self._states[: len(takes)], self._seen[: len(takes)]
        if self._turned is not None:
            states, seen = states[self._turned], seen[self._turned]
        codes, decision = self._knobs
        noise = None
        if codes.sampled or decision.sampled:
            frames = torch.tensor([take.frames for take in takes], device=device)
            noise = gumbel_noise(self._seeds, frames, 1 + self._deepest, self.model.config.codebook_size)
            noise[:, 0] *= decision.chance
            noise[:, 1:] *= codes.chance[..., None]
        going = [take.frames < take.asked.min_frames or take.asked.forced is not None for take in takes]
        forced = None
        if any(take.asked.forced is not None for take in takes):
            forced = torch.full((len(takes), self._deepest), -1)
            for given, take in zip(forced, takes, strict=True):
                if take.asked.forced is not None:
                    given[: take.asked.forced.shape[1]] = take.asked.forced[take.frames]
            forced = forced.to(device)
        made = self.depth(
            states,
            self._counts,
            self._knobs,
            noise,
            seen if codes.penalised else None,
            torch.tensor(going, device=device),
            forced,
        )
        rows = self._rows[: len(takes), : 1 + self._deepest]
        if self._turned is None:
            rows.copy_(made)
        else:
            rows[self._turned] = made
        if codes.penalised:
            self._seen[: len(takes), : self._deepest].scatter_(2, rows[:, 1:, None], True)
        return rows

    def _remove(self, index: int) -> None:
        """Take out a take; the last one moves to its row."""
        last = len(self._takes) - 1
        if index != last:
            for tensor in (self._states, self._rows, self._seen):
                tensor[index] = tensor[last]
            self.temporal.move(last, index)
            self._takes[index] = self._takes[last]
        self._takes.pop()
        self._arrange()

    def _arrange(self) -> None:
        """What follows from who is in: the deepest take is computed first, so that others can drop out."""
        if not self._takes:
            return
        device, size = self._states.device, self.model.config.codebook_size
        depths = [take.asked.depth for take in self._takes]
        self._order = sorted(range(len(depths)), key=lambda i: -depths[i])
        self._deepest = max(depths)
        self._counts = [sum(depth > k for depth in depths) for k in range(self._deepest)]
        takes = [self._takes[i] for i in self._order]
        options = [take.asked.options for take in takes]
        self._knobs = (
            Knobs.of(options, size, device),
            Knobs.of([one.decision() for one in options], 2, device),
        )
        self._seeds = torch.tensor([take.asked.seed for take in takes], device=device)
        in_order = self._order == list(range(len(depths)))
        self._turned = None if in_order else torch.tensor(self._order, device=device)
        kept = torch.tensor(depths, device=device)[:, None]
        self._dropped = torch.arange(self._deepest, device=device) >= kept
