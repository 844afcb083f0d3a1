"""The Temporal Transformer's way to `attend`: transformers asks for attention functions by name.

And the name by which it asks for a cache, which changed in transformers 5.24.
"""

import functools
import inspect
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tokenizer.layers.attention import attend

ATTEND = "attend"
"""FlashAttention 2 where it is installed and fits; SDPA where it does not, or where rows are masked."""


def cache_argument(model: nn.Module, cache: Cache | None) -> dict[str, Cache | None]:
    """Return `cache` as the keyword argument by which this model's forward pass takes it."""
    return {_cache_name(type(model)): cache}


@functools.cache
def _cache_name(kind: type[nn.Module]) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def _attention(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    if attention_mask is None:
        return attend(q, k, v, window=k.shape[2]).transpose(1, 2), None
    return sdpa_attention_forward(module, q, k, v, attention_mask, **options)[0], None


AttentionInterface.register(ATTEND, _attention)
AttentionMaskInterface.register(ATTEND, sdpa_mask)
