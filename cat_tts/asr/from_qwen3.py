"""CAT-ASR on top of a trained Qwen3: its weights as they are, with untrained tables of codes."""

from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

from cat_tts.asr.config import ASRConfig, ASRTokens
from cat_tts.asr.model import CatASR
from cat_tts.model import qwen3
from cat_tts.text.tokenizers import TextTokenizer, load_text_tokenizer
from tokenizer.io import checkpoint

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
    raw = checkpoint.read_json(folder / checkpoint.CONFIG)
    if not qwen3.is_qwen3(raw):
        raise ValueError(
            f"{model}: model_type={raw.get('model_type')!r} is no Qwen3; give one such as Qwen/Qwen3-1.7B"
        )
    llm, text = qwen3.read(raw, folder), load_text_tokenizer(folder)
    asr = CatASR(
        ASRConfig(
            llm=llm.shape,
            text_vocab_size=llm.vocab_size,
            num_codebooks=num_codebooks,
            codebook_size=codebook_size,
            tokens=_markers(text, str(model)),
            tied=llm.tied,
            rope_theta=llm.rope_theta,
            max_positions=llm.max_positions,
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


def _markers(text: TextTokenizer, model: str) -> ASRTokens:
    found = [text.encode(marker) for marker in MARKERS]
    if any(len(ids) != 1 for ids in found):
        raise ValueError(f"{model}: its tokenizer lacks {', '.join(MARKERS)}; give a Qwen3 checkpoint's own")
    start, end, over = (ids[0] for ids in found)
    return ASRTokens(audio_start=start, audio_end=end, text_end=over)
