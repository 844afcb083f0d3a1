"""Files of speaker embeddings by a published encoder, the teacher of voice vectors.

`eval.speaker_embeddings` writes them; the training reads those of its speakers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def write_embeddings(path: Path, embeddings: Mapping[str, np.ndarray]) -> None:
    """Write an embedding [e] for each speaker, as `read_embeddings` reads them."""
    temporary = path.with_name(f".{path.name}.tmp.npz")
    np.savez(temporary, speakers=np.array(list(embeddings)), embeddings=np.stack(list(embeddings.values())))
    temporary.replace(path)


def load_embeddings(path: Path) -> dict[str, np.ndarray]:
    """Load the embeddings [e] of all speakers of a file that `write_embeddings` wrote."""
    stored = np.load(path)
    return dict(zip(stored["speakers"].tolist(), stored["embeddings"], strict=True))


def read_embeddings(path: Path, speakers: Sequence[str]) -> Float[Tensor, "n e"]:
    """Read the embeddings of some speakers.

    Args:
        path: File that `write_embeddings` wrote.
        speakers: Names of the speakers, in the order of the result.

    Returns:
        Embeddings scaled to length 1, float32.

    Raises:
        ValueError: The file lacks a speaker.
    """
    stored = load_embeddings(path)
    if missing := [name for name in speakers if name not in stored]:
        raise ValueError(
            f"{path} lacks {len(missing)} of {len(speakers)} speakers, {missing[0]} the first of them"
        )
    return F.normalize(torch.from_numpy(np.stack([stored[name] for name in speakers])).float(), dim=-1)
