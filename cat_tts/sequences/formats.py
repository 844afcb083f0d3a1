"""Rows in the format of a model: plain sequences, or the conversation of the published ones."""

from jaxtyping import Int
from torch import Tensor

from cat_tts.config import TTSConfig
from cat_tts.sequences import conversation, rows
from cat_tts.sequences.conversation import render_user
from cat_tts.text.tokenizers import TextTokenizer


def opening_rows(
    config: TTSConfig, tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n c"]:
    """Everything before the first new frame: the text of the prompt and of what follows, and the prompt's
    codes, of which there may be none."""
    if config.chat is None:
        return rows.prompt_rows(config, tokenizer, text, codes)
    return conversation.continuation_rows(config, tokenizer, render_user(text), codes)


def example_rows(
    config: TTSConfig, tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n c"]:
    """`opening_rows` of a whole utterance, and its end: what a model learns from."""
    if config.chat is None:
        return rows.training_rows(config, tokenizer, text, codes)
    return conversation.training_rows(config, tokenizer, render_user(text), codes)
