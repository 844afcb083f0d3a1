"""Lists of utterances in the forms of Seed-TTS-Eval."""

from dataclasses import dataclass
from pathlib import Path

from eval.metrics.word_errors import official_wer
from inference.text.normalization import Language

FORMS = {
    2: ("utt", "text"),
    3: ("utt", "text", "prompt_wav"),
    4: ("utt", "prompt_text", "prompt_wav", "text"),
    5: ("utt", "prompt_text", "prompt_wav", "text", "recording"),
}
"""What the fields of a line are, by their number. The recording, of the text by the speaker, is not used."""


@dataclass(frozen=True, kw_only=True)
class UtteranceLine:
    """One utterance to synthesize."""

    utt: str
    target_text: str
    """Between its bars as it is, since spaces around it count in the official rates."""
    prompt_text: str = ""
    prompt_audio: Path | None = None


def read_list(path: Path, language: Language = "en") -> list[UtteranceLine]:
    """Read the lines of a `meta.lst`; empty ones are skipped, and paths are relative to it.

    Args:
        path: The list.
        language: The language of its targets.

    Returns:
        The lines, at least one.

    Raises:
        ValueError: If a line has another number of fields or an empty one, a target that cannot be scored,
            the name of an earlier line, or a prompt that is no file; the message gives file and line. Also
            if there is no line.
    """
    lines: dict[str, UtteranceLine] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not text.strip():
            continue
        try:
            line = parse_line(text.strip(), path.parent)
            official_wer(line.target_text, "", language)
            if line.utt in lines:
                raise ValueError(f"repeats the utterance {line.utt}; give each its own name")
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        lines[line.utt] = line
    if not lines:
        raise ValueError(f"{path} holds no line; give a list utt|prompt_text|prompt_wav|text")
    return list(lines.values())


def parse_line(text: str, folder: Path) -> UtteranceLine:
    """Parse one line and check it by itself.

    Args:
        text: The fields of the line, between bars.
        folder: The folder that paths are relative to.

    Raises:
        ValueError: If the fields are of no known form or one is empty, the name of the utterance cannot be
            the name of a file, or the prompt is no file.
    """
    fields = text.split("|")
    if len(fields) not in FORMS or not all(field.strip() for field in fields):
        forms = ", ".join("|".join(form) for form in FORMS.values())
        raise ValueError(f"{len(fields)} fields, or an empty one, where there should be one of {forms}")
    named = dict(zip(FORMS[len(fields)], fields, strict=True))
    utt = named["utt"].strip()
    if len(fields) == 3:
        utt = utt.removesuffix(".wav")
    if "/" in utt or "\0" in utt or utt in ("", ".", ".."):
        raise ValueError(f"the utterance {utt!r} cannot be the name of a file; rename it")
    prompt = folder / named["prompt_wav"].strip() if "prompt_wav" in named else None
    if prompt and not prompt.is_file():
        raise ValueError(f"there is no prompt {prompt}; paths are relative to the list")
    return UtteranceLine(
        utt=utt,
        target_text=named["text"],
        prompt_text=named.get("prompt_text", "").strip(),
        prompt_audio=prompt,
    )


def spoken_prompts(lines: list[UtteranceLine]) -> list[tuple[str, Path]]:
    """Return the transcript and the recording of every prompt.

    Args:
        lines: The list.

    Raises:
        ValueError: If a line has no prompt or no transcript of it.
    """
    prompts = []
    for line in lines:
        if not line.prompt_text or line.prompt_audio is None:
            raise ValueError(
                f"the utterance {line.utt} has no transcript of its prompt, which a model needs; "
                f"give lines {'|'.join(FORMS[4])}"
            )
        prompts.append((line.prompt_text, line.prompt_audio))
    return prompts
