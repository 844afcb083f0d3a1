"""Put a trained tokenizer and TTS model into one folder: `python -m training.bundle OUT ...`.

The folder is what `Synthesizer.from_pretrained` and `cat-tts clone --model` take. Weights are stored in half
precision, which halves the download; models compute in the precision of their device.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cat_tts import CatTTS
from tokenizer import AudioTokenizer


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Which models, into which folder."""

    out: Annotated[Path, tyro.conf.Positional]
    tokenizer: Path
    """Folder of an AudioTokenizer, such as RUN/model of training.tokenizer."""
    tts: Path
    """Folder of a CatTTS, such as RUN/model of training.tts."""


def bundle(options: Bundle) -> None:
    """Write OUT/tokenizer and OUT/tts; ValueError when one does not speak the codes of the other."""
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer)
    tts, text = CatTTS.from_pretrained(options.tts)
    spoken = (tts.config.num_codebooks, tts.config.codebook_size)
    coded = (tokenizer.config.num_codebooks, tokenizer.config.codebook_size)
    if spoken != coded:
        raise ValueError(f"the TTS speaks {spoken} codebooks and codes, the tokenizer has {coded}")
    tokenizer.half().save_pretrained(options.out / "tokenizer")
    tts.half().save_pretrained(options.out / "tts", text)


def main(argv: list[str] | None = None) -> None:
    bundle(tyro.cli(Bundle, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
