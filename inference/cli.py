"""The `cat-tts` command."""

import logging
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from cat_tts import SamplingOptions
from inference.commands_codec import Decode, Encode, decode, encode
from inference.commands_doctor import Doctor, doctor
from inference.commands_serve import Serve, serve
from inference.commands_voice import VoiceFiles, voice
from inference.prompt import check_prompt
from inference.synthesizer import Mode, Synthesizer, check_texts
from inference.take_file import check_take_output, save_take
from inference.voice_file import is_voice_file, known_text

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
    """Recording of the voice: wav, flac, ogg or mp3; or a voice file: .catvoice."""
    text: str
    """What shall be spoken."""
    prompt_text: str = ""
    """What the recording says; a voice file knows it, and the reference mode does without."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out.wav")
    """File to write: wav, flac, ogg or mp3; or the codes alone: .cat."""
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
    check_take_output(options.output)
    check_texts(options.text, known_text(options.prompt, options.prompt_text), options.mode)
    if not is_voice_file(options.prompt):
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
    save_take(options.output, take, synthesizer.tokenizer)
    print(
        f"{options.output}: device {synthesizer.device}, {str(synthesizer.dtype).removeprefix('torch.')}, "
        f"depth {take.depth} of {synthesizer.max_depth}, {take.bitrate:.0f} bit/s, seed {take.seed}, "
        f"{take.seconds:.2f} s of audio, RTF {elapsed / take.seconds:.2f}, "
        f"stopped: {STOPPED[take.stop_reason]}"
    )


COMMANDS = {
    "clone": (Clone, clone),
    "encode": (Encode, encode),
    "decode": (Decode, decode),
    "voice": (VoiceFiles, voice),
    "doctor": (Doctor, doctor),
    "serve": (Serve, serve),
}
"""The options of each command, and what runs it."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    kinds = {name: kind for name, (kind, _) in COMMANDS.items()}
    options = tyro.extras.subcommand_cli_from_dict(kinds, prog="cat-tts", args=argv)
    try:
        dict(COMMANDS.values())[type(options)](options)
    except ValueError as error:
        print("cat-tts: " + " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
