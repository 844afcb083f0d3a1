"""A head that predicts the pitch of speech from codes.

Spectra of a few bands say little about pitch, and no other loss of a short training needs it. Its labels come
from `training.data.pitch_tracking`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tokenizer import TokenizerConfig
from training.audio_tokenizer.heads.spectral import STEPS
from training.data.pitch_tracking import Pitch

HIDDEN, CONTEXT = 256, 3
"""Width of the head, and frames that it predicts a frame from."""


class PitchHead(nn.Module):
    """Two layers from the latents of a frame and of those before it to its pitch; used in training only."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.near = nn.Conv1d(config.code_dim, HIDDEN, CONTEXT)
        self.out = nn.Linear(HIDDEN, STEPS)
        nn.init.zeros_(self.out.weight)

    def forward(self, latents: Float[Tensor, "b t d"]) -> Float[Tensor, "b u"]:
        """Predict the pitch of `STEPS` parts of each frame.

        Args:
            latents: Latents of frames.

        Returns:
            Octaves above `tokenizer.layers.vocoder.REFERENCE_PITCH`, float32.
        """
        with torch.autocast(latents.device.type, enabled=False):
            before = F.pad(latents.float(), (0, 0, CONTEXT - 1, 0))
            return self.out(F.gelu(self.near(before.mT).mT)).flatten(1)


def pitch_loss(octaves: Float[Tensor, "b t"], target: Pitch) -> Float[Tensor, ""]:
    """Compute the mean absolute error in octaves, weighted by the confidence of the target."""
    error = (octaves.float() - target.octaves).abs() * target.confidence
    return error.sum() / target.confidence.sum().clamp(min=1)
