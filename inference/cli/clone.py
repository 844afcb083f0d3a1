"""`cat-tts clone`: speak a text of any length in the voice of a recording."""

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
from inference.longform.synthesize import (
    RETRIES,
    LongFormOptions,
    LongFormResult,
    Progress,
    synthesize_long_form,
)
from inference.synthesis.speaker_adaptation import adapt_to_speaker, check_adaptation_steps
from inference.synthesis.synthesizer import Synthesizer
from inference.text.normalization import normalize
from inference.text.segmentation import SEGMENT_SECONDS, split
from inference.voices.catvoice_file import is_voice_file, prompt_text_of
from inference.voices.prompt_audio import check_prompt
from tokenizer.io.audio import AI_GENERATED, check_output, save_audio

STOP_REASONS = {
    "end": "end decided",
    "limit": "length limit",
    "repetition": "repeating itself",
    "silence": "silent",
}
"""How the last line of the command words the reasons why synthesis stopped."""


@dataclass(frozen=True, kw_only=True)
class CloneSampling:
    """How codes, and the decision to continue or to stop, are sampled; by default as suits the model."""

    temperature: float | None = None
    """0 takes the likeliest code and ignores the other options."""
    top_k: int | None = None
    """Sample from this many likeliest codes; 0 from all."""
    top_p: float | None = None
    """Sample from the fewest likeliest codes that together have this probability."""
    repetition_penalty: float | None = None
    """Above 1, codes already spoken become less likely."""
    decision_temperature: float | None = None
    """The temperature of the decision to continue or to stop."""
    guidance: float | None = None
    """Scale of classifier-free guidance by the text, at up to twice the computation; 1 turns it off."""


