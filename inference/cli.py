"""The `cat-tts` command."""

import logging
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from cat_tts import SamplingOptions
from inference.prompt import check_prompt
from inference.synthesizer import Mode, Synthesizer, check_texts
from tokenizer.audio import check_output, save_audio

STOPPED = {"end": "end decided", "limit": "length limit"}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How codes, and the decision to speak on or stop, are drawn; what is not given is the model's own."""

    temperature: float | None = None
    """0 takes the likeliest code and ignores the other options."""
    top_k: int | None = None
    """Draw among this many likeliest codes; 0 among all."""
    top_p: float | None = None
    """Draw among the fewest likeliest codes that together have this probability."""
    repetition_penalty: float | None = None
    """Above 1, codes already spoken become less likely."""
    decision_temperature: float | None = None
    """The temperature of the decision."""


@dataclass(frozen=True, kw_only=True)
class Clone:
    """Speak a text in the voice of a recording."""

    prompt: Annotated[Path, tyro.conf.Positional]
    """Recording of the voice: wav, flac, ogg or mp3."""
    text: str
    """What shall be spoken."""
    prompt_text: str = ""
    """What the recording says; only the reference mode does without."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out.wav")
    """File to write: wav, flac, ogg or mp3."""
    depth: int | None = None
    """Codebooks to predict and decode, 1 to all; more sound better and take longer. All by default."""
    seed: int = 0
    """Another seed is another take; the same one gives the same file."""
    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not bring its own."""
    mode: Mode = "continuation"
    """How the prompt is given: continued after its transcript, or (published models) as a reference."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    max_seconds: float | None = None
    """Length limit of the speech; by default twice what such a text usually takes."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = field(default_factory=Sampling)


def clone(options: Clone) -> None:
    """Run the command; ValueError for what the user can cure, where possible before a model is loaded."""
    given = {name: value for name, value in asdict(options.sampling).items() if value is not None}
    SamplingOptions(**given)  # refuses what cannot be
    check_output(options.output)
    check_texts(options.text, options.prompt_text, options.mode)
    check_prompt(options.prompt)
    synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
    start = time.perf_counter()
    with tqdm(unit=" frames", disable=None, leave=False) as progress:
        take = synthesizer.take(
            options.text,
            options.prompt,
            options.prompt_text,
            depth=options.depth,
            seed=options.seed,
            sampling=replace(synthesizer.sampling, **given),
            mode=options.mode,
            max_seconds=options.max_seconds,
            on_frame=lambda _: progress.update(),
        )
    elapsed = time.perf_counter() - start
    save_audio(options.output, torch.from_numpy(take.audio), take.sample_rate)
    print(
        f"{options.output}: device {synthesizer.device}, {str(synthesizer.dtype).removeprefix('torch.')}, "
        f"depth {take.depth} of {synthesizer.max_depth}, {take.bitrate:.0f} bit/s, seed {take.seed}, "
        f"{take.seconds:.2f} s of audio, RTF {elapsed / take.seconds:.2f}, "
        f"stopped: {STOPPED[take.stop_reason]}"
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point: a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = tyro.extras.subcommand_cli_from_dict({"clone": Clone}, prog="cat-tts", args=argv)
    try:
        clone(options)
    except ValueError as error:
        print("cat-tts: " + " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
