"""Rows in the format of a model: plain sequences, or the conversation of the published ones."""

from jaxtyping import Int
from torch import Tensor

from cat_tts import published_prompt, sequence
from cat_tts.config import TTSConfig
from cat_tts.published_prompt import render_user
from cat_tts.text import TextTokenizer


def opening_rows(
    config: TTSConfig, tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n c"]:
    """Everything before the first new frame: the text of the prompt and of what follows, and the prompt's
    codes, of which there may be none."""
    if config.chat is None:
        return sequence.prompt_rows(config, tokenizer, text, codes)
    return published_prompt.continuation_rows(config, tokenizer, render_user(text), codes)


def example_rows(
    config: TTSConfig, tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n c"]:
    """`opening_rows` of a whole utterance, and its end: what a model learns from."""
    if config.chat is None:
        return sequence.training_rows(config, tokenizer, text, codes)
    return published_prompt.training_rows(config, tokenizer, render_user(text), codes)
