"""Frames of several takes, one slot each, until the batched decoder takes this place."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from cat_tts.generate import _decide
from cat_tts.model import CatTTS
from cat_tts.sampling import SamplingOptions, choose, filtered_logits, gumbel_noise


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What decides a take."""

    rows: Int[Tensor, "t c"]
    positions: Float[Tensor, " t"] | None
    depth: int
    seed: int
    options: SamplingOptions
    min_frames: int
    max_frames: int
    forced: Int[Tensor, "f k"] | None = None


class FrameDecoder:
    """Slots that takes join and leave between frames."""

    def __init__(self, model: CatTTS, slots: int = 1) -> None:
        self.model = model
        self._takes: list[Iterator[Int[Tensor, " e"]] | None] = [None] * slots

    @property
    def active(self) -> list[int]:
        return [slot for slot, take in enumerate(self._takes) if take is not None]

    @property
    def free(self) -> int:
        return len(self._takes) - len(self.active)

    def join(self, take: Continuation) -> int:
        slot = self._takes.index(None)
        self._takes[slot] = _frames(self.model, take)
        return slot

    def leave(self, slot: int) -> None:
        self._takes[slot] = None

    def step(self) -> dict[int, Int[Tensor, " e"]]:
        return {slot: next(take) for slot, take in enumerate(self._takes) if take is not None}


@torch.inference_mode()
def _frames(model: CatTTS, take: Continuation) -> Iterator[Int[Tensor, " e"]]:
    config, cache, depth = model.config, DynamicCache(), take.depth
    rows = take.rows[None]
    positions = None if take.positions is None else take.positions[None]
    state = model.states(model.embed(rows, depth), None, cache, positions)[:, -1]
    history = rows.new_full((1, take.max_frames, depth), -1)
    seeds = torch.tensor([take.seed], device=rows.device)
    forced = rows.new_zeros(0, 0) if take.forced is None else take.forced
    for frame in range(take.max_frames):
        noise = gumbel_noise(seeds, frame, 1 + depth, config.codebook_size + 1)
        inner = model.depth.cache(1)
        hidden = model.depth(state[:, None], inner)[:, 0]
        stop = frame >= max(take.min_frames, len(forced))
        row = [_decide(model, hidden, take.options, noise[:, 0], stop=stop, any_text=False)]
        fed = model.text_embedding(row[0])
        for k in range(depth):
            hidden = model.depth(fed[:, None], inner)[:, 0]
            logits = model.depth.code_logits(hidden, k).float()
            logits[:, config.pad_code] = -torch.inf
            code = choose(filtered_logits(logits, take.options, history[:, :frame, k]), noise[:, 1 + k])
            if frame < len(forced) and k < forced.shape[1]:
                code = forced[frame, k][None]
            row.append(code)
            fed = model.code_embeddings[k](code)
        whole = torch.stack(row, 1)
        history[:, frame] = whole[:, 1:]
        yield whole[0]
        if positions is not None:
            positions = positions[:, -1:] + 1
        state = model.states(model.embed(whole[:, None], depth), None, cache, positions)[:, -1]
