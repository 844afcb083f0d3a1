"""How well a take can be told to say its text, by the model that made it."""

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from cat_tts.generation.frame_decoder import Continuation
from cat_tts.model.tts import CatTTS
from cat_tts.sequences.rows import frame_rows, untold_rows

CODEBOOKS = 3
"""The first ones: deeper ones say more of the sound than of the words."""


@torch.inference_mode()
def text_evidence(model: CatTTS, asked: Continuation, codes: Int[Tensor, "t k"]) -> float:
    """Nats a frame by which the first codebooks are likelier with the text than without: the model's own
    measure of whether what it said is what it was told to say.

    `asked` is what `codes` answer, at their depth. The model must have learnt some sequences without their
    text (`training.tts.batches`, `untold`). Two passes over the whole sequence, no sampling.

    Raises:
        ValueError: there are no codes, or the model holds conversations, which cannot go without their text.
    """
    if not len(codes):
        raise ValueError("a take without frames says nothing: there is no evidence of its text")
    config, device = model.config, model.text_embedding.weight.device
    first, depth = len(asked.rows) - 1, codes.shape[1]
    rows = torch.cat([asked.rows.to(device), frame_rows(config, codes.to(device), config.tokens.slot)])
    positions = None
    if asked.positions is not None:
        later = asked.positions[-1] + torch.arange(1, 1 + len(codes))
        positions = torch.cat([asked.positions, later])[None, :-1].to(device).expand(2, -1)
    read = torch.stack([rows, untold_rows(config, rows)])[:, :-1]
    states = model.states(model.embed(read, depth), positions=positions)[:, first:]
    columns = min(CODEBOOKS, depth)
    wanted = rows[first + 1 :, : 1 + columns]
    told, untold = (
        -F.cross_entropy(logits.float().flatten(0, 1), wanted[:, 1:].flatten())
        for logits in (model.frame_logits(one, wanted)[1] for one in states)
    )
    return float(told - untold) * columns
