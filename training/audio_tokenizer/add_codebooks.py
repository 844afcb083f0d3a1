"""Give a trained tokenizer more codebooks.

    python -m training.audio_tokenizer.add_codebooks OUT --tokenizer MODEL --data MANIFEST

Encoder, decoder and the codebooks there are stay as they are, and so do their codes; what they leave over is
split up further by residual k-means. The decoder then has to learn to use the new ones:

    python -m training.train_tokenizer PRESET --init OUT --trainable decoder ...
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from tokenizer import AudioTokenizer
from training.audio_tokenizer.batches import calibration
from training.audio_tokenizer.initialization.pca_kmeans import fit_more
from training.data.manifest import read_manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AddCodebooksOptions:
    """Options of the command."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the new tokenizer."""
    tokenizer: Path
    """Folder of the tokenizer."""
    data: Path
    """Manifest of speech, see training.data.manifest; an hour or two of it is used."""
    codebooks: int = 32
    """Number of codebooks of the new tokenizer."""
    seed: int = 0


@torch.no_grad()
def add_codebooks(options: AddCodebooksOptions) -> AudioTokenizer:
    """Write the deeper tokenizer to `options.out`, and return it.

    Raises:
        ValueError: the tokenizer has as many codebooks already.
    """
    old = AudioTokenizer.from_pretrained(options.tokenizer)
    first = old.config.num_codebooks
    if options.codebooks <= first:
        raise ValueError(f"codebooks={options.codebooks}, and {options.tokenizer} has {first}: ask for more")
    quantizer = replace(old.config.quantizer, num_codebooks=options.codebooks)
    new = AudioTokenizer(replace(old.config, quantizer=quantizer)).eval()
    new.load_state_dict(new.state_dict() | old.state_dict())
    crops = calibration(read_manifest(options.data), new.config, options.seed)
    latents = torch.cat([new.latents(audio).flatten(0, 1) for audio in crops])
    before, after = fit_more(new.quantizer, first, latents, options.seed)
    left = "%d codebooks leave %.1f %% of the variance of the latents over, %d codebooks %.1f %%"
    logger.info(left, first, 100 * before, options.codebooks, 100 * after)
    new.save_pretrained(options.out)
    return new


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    add_codebooks(tyro.cli(AddCodebooksOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
