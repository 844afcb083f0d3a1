"""`cat-tts voice`: save a voice to a file, and print what such a file holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inference.cli.codec import describe_codes
from inference.synthesizer import Synthesizer
from inference.voices.catvoice_file import check_voice_output, read_voice, saved_voice, write_voice
from inference.voices.catvoice_format import SavedVoice, VoiceFileError, check_labels
from inference.voices.prompt_audio import PromptRecording, check_recording
from inference.voices.source import read_source


@dataclass(frozen=True, kw_only=True)
class SaveVoice:
    """Encode a recording of a voice, and save it with its transcript in a small file to clone from."""

    prompt: Annotated[str, tyro.conf.Positional]
    """Recording of the voice: wav, flac, ogg or mp3; or its http address."""
    prompt_text: str = ""
    """Transcript of the recording; only the reference mode of published models does without."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write: .catvoice."""
    consent: str = ""
    """Whose voice it is, and what that person allowed."""
    language: str = ""
    """Tag of the language of the recording, such as en or zh-TW."""
    model: str | None = None
    """Folder or hub id of the model; the embedded one by default. Every model with the same tokenizer can use
    the voice."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not include one."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""


@dataclass(frozen=True, kw_only=True)
class VoiceInfo:
    """Print what a voice file holds."""

    file: Annotated[Path, tyro.conf.Positional]
    """Voice file: .catvoice."""


@dataclass(frozen=True, kw_only=True)
class VoiceFiles:
    """Save voices to files, and print what such files hold."""

    command: tyro.conf.OmitSubcommandPrefixes[
        tyro.conf.OmitArgPrefixes[
            Annotated[SaveVoice, tyro.conf.subcommand("save")]
            | Annotated[VoiceInfo, tyro.conf.subcommand("info")]
        ]
    ]


def voice(options: VoiceFiles) -> None:
    """Run the command.

    Args:
        options: The options of the command line.

    Raises:
        ValueError: A mistake that the user can cure; found before a model is loaded, where possible.
    """
    match options.command:
        case SaveVoice() as save:
            _save(save)
        case VoiceInfo() as info:
            print(_describe_voice(info.file, read_voice(info.file)))


def _save(options: SaveVoice) -> None:
    check_voice_output(options.output)
    check_labels(options.prompt_text, options.language, options.consent)
    prompt = read_source(options.prompt)
    if not isinstance(prompt, PromptRecording):
        raise VoiceFileError(f"{options.prompt}: is a voice file already; give a recording")
    check_recording(prompt)
    synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
    if synthesizer.tts.config.chat is None and not options.prompt_text.strip():
        raise ValueError("the prompt text is empty: write what the prompt says")
    voice = synthesizer.load_voice(prompt, options.prompt_text)
    saved = saved_voice(synthesizer.voices, voice, language=options.language, consent=options.consent)
    write_voice(options.output, saved)
    print(_describe_voice(options.output, saved))


def _describe_voice(path: Path, saved: SavedVoice) -> str:
    def shown(text: str) -> str:
        return " ".join(text.split()) or "not given"

    return "\n".join(
        [
            f"{path}: {describe_codes(saved.coded)}, {path.stat().st_size} bytes",
            f"level: {saved.level_db:.1f} dBFS",
            f"language: {shown(saved.language)}",
            f"transcript: {shown(saved.text)}",
            f"consent: {shown(saved.consent)}",
            f"decoder adaptation: {'saved' if saved.decoder_adaptation else 'none'}",
        ]
    )
