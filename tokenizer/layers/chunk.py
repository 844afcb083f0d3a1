"""The steps of one call to a stage, with a cache or without."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from tokenizer.layers.attention import AttentionMask, build_mask, rotary_factors


@dataclass(frozen=True)
class Chunk:
    """The steps of one call to a stage: their rotary factors, their mask, and where they are cached."""

    rotary_factors: Complex[Tensor, "t one one half"]
    mask: AttentionMask
    history: tuple[Float[Tensor, "two b h p d"], ...] = ()
    """By layer; only where history and chunk do not fit into the block together."""
    write: tuple[Float[Tensor, "two b h w d"], ...] = ()
    """By layer: the part of the block into which keys and values go; empty without a cache."""
    read: tuple[Float[Tensor, "two b h m d"], ...] = ()
    """By layer: the part of the block that then holds all keys and values to attend to."""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.rotary_factors)

    def extend(
        self, layer: int, qkv: Float[Tensor, "three b h t d"]
    ) -> tuple[Float[Tensor, "b h t d"], Float[Tensor, "b h m d"], Float[Tensor, "b h m d"]]:
        """Cache one layer's keys and values, and return them behind those of the history.

        Args:
            layer: Index of the layer in its stage.
            qkv: Rotated queries and keys, and values, of the chunk's t steps.

        Returns:
            The queries, and the keys and values of the m steps that they may attend to.
        """
        if not self.write:
            q, k, v = qkv.unbind()
            return q, k, v
        q, kv = qkv[0], qkv[1:]
        if kv.requires_grad:
            kv = kv.detach()
        if self.history:
            kv = torch.cat([self.history[layer], kv], -2)
            self.write[layer].copy_(kv[..., kv.shape[-2] - self.write[layer].shape[-2] :, :])
        else:
            self.write[layer].copy_(kv)
            kv = self.read[layer]
        k, v = kv.unbind()
        return q, k, v


def no_cache(x: Float[Tensor, "n d"], steps: int, window: int, frequencies: Float[Tensor, " half"]) -> Chunk:
    """Return the chunk of whole signals: there is no history, and nothing is cached.

    Args:
        x: A tensor of the dtype and device of the computation.
        steps: Steps of each signal, t.
        window: Keys that a query attends to.
        frequencies: Rotary frequencies, from `attention.frequencies`.

    Returns:
        The chunk of all `steps`.
    """
    factors = rotary_factors(0, steps, frequencies)[:, None, None]
    return Chunk(factors, build_mask(steps, steps, window, x))
