"""From codes to text: beam search over the transcripts of a batch, greedy with one beam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from cat_tts.asr.model import CatASR

TOKENS_PER_FRAME, EXTRA_TOKENS = 1.0, 8
"""Limit of a transcript's tokens: nobody speaks faster, and a repetition must end."""


@dataclass(frozen=True)
class Transcript:
    """The transcript of one utterance."""

    ids: list[int]
    """Text ids without the end."""
    score: float
    """Mean log-probability of its tokens, the end included."""
    ended: bool
    """False where the budget of tokens ended it."""


@torch.no_grad()
def transcribe(
    model: CatASR, codes: Sequence[Int[Tensor, "_ k"]], *, depth: int | None = None, beams: int = 1
) -> list[Transcript]:
    """Transcribe a batch of utterances (paper Appendix E).

    An utterance gets the transcript that it gets alone. A beam keeps the `beams` likeliest beginnings by
    their total log-probability, ended ones among them; of those left, the best mean wins, so that short ones
    have no advantage. One beam is greedy decoding.

    Args:
        model: The CAT-ASR.
        codes: Codes [t_i, k] of each utterance.
        depth: How many codebooks are read; None: all that the model reads.
        beams: Width of the beam.

    Returns:
        A transcript for each utterance.

    Raises:
        ValueError: An utterance has no frames, or fewer codebooks than `depth`.
    """
    depth = model.config.num_codebooks if depth is None else depth
    if not 1 <= depth <= model.config.num_codebooks:
        raise ValueError(f"depth={depth} but this model reads 1 to {model.config.num_codebooks} codebooks")
    if beams < 1:
        raise ValueError(f"beams={beams}: give 1 (greedy) or more")
    if not codes:
        return []
    if short := [i for i, each in enumerate(codes) if not len(each) or each.shape[1] < depth]:
        shape = tuple(codes[short[0]].shape)
        raise ValueError(
            f"utterance {short[0]} has codes of shape {shape}; give frames, of {depth} codebooks"
        )
    device = model.text_embedding.weight.device
    batch = pad_sequence([each[:, :depth].long() for each in codes], batch_first=True).to(device)
    frames = torch.tensor([len(each) for each in codes], device=device)
    return _search(model, batch, frames, beams)


def _search(
    model: CatASR, codes: Int[Tensor, "b t k"], frames: Int[Tensor, " b"], beams: int
) -> list[Transcript]:
    b, device, end = len(codes), codes.device, model.config.tokens.text_end
    x = model.embed(codes, frames, torch.full_like(frames, codes.shape[2]))
    # Sequences that are continued together must end together: padding moves to the left.
    width = x.shape[1]
    place = torch.arange(width, device=device) - (width - 2 - frames[:, None])
    positions, valid = place.clamp(min=0), place >= 0
    x = x.gather(1, positions[..., None].expand_as(x))
    mask = valid[:, None, None, :].expand(-1, 1, width, -1)
    if not model.config.bidirectional:
        mask = mask & torch.ones(width, width, dtype=torch.bool, device=device).tril()
    # Padding attends to itself, so that no row of attention is empty.
    mask = mask | torch.eye(width, dtype=torch.bool, device=device)
    cache = DynamicCache()
    states, _ = model.states(x, mask, positions, cache)
    logits = model.logits(states[:, -1]).float().log_softmax(-1)[:, None].expand(-1, beams, -1)
    cache.batch_repeat_interleave(beams)
    valid = valid.repeat_interleave(beams, 0)

    budget = (frames * TOKENS_PER_FRAME).long() + EXTRA_TOKENS
    total = torch.full((b, beams), -torch.inf, device=device)
    total[:, 0] = 0.0
    ended = torch.zeros(b, beams, dtype=torch.bool, device=device)
    lengths = torch.zeros(b, beams, dtype=torch.long, device=device)
    written = torch.zeros(b, beams, 0, dtype=torch.long, device=device)
    free = torch.full((logits.shape[2],), -torch.inf, device=device)
    free[end] = 0.0  # an ended transcript continues at no cost, with ends alone
    while True:
        step = torch.where((ended | (written.shape[2] >= budget[:, None]))[..., None], free, logits)
        total, best = (total[..., None] + step).flatten(1).topk(beams)
        parent, token = best // step.shape[2], best % step.shape[2]
        stopped = ended.gather(1, parent)
        lengths = lengths.gather(1, parent) + ~stopped
        written = torch.cat([written.gather(1, parent[..., None].expand_as(written)), token[..., None]], 2)
        ended = stopped | (token == end)
        if ended.all():
            break
        flat = (parent + beams * torch.arange(b, device=device)[:, None]).flatten()
        cache.reorder_cache(cast("torch.LongTensor", flat))
        valid = F.pad(valid, (0, 1), value=True)
        at = (frames.repeat_interleave(beams) + 1 + written.shape[2])[:, None]
        x = model.text_embedding(token.flatten())[:, None]
        states, _ = model.states(x, valid[:, None, None, :], at, cache)
        logits = model.logits(states[:, 0]).float().log_softmax(-1).view(b, beams, -1)
    return _best_transcripts(written, total, lengths, budget, end)


def _best_transcripts(
    written: Int[Tensor, "b w n"],
    total: Tensor,
    lengths: Int[Tensor, "b w"],
    budget: Int[Tensor, " b"],
    end: int,
) -> list[Transcript]:
    mean = total / lengths
    best = mean.argmax(1)
    transcripts = []
    for i, w in enumerate(best.tolist()):
        count = int(lengths[i, w]) - 1
        ids = written[i, w, :count].tolist()
        transcripts.append(Transcript(ids, float(mean[i, w]), count < int(budget[i])))
    return transcripts
