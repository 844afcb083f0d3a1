"""`cat-tts clone`: a text of any length in the voice of a recording."""

import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from tqdm import tqdm

from cat_tts import SamplingOptions
from cat_tts.generation.int8_linear import Weights
from inference.engine.request import Mode, check_texts
from inference.longform.synthesize import RETRIES, Delivery, Progress, Reading, read
from inference.synthesis.speaker_adaptation import check_steps, tuned
from inference.synthesis.synthesizer import Synthesizer
from inference.text.normalization import normalise
from inference.text.segmentation import PIECE_SECONDS, split
from inference.voices.catvoice_file import is_voice_file, known_text
from inference.voices.prompt_audio import check_prompt
from tokenizer.io.audio import AI_GENERATED, check_output, save_audio

STOPPED = {
    "end": "end decided",
    "limit": "length limit",
    "repetition": "repeating itself",
    "silence": "silent",
}


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
    guidance: float | None = None
    """Above 1, the text counts for more, at up to twice the work a frame; 1 turns it off."""


@dataclass(frozen=True, kw_only=True)
class Clone:
    """Speak a text in the voice of a recording."""

    prompt: Annotated[Path, tyro.conf.Positional]
    """Recording of the voice: wav, flac, ogg or mp3; or a voice file: .catvoice."""
    text: str = ""
    """What shall be spoken; [pause 1.2s] or [pause 500ms] in it is silence."""
    text_file: Path | None = None
    """A UTF-8 file with what shall be spoken, of any length."""
    prompt_text: str = ""
    """What the recording says; a voice file knows it, and the reference mode does without."""
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
    weights: Weights = "float"
    """int8 (on a CPU, with numba) makes frames in about half the time, at a small cost in likelihood."""
    max_seconds: float | None = None
    """Length limit of the speech, or of each piece; by default twice what such a text usually takes."""
    piece_seconds: float = PIECE_SECONDS
    """A text that usually takes longer is read in pieces of up to this length, all from the same prompt."""
    normalise: bool = True
    """Spell out numbers, dates, units and money, in English and Chinese."""
    tune: int | None = 0
    """Let a copy of the model make so many steps of training on the recording first: a small one comes nearer
    to the voice. A decoder that ends in a vocoder is tuned to its timbre in any case, which takes a second;
    None takes both as they are."""
    best_of: int = 1
    """Make so many drafts of each piece, and master the best one."""
    retries: int = RETRIES
    """Further attempts at a piece that repeats itself, falls silent, does not come to an end, or that a model
    which listens to itself does not understand."""
    work: Path | None = None
    """Folder to keep finished pieces in: after an interruption, the same command goes on where it was."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = field(default_factory=Sampling)


def clone(options: Clone) -> None:
    """Run the command; ValueError for what the user can cure, where possible before a model is loaded."""
    given = {name: value for name, value in asdict(options.sampling).items() if value is not None}
    SamplingOptions(**given)  # refuses what cannot be
    check_output(options.output)
    text = spoken_text(options)
    check_texts(text, known_text(options.prompt, options.prompt_text), options.mode)
    split(text, options.piece_seconds)  # refuses malformed pauses
    delivery = Delivery(
        depth=options.depth,
        seed=options.seed,
        mode=options.mode,
        piece_seconds=options.piece_seconds,
        max_seconds=options.max_seconds,
        retries=options.retries,
        drafts=options.best_of,
    )
    if options.tune is not None:
        check_steps(options.tune)
    if not is_voice_file(options.prompt):
        check_prompt(options.prompt)
    synthesizer = Synthesizer.from_pretrained(
        options.model, options.tokenizer, options.device, weights=options.weights
    )
    delivery = replace(delivery, sampling=replace(synthesizer.sampling, **given))
    start = time.perf_counter()
    heard = synthesizer.voice(options.prompt, options.prompt_text)
    if options.tune is None:
        heard = replace(heard, audio=None, timbre=None)
    elif options.tune:
        synthesizer = tuned(synthesizer, heard, options.tune)
    with tqdm(unit=" frames", disable=None, leave=False) as bar:

        def show(progress: Progress) -> None:
            if progress.pieces > 1 and progress.frames == 0:
                bar.set_description(f"piece {progress.piece + 1} of {progress.pieces}")
            bar.update(min(progress.frames, 1))

        reading = read(synthesizer, text, heard, delivery=delivery, work=options.work, on_progress=show)
    elapsed = time.perf_counter() - start
    audio = torch.from_numpy(reading.audio)
    save_audio(options.output, audio, reading.sample_rate, comment=AI_GENERATED)
    depth = options.depth or synthesizer.max_depth
    print(
        f"{options.output}: device {synthesizer.device}, {str(synthesizer.dtype).removeprefix('torch.')}, "
        f"depth {depth} of {synthesizer.max_depth}, {synthesizer.tokenizer.config.bitrate(depth):.0f} bit/s, "
        f"seed {options.seed}, {reading.seconds:.2f} s of audio, RTF {elapsed / reading.seconds:.2f}, "
        f"stopped: {how_it_stopped(reading)}"
    )


def spoken_text(options: Clone) -> str:
    """The text of the options, normalised if that is asked for; lines that change are shown."""
    if (options.text_file is None) == (not options.text):
        if options.text_file is None:
            raise ValueError("the text is empty: write what shall be spoken (--text or --text-file)")
        raise ValueError("--text and --text-file are given: choose one of them")
    text = options.text if options.text_file is None else read_text(options.text_file)
    if not options.normalise:
        return text
    spoken = normalise(text)
    for written, said in zip(text.splitlines(), spoken.splitlines(), strict=True):
        if written != said:
            print(f"spoken as: {said.strip()}", file=sys.stderr)
    return spoken


def read_text(path: Path) -> str:
    """A text file; ValueError with its path where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; save it as such") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); name a text file") from None


def how_it_stopped(reading: Reading) -> str:
    """The reason, or how many pieces have which; and how many attempts were made again."""
    reasons = Counter(STOPPED[passage.stop_reason] for passage in reading.passages)
    counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    stopped = counted if len(reading.passages) > 1 else next(iter(reasons))
    return f"{stopped}, retries: {reading.retries}" if reading.retries else stopped
