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
from inference.engine.options import SynthesisOptions
from inference.engine.request import check_texts
from inference.engine.result import SynthesisResult
from inference.longform.stream import Progress
from inference.synthesizer import Synthesizer
from inference.text.normalization import normalize
from inference.text.segmentation import split
from inference.voices.prompt_audio import PromptRecording, check_recording
from inference.voices.source import read_source, transcript
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

    prompt: Annotated[str, tyro.conf.Positional]
    """Recording of the voice: wav, flac, ogg or mp3; or a voice file: .catvoice. Or its http address."""
    text: str = ""
    """The text to speak; [pause 1.2s] or [pause 500ms] in it is silence."""
    text_file: Path | None = None
    """A UTF-8 file with the text to speak, of any length."""
    prompt_text: str = ""
    """Transcript of the recording; a voice file holds it, and the reference mode does without."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("out.wav")
    """File to write: wav, flac, ogg or mp3."""
    model: str | None = None
    """Folder or hub id, such as OpenMOSS-Team/MOSS-TTS-Local-Transformer; the embedded model by default."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not include one."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""
    weights: Weights = "float"
    """int8 (on a CPU, with numba) computes frames in about half the time, at a small cost in likelihood."""
    cache: Path | None = None
    """Folder to save finished segments in: after an interruption, the same command continues from them."""
    synthesis: tyro.conf.OmitArgPrefixes[SynthesisOptions] = field(default_factory=SynthesisOptions)
    sampling: tyro.conf.OmitArgPrefixes[CloneSampling] = field(default_factory=CloneSampling)


def clone(command: Clone) -> None:
    """Run the command; the exit code is 3 if no attempt at some segment succeeded.

    Args:
        command: The options of the command line.

    Raises:
        ValueError: A mistake that the user can cure; found before a model is loaded, where possible.
    """
    sampling = {name: value for name, value in asdict(command.sampling).items() if value is not None}
    SamplingOptions(**sampling)  # refuses invalid values
    check_output(command.output)
    text, options = text_of(command), command.synthesis.checked()
    prompt = read_source(command.prompt)
    check_texts(text, transcript(prompt, command.prompt_text), options.mode)
    split(text, options.segment_seconds)  # refuses malformed pauses
    if isinstance(prompt, PromptRecording):
        check_recording(prompt)
    synthesizer = Synthesizer.from_pretrained(
        command.model, command.tokenizer, command.device, weights=command.weights
    )
    options = replace(options, sampling=replace(synthesizer.sampling, **sampling))
    start = time.perf_counter()
    voice = synthesizer.load_voice(prompt, command.prompt_text, adapt_decoder=options.adapt_decoder)
    with tqdm(unit=" frames", disable=None, leave=False) as bar:

        def show(progress: Progress) -> None:
            if progress.segments > 1 and progress.frames == 0:
                bar.set_description(f"segment {progress.segment + 1} of {progress.segments}")
            bar.update(min(progress.frames, 1))

        result = synthesizer.synthesize(text, voice, options, cache=command.cache, on_progress=show)
    elapsed = time.perf_counter() - start
    save_audio(command.output, torch.from_numpy(result.audio), result.sample_rate, comment=AI_GENERATED)
    print(
        f"{command.output}: device {synthesizer.device}, {str(synthesizer.dtype).removeprefix('torch.')}, "
        f"depth {result.depth} of {synthesizer.max_depth}, {result.bitrate:.0f} bit/s, "
        f"seed {options.seed}, {result.seconds:.2f} s of audio, RTF {elapsed / result.seconds:.2f}, "
        f"stopped: {stop_summary(result)}"
    )
    if not result.acceptable:
        failed = [n for n, part in enumerate(result.parts, 1) if not part.acceptable]
        print(
            f"cat-tts: no attempt at segment {', '.join(map(str, failed))} succeeded, the best is written: "
            "try another seed, another prompt, or more --retries",
            file=sys.stderr,
        )
        sys.exit(3)


def text_of(command: Clone) -> str:
    """Return the text to speak; lines that are spelled out are printed as they will be spoken.

    Args:
        command: The options of the command line.

    Returns:
        The text as it was written, which may have pauses in it.

    Raises:
        ValueError: There is no text, or two.
    """
    if (command.text_file is None) == (not command.text):
        if command.text_file is None:
            raise ValueError("the text is empty: write what shall be spoken (--text or --text-file)")
        raise ValueError("--text and --text-file are given: choose one of them")
    text = command.text if command.text_file is None else read_text(command.text_file)
    if command.synthesis.normalize:
        for written, spoken in zip(text.splitlines(), normalize(text).splitlines(), strict=True):
            if written != spoken:
                print(f"spoken as: {spoken.strip()}", file=sys.stderr)
    return text


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


def stop_summary(result: SynthesisResult) -> str:
    """Return the reason why synthesis stopped, or how many segments have which, and the number of retries."""
    reasons = Counter(STOP_REASONS[part.stop_reason] for part in result.parts)
    counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    summary = counts if len(result.parts) > 1 else next(iter(reasons))
    retries = result.attempts - len(result.parts)
    return f"{summary}, retries: {retries}" if retries else summary
