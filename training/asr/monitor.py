"""How a CAT-ASR run can be followed: validation losses, with the wrong audio too, and word error rates."""

import re
from pathlib import Path

import jiwer
import torch

from cat_tts.asr.beam_search import transcribe
from cat_tts.asr.model import ASRLoss, CatASR
from cat_tts.text.tokenizers import TextTokenizer
from training.asr.batches import Utterances
from training.common.monitor import RunMonitor

VALIDATION_ROWS = 2048
"""Frames and text tokens of a batch of the validation."""


class ASRMonitor(RunMonitor):
    """Writer of a run's losses."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)

    def log(self, step: int, loss: ASRLoss, norm: float) -> None:
        """Write the losses and the norm of the gradient of one step, as the main process has them."""
        losses = {"train/loss/text": loss.text.item(), "train/loss/ctc": loss.ctc.item()}
        self.write(step, {**losses, "train/grad_norm": norm})


@torch.no_grad()
def validate(model: CatASR, text_tokenizer: TextTokenizer, kept_out: Utterances) -> dict[str, float]:
    """Compute losses and word error rate at full depth over utterances kept out of the training.

    A model whose loss is no worse with the audio of another utterance of like length in place of its own
    (`mismatched`) has learnt the language and ignores the audio.

    Returns:
        Losses of text and CTC head in nats, that of the text with the wrong audio, and the word error rate
        of greedy decoding.
    """
    device, sums, counts = next(model.parameters()).device, torch.zeros(3), torch.zeros(3)
    batches = [batch.to(device) for batch in kept_out.batches(VALIDATION_ROWS)]
    texts, transcripts = [], []
    for batch in batches:
        tokens, targets = int((batch.text >= 0).sum()) + len(batch.text), int((batch.ctc_targets >= 0).sum())
        count = torch.tensor([tokens, targets, tokens])
        right = model(batch.codes, batch.frames, batch.text, batch.depth, None, batch.ctc_targets)
        wrong = model(batch.codes.roll(1, 0), batch.frames.roll(1), batch.text, batch.depth)
        sums += count * torch.stack([right.text, right.ctc, wrong.text]).cpu()
        counts += count
        texts += [text_tokenizer.decode([i for i in ids if i >= 0]) for ids in batch.text.tolist()]
        codes = [utterance[:n] for utterance, n in zip(batch.codes, batch.frames.tolist(), strict=True)]
        transcripts += [text_tokenizer.decode(found.ids) for found in transcribe(model, codes)]
    text_loss, ctc, mismatched = (sums / counts).tolist()
    return {
        "validation/loss/text": text_loss,
        "validation/loss/ctc": ctc,
        "validation/loss/mismatched": mismatched,
        "validation/wer": float(jiwer.wer(list(map(_words, texts)), list(map(_words, transcripts)))),
    }


def _words(text: str) -> str:
    """Return a text in lower case without punctuation: coarse, for the log; eval.asr has the real measure."""
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())
