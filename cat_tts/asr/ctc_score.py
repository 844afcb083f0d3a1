"""How plainly codes say a text: what a CAT-ASR thinks of it, without writing anything down."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cat_tts.asr.model import STEPS_PER_FRAME, CatASR

UNHEARD = -9.0
"""What is heard less than this need not be told apart: nothing of the text is there."""


@torch.inference_mode()
def heard(model: CatASR, codes: Sequence[Int[Tensor, "_ k"]], text: str) -> list[float]:
    """Of each of some takes of `text`: the log-probability, in nats a phoneme (or byte), that a listener who
    keeps time hears just this text, less that of the likeliest single path, whatever it says.

    Near 0 where every sound of the text is there, in its place, and nothing else; the more is wrong, the
    lower. Takes may have any depth, all the same one. It comes from the second head of the model
    (`ctc_layer`), summed over all ways in which the text can lie in time.

    Raises:
        ValueError: the model has no such head, it has nothing to spell the text with, or a take has no
            frames.
    """
    if model.ctc is None:
        raise ValueError("this CAT-ASR has no second head: train one with ctc_layer")
    spelt = model.spell(text)
    if not spelt:
        raise ValueError(f"nothing in {text!r} can be heard by this model")
    if not all(len(one) for one in codes):
        raise ValueError("a take without frames says nothing")
    device = model.text_embedding.weight.device
    frames = torch.tensor([len(one) for one in codes], device=device)
    padded = pad_sequence([one.long() for one in codes], batch_first=True).to(device)
    x = model.embed(padded, frames, torch.full_like(frames, padded.shape[2]))
    _, inner = model.states(x, model.audio_mask(frames, x.shape[1]))
    assert inner is not None
    scores = model.ctc_logits(inner[:, 1:-1].float()).log_softmax(-1)
    steps = STEPS_PER_FRAME * frames
    told = F.ctc_loss(
        scores.transpose(0, 1),
        torch.tensor(spelt, device=device).expand(len(codes), -1),
        steps,
        torch.full_like(frames, len(spelt)),
        blank=model.config.spelling_size,
        reduction="none",
    )
    within = torch.arange(scores.shape[1], device=device) < steps[:, None]
    readiest = (scores.amax(-1) * within).sum(1)
    return ((-told - readiest) / len(spelt)).tolist()
