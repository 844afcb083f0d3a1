"""`cat-tts voice`: keep a voice in a file, and see what such a file holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from inference.cli.codec import described
from inference.synthesis.synthesizer import Synthesizer
from inference.voices.catvoice_file import (
    SavedVoice,
    VoiceFileError,
    check_labels,
    check_voice_output,
    is_voice_file,
    read_voice,
    saved_voice,
    write_voice,
)
from inference.voices.prompt_audio import check_prompt


@dataclass(frozen=True, kw_only=True)
class Save:
    """Encode a recording of a voice, and keep it with its words in a small file to clone from."""

    prompt: Annotated[Path, tyro.conf.Positional]
    """Recording of the voice: wav, flac, ogg or mp3."""
    prompt_text: str = ""
    """What the recording says; only the reference mode of published models does without."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File to write: .catvoice."""
    consent: str = ""
    """Whose voice it is, and what that person allowed."""
    language: str = ""
    """Tag of the language of the recording, such as en or zh-TW."""
    model: str | None = None
    """Folder or hub id of the model; the embedded one by default. Every model with its tokenizer takes the
    voice."""
    tokenizer: str | None = None
    """Folder or hub id of the audio tokenizer, where the model does not bring its own."""
    device: str | None = None
    """cpu or cuda; cuda where there is one by default."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Print what a voice file holds."""

    file: Annotated[Path, tyro.conf.Positional]
    """Voice file: .catvoice."""


@dataclass(frozen=True, kw_only=True)
class VoiceFiles:
    """Voices in files."""

    command: tyro.conf.OmitSubcommandPrefixes[
        tyro.conf.OmitArgPrefixes[
            Annotated[Save, tyro.conf.subcommand("save")] | Annotated[Info, tyro.conf.subcommand("info")]
        ]
    ]


def voice(options: VoiceFiles) -> None:
    """Run the command; ValueError for what the user can cure, where possible before a model is loaded."""
    match options.command:
        case Save() as save:
            _save(save)
        case Info() as info:
            print(_described(info.file, read_voice(info.file)))


def _save(options: Save) -> None:
    check_voice_output(options.output)
    check_labels(options.prompt_text, options.language, options.consent)
    if is_voice_file(options.prompt):
        raise VoiceFileError(f"{options.prompt}: is a voice file already; give a recording")
    check_prompt(options.prompt)
    synthesizer = Synthesizer.from_pretrained(options.model, options.tokenizer, options.device)
    if synthesizer.tts.config.chat is None and not options.prompt_text.strip():
        raise ValueError("the prompt text is empty: write what the prompt says")
    made = synthesizer.voice(options.prompt, options.prompt_text)
    saved = saved_voice(synthesizer.voices, made, language=options.language, consent=options.consent)
    write_voice(options.output, saved)
    print(_described(options.output, saved))


def _described(path: Path, saved: SavedVoice) -> str:
    def shown(text: str) -> str:
        return " ".join(text.split()) or "not given"

    return "\n".join(
        [
            f"{path}: {described(saved.coded)}, {path.stat().st_size} bytes",
            f"level: {saved.level_db:.1f} dBFS",
            f"language: {shown(saved.language)}",
            f"transcript: {shown(saved.text)}",
            f"consent: {shown(saved.consent)}",
            f"timbre: {'known' if saved.timbre else 'not known'}",
        ]
    )
