"""CAT-ASR on top of a trained Qwen3: its weights as they are, with untrained tables of codes."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, Qwen3Config, Qwen3ForCausalLM

from cat_tts.asr import CatASR
from cat_tts.asr_config import ASRConfig, ASRTokens
from cat_tts.config import TransformerConfig
from cat_tts.text import TextTokenizer, load_text_tokenizer
from tokenizer import checkpoint

MARKERS = ("<|vision_start|>", "<|vision_end|>", "<|endoftext|>")
"""Tokens of Qwen3 that no text holds: audio start, audio end, text end."""


def is_cat_asr(model: str | Path) -> bool:
    """Whether a folder or hub id holds a CatASR, and not a bare LLM."""
    return "llm" in checkpoint.read_json(checkpoint.local_folder(model) / checkpoint.CONFIG)


def from_qwen3(
    model: str | Path, num_codebooks: int = 32, codebook_size: int = 1024
) -> "tuple[CatASR, TextTokenizer]":
    """A trained Qwen3, such as the paper's Qwen/Qwen3-1.7B, with untrained tables of codes."""
    folder = checkpoint.local_folder(model)
    llm, text = AutoConfig.from_pretrained(folder), load_text_tokenizer(folder)
    rope = dict(getattr(llm, "rope_parameters", None) or {})
    if not isinstance(llm, Qwen3Config) or llm.use_sliding_window or rope.get("rope_type") != "default":
        raise ValueError(
            f"{model}: {type(llm).__name__} is no Qwen3 with full attention and plain rotary positions; "
            "give one such as Qwen/Qwen3-1.7B"
        )
    asr = CatASR(
        replace(
            _config_of(llm, _markers(text, str(model)), rope["rope_theta"]),
            num_codebooks=num_codebooks,
            codebook_size=codebook_size,
        )
    )
    trained = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asr.text_embedding.load_state_dict(trained.model.embed_tokens.state_dict())
    if asr.head is not None:
        asr.head.load_state_dict(trained.lm_head.state_dict())
    state = trained.model.state_dict()
    del state["embed_tokens.weight"]
    asr.llm.load_state_dict(state)
    return asr, text


def _config_of(llm: Qwen3Config, tokens: ASRTokens, rope_theta: float) -> ASRConfig:
    assert llm.num_key_value_heads and llm.vocab_size
    return ASRConfig(
        llm=TransformerConfig(
            dim=llm.hidden_size,
            num_layers=llm.num_hidden_layers,
            num_heads=llm.num_attention_heads,
            num_kv_heads=llm.num_key_value_heads,
            head_dim=llm.head_dim,
            ffn_dim=llm.intermediate_size,
        ),
        text_vocab_size=llm.vocab_size,
        tokens=tokens,
        tied=llm.tie_word_embeddings,
        rope_theta=rope_theta,
        max_positions=llm.max_position_embeddings,
    )


def _markers(text: TextTokenizer, model: str) -> ASRTokens:
    found = [text.encode(marker) for marker in MARKERS]
    if any(len(ids) != 1 for ids in found):
        raise ValueError(f"{model}: its tokenizer lacks {', '.join(MARKERS)}; give a Qwen3 checkpoint's own")
    start, end, over = (ids[0] for ids in found)
    return ASRTokens(audio_start=start, audio_end=end, text_end=over)
