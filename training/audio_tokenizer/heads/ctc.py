"""CTC head: bytes of text from latents, by connectionist temporal classification.

A decoder-only semantic head (`training.audio_tokenizer.heads.semantic`) must find out where in the audio each
letter is; in a short training it learns the language before it uses the audio. This loss has the order of
time built in, and predicts from nothing but the audio. Beside the other one, as recognizers have both
(Watanabe et al. 2017), or without it, it makes latents carry the words from the first minutes on. It is not
the paper's.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from training.audio_tokenizer.heads.semantic import SemanticLoss
from training.audio_tokenizer.heads.semantic_config import BYTES_END

BYTES_PER_FRAME = 3
"""Steps of a frame, each a byte or the blank: 37 a second at 12.5 frames; speech has about 15."""
BLANK = BYTES_END
HIDDEN, CONTEXT = 512, 5
"""Width, and frames that a byte is predicted from."""


class CTCHead(nn.Module):
    """Two layers from the latents of neighbouring frames to bytes; used in training only."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(latent_dim, HIDDEN, CONTEXT, padding=CONTEXT // 2)
        self.out = nn.Linear(HIDDEN, BYTES_PER_FRAME * (BLANK + 1))

    def scores(self, latents: Float[Tensor, "b t d"]) -> Float[Tensor, "b s v"]:
        """Compute log-probabilities of each byte and, last, of the blank, in float32.

        Args:
            latents: Latents of frames.

        Returns:
            `BYTES_PER_FRAME` steps a frame.
        """
        with torch.autocast(latents.device.type, enabled=False):
            hidden = F.gelu(self.near(latents.float().mT).mT)
            return self.out(hidden).unflatten(-1, (BYTES_PER_FRAME, -1)).flatten(1, 2).log_softmax(-1)

    def forward(
        self, latents: Float[Tensor, "b t d"], frames: Int[Tensor, " b"], texts: Sequence[Sequence[int]]
    ) -> SemanticLoss:
        """Compute the loss of a batch, summed, and the number of bytes that it is of.

        Items without text are left out, and texts of more bytes than their frames have steps.

        Args:
            latents: Latents of frames.
            frames: Frames of each item.
            texts: Bytes of each item.
        """
        scores = self.scores(latents)
        kept = [i for i, text in enumerate(texts) if text]
        if not kept:  # every parameter has a gradient all the same, as other processes expect
            return SemanticLoss(0 * scores.sum(), frames.new_zeros(()))
        lengths = torch.tensor([len(texts[i]) for i in kept], device=latents.device)
        losses = F.ctc_loss(
            scores[kept].transpose(0, 1),
            torch.tensor([byte for i in kept for byte in texts[i]], device=latents.device),
            BYTES_PER_FRAME * frames[kept],
            lengths,
            blank=BLANK,
            reduction="none",
            zero_infinity=True,
        )
        return SemanticLoss(losses.sum(), lengths[losses > 0].sum())
