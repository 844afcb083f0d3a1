"""The one way to new frames: sequences join and leave between frames, and each step adds a frame to all.

decoder = FrameDecoder(model, slots=8)
decoder.join(continuation, owner)
while decoder.active:
    for sequence in decoder.step():
        print(sequence.owner, sequence.row)
        if sequence.ended:
            decoder.leave(sequence)
"""

from collections.abc import Sequence
from typing import Generic

import torch
from jaxtyping import Int
from torch import Tensor, nn

from cat_tts.generation.continuation import ActiveSequence, Continuation, Owner
from cat_tts.generation.depth_step import DepthStep, FrameInputs
from cat_tts.generation.int8_linear import Weights, check_weights
from cat_tts.generation.sampling import BatchedSamplingParams
from cat_tts.generation.temporal_step import TemporalStep
from cat_tts.model.tts import CatTTS
from cat_tts.sequences.rows import unconditional_rows


class FrameDecoder(Generic[Owner]):
    """A batch with a fixed number of slots; every step generates a frame of all sequences in it (paper 3.3).

    The frames of a sequence depend on its own rows, seed and options, not on the others in the batch nor on
    when they join and leave. New sequences join at the end of the batch; where one leaves, the last one takes
    its index, so that other states of the same sequences can follow.
    """

    def __init__(
        self, model: CatTTS, slots: int = 1, weights: Weights = "float", *, any_text: bool = False
    ) -> None:
        """Fuse the weights of a model, which must not change afterwards: it reads prompts with its own.

        Args:
            model: The TTS model.
            slots: How many sequences fit in the batch.
            weights: Arithmetic of the products with weights.
            any_text: Whether the likeliest id of a full text head is taken, whatever it is, as the published
                code does when greedy; otherwise only continuing and stopping can be chosen.

        Raises:
            ValueError: There is no slot, or the device does not support the weights.
        """
        if slots < 1:
            raise ValueError(f"slots={slots}: a decoder needs room for one sequence or more")
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
        self._unconditional: TemporalStep | None = None
        """Reads the sequences without their text; there from the first guided sequence on."""
        self._unconditional_states = torch.zeros_like(self._states)
        self._speaker_offsets = torch.zeros_like(self._states)  # added to each new row
        self._rows = torch.zeros(slots, 1 + config.num_codebooks, dtype=torch.long, device=device)
        self._used_codes = torch.zeros(
            slots, config.num_codebooks, config.codebook_size, dtype=torch.bool, device=device
        )
        self.static = device.type == "cuda"
        """Compute in few shapes, a bucket of sequences each, that a CUDA graph can hold."""
        self.buckets = sorted({min(2**i, slots) for i in range(slots.bit_length() + 1)})
        self._sequences: list[ActiveSequence[Owner]] = []  # sequence i lies at index i of all these

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self.slots - len(self._sequences)

    @property
    def active(self) -> list[ActiveSequence[Owner]]:
        """The sequences in the batch, in its order."""
        return self._sequences.copy()

    @property
    def cache_bytes(self) -> int:
        """Memory of the caches as they are now."""
        unconditional = self._unconditional.cache_bytes if self._unconditional else 0
        return self.temporal.cache_bytes + unconditional + self.depth.cache_bytes + self._used_codes.nbytes

    @torch.inference_mode()
    def join(self, request: Continuation, owner: Owner) -> ActiveSequence[Owner]:
        """Add a sequence at the end of the batch; its first frame comes with the next step.

        Args:
            request: What to continue, and how. There must be a `free` slot.
            owner: What the frames are for: any object.

        Returns:
            The sequence, whose row is new after every step.

        Raises:
            ValueError: The depth or the number of frames is impossible, or the model cannot be guided or
                reads no voice vectors.
        """
        config = self.model.config
        if not 1 <= request.depth <= config.num_codebooks:
            raise ValueError(f"depth={request.depth} but this model has {config.num_codebooks} codebooks")
        if request.max_frames < 1:
            raise ValueError(f"max_frames={request.max_frames}: a sequence has one frame or more")
        assert self.free, "no slot is free"
        index, device = len(self._sequences), self._states.device
        positions = None if request.positions is None else request.positions.to(device)
        rows = request.rows.to(device)
        speaker = None if request.speaker is None else request.speaker[None].to(device)
        self._states[index] = self.temporal.prefill(index, rows, positions, request.depth, speaker)
        self._speaker_offsets[index] = 0 if speaker is None else self.model.speaker_offset(speaker)[0]
        if request.options.guidance != 1:
            if self._unconditional is None:
                self._unconditional = self.temporal.with_empty_cache()
                self.depth.reserve(2 * self.slots)
            without_text = unconditional_rows(config, rows)
            state = self._unconditional.prefill(index, without_text, positions, request.depth, speaker)
            self._unconditional_states[index] = state
        self._used_codes[index] = False
        length = len(request.rows)
        last = float(length - 1 if request.positions is None else request.positions[-1])
        self._sequences.append(ActiveSequence(request, owner, length, last + 1))
        self._arrange()
        return self._sequences[-1]

    @torch.inference_mode()
    def leave(self, sequence: ActiveSequence[Owner]) -> int:
        """Remove a sequence from the batch: its slot is free again.

        Args:
            sequence: One of `active`.

        Returns:
            The index that it had, to which the last sequence has moved.
        """
        index, last = self._sequences.index(sequence), len(self._sequences) - 1
        if index != last:
            states = self._states, self._unconditional_states, self._speaker_offsets
            for tensor in (*states, self._rows, self._used_codes):
                tensor[index] = tensor[last]
            for step in (self.temporal, self._unconditional):
                if step is not None:
                    step.move(last, index)
            self._sequences[index] = self._sequences[last]
        self._sequences.pop()
        self._arrange()
        return index

    def clear(self) -> None:
        """Remove all sequences from the batch."""
        self._sequences.clear()

    @torch.inference_mode()
    def step(self) -> list[ActiveSequence[Owner]]:
        """Generate the next frame of every sequence: its `row`, and whether it has `ended` and must leave.

        Returns:
            The sequences, in the order of the batch.
        """
        if not self._sequences:
            return []
        assert not any(sequence.ended for sequence in self._sequences), "an ended sequence has not left"
        self._advance()
        rows = self._frame().to("cpu", copy=True)
        for row, sequence in zip(rows, self._sequences, strict=True):
            sequence.frames += 1
            sequence.row = row[: 1 + sequence.request.depth]
            sequence.stopped = int(row[0]) == self.model.config.tokens.audio_end
            if sequence.stopped:
                row[1:] = self.model.config.pad_code
        return self.active

    def _advance(self) -> None:
        """Read the rows that the last step generated."""
        if not any(sequence.frames for sequence in self._sequences):
            return
        padded = self._padded()
        rows, lengths = self._rows[: len(padded)], [sequence.length for sequence in padded]
        codes = rows[:, 1 : 1 + self._deepest] + self._offsets[: self._deepest]
        codes = codes.masked_fill(self._dropped, len(self._codes) - 1)
        x = self.model.text_embedding(rows[:, 0]) + nn.functional.embedding(codes, self._codes).sum(1)
        if self.model.speaker_projection is not None:
            x = x + self._speaker_offsets[: len(padded)]
        positions = torch.tensor([sequence.position for sequence in padded], dtype=torch.float32).to(x.device)
        unconditional = None
        self.temporal.reserve(max(lengths) + 1)
        states = self.temporal(x, positions, lengths, static=self.static)
        if self._guided and self._unconditional is not None:
            self._unconditional.reserve(max(lengths) + 1)
            unconditional = self._unconditional(x, positions, lengths, static=self.static)
        # Sequences that have just joined are computed too, beyond their end, and the result is dropped.
        for i, sequence in enumerate(self._sequences):
            if sequence.frames:
                self._states[i] = states[i]
                if unconditional is not None:
                    self._unconditional_states[i] = unconditional[i]
                sequence.length += 1
                sequence.position += 1

    def _frame(self) -> Int[Tensor, "n e"]:
        """Generate one frame of all sequences, in order; in a row only the sequence's own depth is valid."""
        order, device, padded = self._order, self._states.device, self._padded()
        ordered = [padded[i] for i in order]
        tensors = self._states, self._used_codes, self._unconditional_states
        states, used_codes, unconditional = (tensor[: len(order)] for tensor in tensors)
        if self._permutation is not None:
            states, used_codes = states[self._permutation], used_codes[self._permutation]
            unconditional = unconditional[self._permutation]
        must_continue = [
            sequence.frames < sequence.request.min_frames or sequence.request.forced is not None
            for sequence in ordered
        ]
        result = self.depth(
            FrameInputs(
                states=states,
                unconditional=unconditional if self._guided else None,
                counts=self._counts,
                codes=self._params[0],
                decision=self._params[1],
                seeds=self._seeds,
                frames=torch.tensor([sequence.frames for sequence in ordered], device=device),
                must_continue=torch.tensor(must_continue, device=device),
                used_codes=used_codes,
                forced=self._forced(ordered),
            ),
            static=self.static,
        )
        rows = self._rows[: len(order), : 1 + self._deepest]
        if self._permutation is None:
            rows.copy_(result)
        else:
            rows[self._permutation] = result
        if self._params[0].any_penalty:
            self._used_codes[: len(order), : self._deepest].scatter_(2, rows[:, 1:, None], True)
        return rows[: len(self._sequences)]

    def _padded(self) -> list[ActiveSequence]:
        """All sequences, where shapes are static the last one repeated to fill the bucket."""
        count = len(self._sequences)
        if self.static:
            count = min(bucket for bucket in self.buckets if bucket >= count)
        return self._sequences + self._sequences[-1:] * (count - len(self._sequences))

    def _forced(self, sequences: Sequence[ActiveSequence]) -> Int[Tensor, "n k"] | None:
        if all(sequence.request.forced is None for sequence in sequences):
            return None
        codes = torch.full((len(sequences), self._deepest), -1)
        for frame, sequence in zip(codes, sequences, strict=True):
            forced = sequence.request.forced
            if forced is not None:
                frame[: forced.shape[1]] = forced[sequence.frames]
        return codes.to(self._states.device)

    def _arrange(self) -> None:
        """Order the batch: the deepest sequence is computed first, so that shallower ones can drop out.

        Where shapes are static, unused slots are computed too, like the last sequence, and none drops out.
        """
        if not self._sequences:
            return
        device, size = self._states.device, self.model.config.codebook_size
        padded = self._padded()
        depths = [sequence.request.depth for sequence in padded]
        self._order, self._deepest = list(range(len(depths))), max(depths)
        self._counts = (len(depths),) * self._deepest
        if not self.static:
            self._order.sort(key=lambda i: -depths[i])
            self._counts = tuple(sum(depth > k for depth in depths) for k in range(self._deepest))
        requests = [padded[i].request for i in self._order]
        options = [request.options for request in requests]
        self._guided = any(each.guidance != 1 for each in options)
        self._params = (
            BatchedSamplingParams.from_options(options, size, device),
            BatchedSamplingParams.from_options([each.decision() for each in options], 2, device),
        )
        self._seeds = torch.tensor([request.seed for request in requests], device=device)
        in_order = self._order == list(range(len(requests)))
        self._permutation = None if in_order else torch.tensor(self._order, device=device)
        retained = torch.tensor(depths, device=device)[:, None]
        self._dropped = torch.arange(self._deepest, device=device) >= retained
