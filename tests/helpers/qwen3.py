"""A tiny Qwen3 checkpoint with a tokenizer of its own."""

import string
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from cat_tts.asr.from_qwen3 import MARKERS


def write_qwen3(folder: Path, tied: bool) -> Qwen3ForCausalLM:
    """Write the folder; return its model."""
    words = ["<unk>", *string.ascii_lowercase, *MARKERS]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    text = PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=list(MARKERS))
    text.save_pretrained(folder)
    config = Qwen3Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        vocab_size=40,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    llm = Qwen3ForCausalLM(config).eval()
    llm.save_pretrained(folder)
    return llm
