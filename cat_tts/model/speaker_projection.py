"""What a voice vector adds to every row of the Temporal Transformer. Ours, not the paper's."""

from jaxtyping import Float
from torch import Tensor, nn


class SpeakerProjection(nn.Linear):
    """A linear map of voice vectors, which begins as zeros: a model that is given one is as before."""

    def __init__(self, speaker_dim: int, dim: int) -> None:
        super().__init__(speaker_dim, dim, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, speaker: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        """Project vectors of length 1, scaled so that their entries are about 1, like other inputs of layers.

        Args:
            speaker: Vectors [b, e]; zeros stand for no vector, and give zeros.

        Raises:
            ValueError: The vectors have another width.
        """
        if speaker.shape[-1] != self.in_features:
            raise ValueError(
                f"voice vectors of {speaker.shape[-1]} numbers, but this model has "
                f"speaker_dim={self.in_features}"
            )
        return super().forward(speaker.to(self.weight.dtype) * self.in_features**0.5)
