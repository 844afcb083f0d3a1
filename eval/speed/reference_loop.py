"""The plain loop that generates frames, as the published program does, without a depth cache.

Every position of a frame runs the whole prefix of the frame through the Depth Transformer again, 561
positions where 33 are needed, and the adapters of a head run over all of it though one row is read. The
temporal side is `transformers` with its own cache. Weights and codes are the same as with `FrameDecoder`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from cat_tts import CatTTS


@torch.inference_mode()
def published_loop(
    model: CatTTS, rows: Int[Tensor, "b t c"], depth: int, frames: int, *, any_text: bool = False
) -> Int[Tensor, "b f e"]:
    """Generate the likeliest next rows one by one.

    Args:
        model: The model.
        rows: The prompt [b, t, c], c = 1 + number of codebooks.
        depth: Number of codebooks to generate.
        frames: Number of rows to generate.
        any_text: Whether rows may have any text id (see `FrameDecoder`); else no sequence ends.

    Returns:
        The new rows [b, f, e], e = 1 + depth: text id and codes.
    """
    cache, made = DynamicCache(), []
    state = model.states(model.embed(rows, depth), None, cache)[:, -1]
    for frame in range(frames):
        made.append(_frame(model, state, depth, any_text=any_text))
        if frame + 1 < frames:
            state = model.states(model.embed(made[-1][:, None], depth), None, cache)[:, -1]
    return torch.stack(made, 1)


def _frame(model: CatTTS, state: Float[Tensor, "b d"], depth: int, *, any_text: bool) -> Int[Tensor, "b e"]:
    prefix = model.depth.adapter_in(state)[:, None]
    logits = _last(model, model.depth.decision_head, prefix)
    text = logits.argmax(-1) if any_text else torch.full_like(logits[:, 0], model.config.tokens.slot).long()
    row, fed = [text], model.text_embedding(text)
    for k in range(depth):
        prefix = torch.cat([prefix, model.depth.adapter_in(fed)[:, None]], 1)
        logits = _last(model, model.depth.code_heads[k], prefix)
        logits[:, model.config.pad_code] = -torch.inf
        row.append(logits.argmax(-1))
        fed = model.code_embeddings[k](row[-1])
    return torch.stack(row, 1)


def _last(model: CatTTS, head: torch.nn.Linear, x: Float[Tensor, "b p d"]) -> Float[Tensor, "b v"]:
    """Return the logits of the last position of a prefix, all of which is computed."""
    channel, depth = x.shape[1] - 1, model.depth
    for i, layer in enumerate(depth.layers):
        x = layer(x, i, None)
    x = depth.norm(x)
    if len(depth.adapters):
        x = depth.head_norms[channel](depth.adapters[channel](x))
    return head(x[:, -1])
