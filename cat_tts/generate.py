"""The frame loop: continue sequences of rows by new frames until the model decides to stop."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from cat_tts.model import CatTTS
from cat_tts.sampling import SamplingOptions, choose, filtered_logits, gumbel_noise


@torch.inference_mode()
def generate(
    model: CatTTS,
    rows: Int[Tensor, "b t c"],
    mask: Bool[Tensor, "b t"] | None,
    *,
    depth: int,
    seeds: Int[Tensor, " b"],
    max_frames: int,
    options: SamplingOptions,
    positions: Float[Tensor, "b t"] | None = None,
    min_frames: int = 1,
    any_text: bool = False,
) -> Iterator[Int[Tensor, "b e"]]:
    """New rows, one at a time: text id and `depth` codes of every sequence.

    A sequence has ended where the text id is `audio_end`; from that row on its codes are pads and mean
    nothing. The loop ends when all have, or after `max_frames`; stopping is not on offer before `min_frames`.
    Where sequences differ in length, `rows` is padded on the left, False in `mask`. A take depends on its
    own rows, seed and options alone, not on its neighbours. New rows go on counting from the last of
    `positions`.

    `any_text` lets a model with the full text head take its likeliest text id, whatever it is, as the
    published code does when greedy; otherwise only going on and stopping are on offer.
    """
    config, tokens = model.config, model.config.tokens
    if not 1 <= depth <= config.num_codebooks:
        raise ValueError(f"depth={depth} but this model has {config.num_codebooks} codebooks")
    cache = DynamicCache()
    state = model.states(model.embed(rows, depth), mask, cache, positions)[:, -1]
    ended = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    history = rows.new_full((len(rows), max_frames, depth), -1)
    for frame in range(max_frames):
        noise = gumbel_noise(seeds, frame, 1 + depth, config.codebook_size + 1)
        row = _frame(
            model,
            state,
            depth,
            options,
            noise,
            history[:, :frame],
            stop=frame >= min_frames,
            any_text=any_text,
        )
        row[ended, 0] = tokens.audio_end
        ended |= row[:, 0] == tokens.audio_end
        row[ended, 1:] = config.pad_code
        history[:, frame] = row[:, 1:]
        yield row
        if ended.all():
            return
        if mask is not None:
            mask = torch.cat([mask, ~ended[:, None]], 1)
        if positions is not None:
            positions = positions[:, -1:] + 1
        state = model.states(model.embed(row[:, None], depth), mask, cache, positions)[:, -1]


def _frame(
    model: CatTTS,
    state: Float[Tensor, "b d"],
    depth: int,
    options: SamplingOptions,
    noise: Float[Tensor, "b l v"],
    history: Int[Tensor, "b n k"],
    *,
    stop: bool,
    any_text: bool,
) -> Int[Tensor, "b e"]:
    """One frame: the decision, then code after code, each reading the one before."""
    cache = model.depth.cache(len(state))
    hidden = model.depth(state[:, None], cache)[:, 0]
    row = [_decide(model, hidden, options, noise[:, 0], stop=stop, any_text=any_text)]
    fed = model.text_embedding(row[0])
    for k in range(depth):
        hidden = model.depth(fed[:, None], cache)[:, 0]
        logits = model.depth.code_logits(hidden, k).float()
        logits[:, model.config.pad_code] = -torch.inf
        row.append(choose(filtered_logits(logits, options, history[..., k]), noise[:, 1 + k]))
        fed = model.code_embeddings[k](row[-1])
    return torch.stack(row, 1)


def _decide(
    model: CatTTS,
    hidden: Float[Tensor, "b d"],
    options: SamplingOptions,
    noise: Float[Tensor, "b v"],
    *,
    stop: bool,
    any_text: bool,
) -> Int[Tensor, " b"]:
    """The text id of the next row: slot to go on, audio_end to stop (or any id, where that is asked for)."""
    tokens, logits = model.config.tokens, model.depth.decision_logits(hidden).float()
    if any_text and model.config.full_text_head:
        return logits.argmax(-1)
    choices = torch.tensor([tokens.slot, tokens.audio_end], device=logits.device)
    if model.config.full_text_head:
        logits = logits[:, choices]
    if not stop:
        return choices[:1].expand(len(logits))
    return choices[choose(filtered_logits(logits, options.decision()), noise[:, :2])]
