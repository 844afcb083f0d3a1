"""Embed each speaker of a corpus by a published encoder, as a teacher for `training.speakers.voice_vector`.

    python -m eval.speaker_embeddings OUT.npz --manifest corpus/manifest.jsonl --assets assets

The embedding of a speaker is the mean of those of a few clips. Speakers that OUT has already are left as they
are: the same command continues where it was stopped.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from tqdm import tqdm

from eval.metrics.audio import MetricError, SpeakerEncoder
from tokenizer import AudioError, load_audio
from training.common.run import StopRequest
from training.data.manifest import Clip, read_manifest
from training.speakers.teacher_embeddings import load_embeddings, write_embeddings

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16_000
SAVE_INTERVAL = 200
"""Speakers between two writings of the file."""


@dataclass(frozen=True, kw_only=True)
class SpeakerEmbeddingOptions:
    """Whose embeddings, and from how many clips."""

    out: Annotated[Path, tyro.conf.Positional]
    manifest: Path
    assets: Path
    """Folder of the encoder, see eval.assets."""
    clips: int = 3
    """Most clips of a speaker."""
    seconds: float = 6.0
    """Most seconds of a clip, from its beginning."""


def embed_speakers(options: SpeakerEmbeddingOptions) -> dict[str, np.ndarray]:
    """Write the embeddings of all speakers of the manifest.

    Returns:
        The mean embedding [e] of each speaker with a readable clip, and those that the file had already.
    """
    embeddings = load_embeddings(options.out) if options.out.exists() else {}
    speakers: dict[str, list[Clip]] = defaultdict(list)
    for clip in read_manifest(options.manifest):
        if clip.speaker and len(speakers[clip.speaker]) < options.clips:
            speakers[clip.speaker].append(clip)
    encoder = SpeakerEncoder(options.assets)
    missing = [name for name in speakers if name not in embeddings]
    with StopRequest() as stop:
        for done, name in enumerate(tqdm(missing), 1):
            vectors = [
                vector
                for clip in speakers[name]
                if (vector := _embed(encoder, clip, options.seconds)) is not None
            ]
            if vectors:
                embeddings[name] = np.mean(vectors, 0)
            if done % SAVE_INTERVAL == 0 or stop:
                write_embeddings(options.out, embeddings)
            if stop:
                logger.warning("stop requested: %d speakers are missing", len(missing) - done)
                return embeddings
    write_embeddings(options.out, embeddings)
    return embeddings


def _embed(encoder: SpeakerEncoder, clip: Clip, seconds: float) -> np.ndarray | None:
    """Return the embedding of a clip's beginning, of length 1; None where there is none."""
    try:
        audio = load_audio(clip.audio, SAMPLE_RATE)[: round(seconds * SAMPLE_RATE)].numpy()
        vector = encoder.embed(audio, SAMPLE_RATE)
    except (AudioError, MetricError) as error:
        logger.warning("%s: %s", clip.audio, error)
        return None
    return vector / np.linalg.norm(vector)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    embed_speakers(tyro.cli(SpeakerEmbeddingOptions, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
