"""How well codes say a text, by the CTC head of a CAT-ASR: no transcript is decoded."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cat_tts.asr.model import STEPS_PER_FRAME, CatASR

MIN_CTC_SCORE = -9.0
"""Lower scores need not be distinguished: nothing of the text is there."""


@torch.inference_mode()
def ctc_score(model: CatASR, codes: Sequence[Int[Tensor, "_ k"]], text: str) -> list[float]:
    """Score how well each of some utterances says a text.

    The score is the log-probability of the text by the CTC head (`ctc_layer`), summed over all alignments,
    less that of the likeliest single path, whatever it says. It is near 0 where every sound of the text is
    there, in its place, and nothing else; the more is wrong, the lower.

    Args:
        model: A CAT-ASR with a CTC head.
        codes: Codes [t_i, k] of each utterance, at any depth k, the same for all.
        text: What should be said.

    Returns:
        A score for each utterance, in nats a phoneme (or byte).

    Raises:
        ValueError: The model has no CTC head, no symbol of its vocabulary is in the text, or an utterance has
            no frames.
    """
    if model.ctc is None:
        raise ValueError("this CAT-ASR has no second head: train one with ctc_layer")
    targets = model.ctc_targets(text)
    if not targets:
        raise ValueError(f"nothing in {text!r} can be recognized by this model")
    if not all(len(each) for each in codes):
        raise ValueError("an utterance without frames says nothing")
    device = model.text_embedding.weight.device
    frames = torch.tensor([len(each) for each in codes], device=device)
    padded = pad_sequence([each.long() for each in codes], batch_first=True).to(device)
    x = model.embed(padded, frames, torch.full_like(frames, padded.shape[2]))
    _, inner = model.states(x, model.audio_mask(frames, x.shape[1]))
    assert inner is not None
    scores = model.ctc_logits(inner[:, 1:-1].float()).log_softmax(-1)
    steps = STEPS_PER_FRAME * frames
    text_loss = F.ctc_loss(
        scores.transpose(0, 1),
        torch.tensor(targets, device=device).expand(len(codes), -1),
        steps,
        torch.full_like(frames, len(targets)),
        blank=model.config.ctc_vocab_size,
        reduction="none",
    )
    within = torch.arange(scores.shape[1], device=device) < steps[:, None]
    best_path = (scores.amax(-1) * within).sum(1)
    return ((-text_loss - best_path) / len(targets)).tolist()
