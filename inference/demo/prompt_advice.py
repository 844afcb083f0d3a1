"""Advice on the recording of a voice, in the language of the page."""

from inference.demo.common import translate
from inference.voices.prompt_clip import MIN_CLIP_SECONDS, PromptClip

ADVICE_LABELS = {
    "short": "clip_short",
    "quiet": "clip_quiet",
    "clipped": "clip_clipped",
    "noisy": "clip_noisy",
}
"""Keys in labels.json for what is wrong with a recording, by the kind of advice."""


def advice_on(clip: PromptClip, language: str) -> str:
    """Return a line on a recording: its length, whether it was cut, and what is wrong with it.

    Args:
        clip: The recording.
        language: The language of the page.

    Returns:
        The line.
    """
    lines = [translate(language, "clip_seconds", seconds=f"{clip.seconds:.1f}")]
    if clip.cut:
        lines.append(translate(language, "clip_cut"))
    for advice in clip.advice:
        form = {"short": ".1f", "clipped": ".1%"}.get(advice.kind, ".0f")
        value = format(advice.value, form)
        lines.append(
            translate(
                language, ADVICE_LABELS[advice.kind], value=value, min_seconds=f"{MIN_CLIP_SECONDS:.0f}"
            )
        )
    return " ".join(lines)