@dataclass(frozen=True, kw_only=True)
class Clone:
    """Speak a text in the voice of a recording."""

    prompt: Annotated[Path, tyro.conf.Positional]
    """Recording of the voice: wav, flac, ogg or mp3; or a voice file: .catvoice."""
    text: str = ""
    """The text to speak; [pause 1.2s] or [pause 500ms] in it is silence."""
    text_file: Path | None = None
    """A UTF-8 file with the text to speak, of any length."""
    prompt_text: str = ""
    """Transcript of the recording; a voice file holds it, and the reference mode does without."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out.wav")
    """File to write: wav, flac, ogg or mp3."""
    depth: int | None = None
    """Codebooks to predict and decode, 1 to all; more sound better and take longer. All by default."""
    seed: int = 0
    """Another seed gives another take; the same seed gives the same file."""
    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not include one."""
    mode: Mode = "continuation"
    """How the prompt is used: continued after its transcript, or (published models) as a reference."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    weights: Weights = "float"
    """int8 (on a CPU, with numba) computes frames in about half the time, at a small cost in likelihood."""
    max_seconds: float | None = None
    """Length limit of the speech, or of each segment; by default twice what such a text usually takes."""
    segment_seconds: float = SEGMENT_SECONDS
    """A text that usually takes longer is split into segments of up to this length, all from one prompt."""
    normalize: bool = True
    """Spell out numbers, dates, units and money, in English and Chinese."""
    adapt_steps: int | None = 0
    """Train a copy of the model for so many steps on the recording first: a small model comes nearer to the
    voice. A decoder that ends in a vocoder is adapted to the voice in any case, which takes a second; None
    leaves both as they are."""
    best_of: int = 1
    """Synthesize so many candidates of each segment at a low depth, and extend the best one in depth."""
    retries: int = RETRIES
    """Further attempts at a segment that repeats itself, falls silent or does not come to an end, or in which
    the speech recognizer that a model includes does not recognize the text."""
    cache: Path | None = None
    """Folder to save finished segments in: after an interruption, the same command continues from them."""
    sampling: tyro.conf.OmitArgPrefixes[CloneSampling] = field(default_factory=CloneSampling)


def clone(options: Clone) -> None:
    """Run the command.

    Args:
        options: The options of the command line.

    Raises:
        ValueError: A mistake that the user can cure; found before a model is loaded, where possible.
    """
    sampling = {name: value for name, value in asdict(options.sampling).items() if value is not None}
    SamplingOptions(**sampling)  # refuses invalid values
    check_output(options.output)
    text = spoken_text(options)
    check_texts(text, prompt_text_of(options.prompt, options.prompt_text), options.mode)
    split(text, options.segment_seconds)  # refuses malformed pauses
    long_form = LongFormOptions(
        depth=options.depth,
        seed=options.seed,
        mode=options.mode,
        segment_seconds=options.segment_seconds,
        max_seconds=options.max_seconds,
        retries=options.retries,
        candidates=options.best_of,
    )
    if options.adapt_steps is not None:
        check_adaptation_steps(options.adapt_steps)
    if not is_voice_file(options.prompt):
        check_prompt(options.prompt)
    synthesizer = Synthesizer.from_pretrained(
        options.model, options.tokenizer, options.device, weights=options.weights
    )
    long_form = replace(long_form, sampling=replace(synthesizer.sampling, **sampling))
    start = time.perf_counter()
    voice = synthesizer.voice(options.prompt, options.prompt_text)
    if options.adapt_steps is None:
        voice = replace(voice, audio=None, decoder_adaptation=None)
    elif options.adapt_steps:
        synthesizer = adapt_to_speaker(synthesizer, voice, options.adapt_steps)
    with tqdm(unit=" frames", disable=None, leave=False) as bar:

        def show(progress: Progress) -> None:
            if progress.segments > 1 and progress.frames == 0:
                bar.set_description(f"segment {progress.segment + 1} of {progress.segments}")
            bar.update(min(progress.frames, 1))

        result = synthesize_long_form(
            synthesizer, text, voice, long_form=long_form, cache=options.cache, on_progress=show
        )
    elapsed = time.perf_counter() - start
    audio = torch.from_numpy(result.audio)
    save_audio(options.output, audio, result.sample_rate, comment=AI_GENERATED)
    depth = options.depth or synthesizer.max_depth
    print(
        f"{options.output}: device {synthesizer.device}, {str(synthesizer.dtype).removeprefix('torch.')}, "
        f"depth {depth} of {synthesizer.max_depth}, {synthesizer.tokenizer.config.bitrate(depth):.0f} bit/s, "
        f"seed {options.seed}, {result.seconds:.2f} s of audio, RTF {elapsed / result.seconds:.2f}, "
        f"stopped: {stop_summary(result)}"
    )


def spoken_text(options: Clone) -> str:
    """Return the text to speak, normalized unless that is switched off; lines that change are printed.

    Args:
        options: The options of the command line.

    Returns:
        The text, which may have pauses in it.

    Raises:
        ValueError: There is no text, or two.
    """
    if (options.text_file is None) == (not options.text):
        if options.text_file is None:
            raise ValueError("the text is empty: write what shall be spoken (--text or --text-file)")
        raise ValueError("--text and --text-file are given: choose one of them")
    text = options.text if options.text_file is None else read_text(options.text_file)
    if not options.normalize:
        return text
    spoken = normalize(text)
    for written, normalized in zip(text.splitlines(), spoken.splitlines(), strict=True):
        if written != normalized:
            print(f"spoken as: {normalized.strip()}", file=sys.stderr)
    return spoken


def read_text(path: Path) -> str:
    """Read a text file.

    Args:
        path: A file in UTF-8.

    Returns:
        Its text, without a byte order mark.

    Raises:
        ValueError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; save it as such") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); name a text file") from None


def stop_summary(result: LongFormResult) -> str:
    """Return the reason why synthesis stopped, or how many segments have which, and the number of retries."""
    reasons = Counter(STOP_REASONS[segment.stop_reason] for segment in result.segments)
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    summary = counts if len(result.segments) > 1 else next(iter(reasons))
    return f"{summary}, retries: {result.retries}" if result.retries else summary
