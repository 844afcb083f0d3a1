"""Put a trained tokenizer and TTS model into one folder: `python -m training.bundle OUT ...`.

The folder is what `Synthesizer.from_pretrained` and `cat-tts clone --model` take. Weights are stored in half
precision, which halves the download; models compute in the precision of their device.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cat_tts import CatTTS, SamplingOptions
from cat_tts.asr.model import CatASR
from cat_tts.generation.sampling import SAMPLING_FILE
from tokenizer import AudioTokenizer
from tokenizer.codes.coded_audio import fingerprint
from tokenizer.discriminators import Discriminators
from tokenizer.io.checkpoint import write_config
from tokenizer.io.checksums import write_checksums
from training.common.renamed_options import BUNDLE_OPTIONS, rename_options


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Which models to bundle, into which folder."""

    out: Annotated[Path, tyro.conf.Positional]
    tokenizer: Path
    """Folder of an AudioTokenizer, such as RUN/model of training.train_tokenizer."""
    tts: Path
    """Folder of a CatTTS, such as RUN/model of training.train_tts."""
    asr: Path | None = None
    """Folder of a CatASR, such as RUN/model of training.train_asr, which then ranks best-of-N candidates."""
    discriminators: Path | None = None
    """Folder of Discriminators, such as RUN/model/discriminators of training.train_tokenizer, which are
    used to adapt the decoder to a voice."""
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions] = field(default_factory=SamplingOptions)


def bundle(options: Bundle) -> None:
    """Write OUT/tokenizer, OUT/tts, OUT/sampling.json, perhaps OUT/asr and OUT/discriminators, and checksums.

    Raises:
        ValueError: the models do not fit together.
    """
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer)
    tts, text_tokenizer = CatTTS.from_pretrained(options.tts)
    spoken = (tts.config.num_codebooks, tts.config.codebook_size)
    coded = (tokenizer.config.num_codebooks, tokenizer.config.codebook_size)
    if spoken[0] > coded[0] or spoken[1] != coded[1]:
        raise ValueError(f"the TTS speaks {spoken} codebooks and codes, the tokenizer has {coded}")
    if options.asr is not None:
        asr, asr_text_tokenizer = CatASR.from_pretrained(options.asr)
        read = (asr.config.num_codebooks, asr.config.codebook_size)
        if read != spoken or asr.ctc is None:
            head = "no" if asr.ctc is None else "with a"
            raise ValueError(
                f"the ASR reads {read} codebooks and codes, {head} CTC head: "
                f"give one with a CTC head, of the {spoken} that the TTS speaks"
            )
        asr.half().save_pretrained(options.out / "asr", asr_text_tokenizer)
    if options.discriminators is not None:
        Discriminators.from_pretrained(options.discriminators).half().save_pretrained(
            options.out / "discriminators"
        )
    tokenizer.half().save_pretrained(options.out / "tokenizer")
    tts.half().save_pretrained(options.out / "tts", text_tokenizer)
    write_config(options.out / SAMPLING_FILE, options.sampling)
    write_checksums(options.out, fingerprint(tokenizer).hex())


def main(argv: list[str] | None = None) -> None:
    """Run the command line: `python -m training.bundle --help`."""
    arguments = rename_options(sys.argv[1:] if argv is None else argv, BUNDLE_OPTIONS)
    bundle(tyro.cli(Bundle, args=arguments, description=__doc__))


if __name__ == "__main__":
    main()
