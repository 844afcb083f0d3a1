"""Build what a model reads, in the format of the model: the one place for training and inference."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from cat_tts.config import TTSConfig
from cat_tts.sequences import conversation
from cat_tts.sequences.conversation import render_user
from cat_tts.sequences.rows import (
    join_texts,
    positions,
    prompt_rows,
    shifted_targets,
    speaking_rate,
    training_rows,
)
from cat_tts.text.tokenizers import TextTokenizer


class PromptSequence(NamedTuple):
    """A sequence up to its first new frame: what a model continues."""

    rows: Int[Tensor, "n c"]
    positions: Float[Tensor, " n"]
    """Rotary positions of the rows."""


class ExampleSequence(NamedTuple):
    """A whole utterance as a model learns it; row t has to predict target t."""

    rows: Int[Tensor, "n c"]
    targets: Int[Tensor, "n c"]
    """The next row; `IGNORED` where nothing is learnt."""
    positions: Float[Tensor, " n"]
    """Rotary positions of the rows."""


def build_prompt(
    config: TTSConfig,
    text_tokenizer: TextTokenizer,
    text: str,
    codes: Int[Tensor, "t k"],
    *,
    prompt_text: str = "",
    rate: float | None = None,
    reference: bool = False,
) -> PromptSequence:
    """Build everything before the first new frame (paper C.3): texts and the frames of the prompt.

    Args:
        config: Configuration of the TTS model.
        text_tokenizer: Tokenizer of the model's text.
        text: The text to speak.
        codes: Codes [t, k] of the prompt; t may be 0.
        prompt_text: Transcript of the prompt.
        rate: Speaking rate (see `speaking_rate`); None estimates it from the prompt and its transcript.
        reference: Whether the prompt is a reference in the user's turn, and is not continued. Only the
            conversation format of the published models has that.

    Returns:
        Rows [n, 1 + K] and positions [n], text channel first.

    Raises:
        ValueError: The codes have more codebooks than the model, the text spells out an id that the format
            reserves, or the model has no conversation format.
    """
    if reference:
        rows = conversation.generation_rows(config, text_tokenizer, render_user(text, [codes]), [codes])
    else:
        joined = join_texts(prompt_text, text) if prompt_text else text
        if config.chat is None:
            rows = prompt_rows(config, text_tokenizer, joined, codes)
        else:
            rows = conversation.continuation_rows(config, text_tokenizer, render_user(joined), codes)
    if rate is None:
        rate = speaking_rate(config, text_tokenizer.encode(prompt_text), len(codes))
    return PromptSequence(rows, positions(config, rows, rate))


def build_example(
    config: TTSConfig,
    text_tokenizer: TextTokenizer,
    text: str,
    codes: Int[Tensor, "t k"],
    *,
    rate: float | None = None,
) -> ExampleSequence:
    """Build a training example: what inference reads, then the rest of the speech and its end (paper C.3).

    Args:
        config: Configuration of the TTS model.
        text_tokenizer: Tokenizer of the model's text.
        text: Transcript of the whole utterance.
        codes: Codes [t, k] of the whole utterance.
        rate: Speaking rate (see `speaking_rate`); None estimates it from the utterance.

    Returns:
        Rows [n, 1 + K], targets [n, 1 + K] and positions [n].

    Raises:
        ValueError: The codes have more codebooks than the model, or the text spells out an id that the
            conversation format reserves.
    """
    if config.chat is None:
        whole = training_rows(config, text_tokenizer, text, codes)
    else:
        whole = conversation.training_rows(config, text_tokenizer, render_user(text), codes)
    if rate is None:
        rate = speaking_rate(config, text_tokenizer.encode(text), len(codes))
    rows = whole[:-1]
    return ExampleSequence(rows, shifted_targets(config, whole[None])[0], positions(config, rows, rate))
