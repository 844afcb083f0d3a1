"""The plain way to make frames, to compare with: as the published program does, without a depth cache.

Every position of a frame runs the whole prefix of the frame through the Depth Transformer again, 561
positions where 33 are asked for, and the adapters of a head run over all of it though one row is read. The
temporal side is `transformers` with its own cache. Same weights, same codes as `FrameDecoder`.
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
    """The likeliest next rows, text id and `depth` codes; without `any_text` (see `FrameDecoder`) endless."""
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
    """Logits of the last position of a prefix, all of which is computed."""
    channel, depth = x.shape[1] - 1, model.depth
    for i, layer in enumerate(depth.layers):
        x = layer(x, i, None)
    x = depth.norm(x)
    if len(depth.adapters):
        x = depth.head_norms[channel](depth.adapters[channel](x))
    return head(x[:, -1])
