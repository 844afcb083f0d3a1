"""CAT-ASR from a trained Qwen3: its weights as they are, with untrained code tables."""

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
    """Return whether a folder or hub id holds a CatASR, and not a bare LLM."""
    return "llm" in checkpoint.read_json(checkpoint.local_folder(model) / checkpoint.CONFIG)


def from_qwen3(
    model: str | Path, num_codebooks: int = 32, codebook_size: int = 1024
) -> "tuple[CatASR, TextTokenizer]":
    """Build a CAT-ASR from a trained Qwen3 (paper Appendix E), with untrained code tables.

    Args:
        model: Folder or hub id of a Qwen3, such as the paper's Qwen/Qwen3-1.7B.
        num_codebooks: How many codebooks the model reads.
        codebook_size: Codes in a codebook.

    Returns:
        The model, and the text tokenizer of the Qwen3.

    Raises:
        ValueError: It is no Qwen3, or its tokenizer lacks the tokens that mark audio.
    """
    folder = checkpoint.local_folder(model)
    raw = checkpoint.read_json(folder / checkpoint.CONFIG)
    if not qwen3.is_qwen3(raw):
        raise ValueError(
            f"{model}: model_type={raw.get('model_type')!r} is no Qwen3; give one such as Qwen/Qwen3-1.7B"
        )
    llm, text_tokenizer = qwen3.read(raw, folder), load_text_tokenizer(folder)
    asr = CatASR(
        ASRConfig(
            llm=llm.shape,
            text_vocab_size=llm.vocab_size,
            num_codebooks=num_codebooks,
            codebook_size=codebook_size,
            tokens=_markers(text_tokenizer, str(model)),
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
    return asr, text_tokenizer


def _markers(text_tokenizer: TextTokenizer, model: str) -> ASRTokens:
    encoded = [text_tokenizer.encode(marker) for marker in MARKERS]
    if any(len(ids) != 1 for ids in encoded):
        raise ValueError(f"{model}: its tokenizer lacks {', '.join(MARKERS)}; give a Qwen3 checkpoint's own")
    audio_start, audio_end, text_end = (ids[0] for ids in encoded)
    return ASRTokens(audio_start=audio_start, audio_end=audio_end, text_end=text_end)
