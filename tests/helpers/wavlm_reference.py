"""WavLM + ECAPA-TDNN a second time: plain functions of the published weights' names, one axis order.

What is easily got wrong is a field of `Variant`, whose defaults are right, so that tests can see that a wrong
one would show.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
HIDDEN, HEADS, LAYERS, FEED, CONV, BUCKETS, POSITION = 16, 4, 3, 24, 8, 16, 6
CHANNELS, POOLED, BOTTLENECK, ATTENTION, EMBEDDING = 16, 20, 6, 5, 12
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
WAVLM = "feature_extract.model."


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How the published network is computed."""

    wave_eps: float = 1e-5
    last_state: str = "normed"
    pre_norm: bool = True
    relu_first: bool = True
    dilations: tuple[int, ...] = (2, 3, 4)
    groups: int = 8
    global_context: bool = False
    instance_norm: bool = True
    softmax_weights: bool = True
    max_distance: int = 800
    gated: bool = True


def shapes(large: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint: the published one, or a small one."""
    hidden, heads, layers, feed, conv, buckets, kernel, groups = (
        (1024, 16, 24, 4096, 512, 320, 128, 16)
        if large
        else (HIDDEN, HEADS, LAYERS, FEED, CONV, BUCKETS, POSITION, 4)
    )
    channels, pooled, bottleneck, attention, embedding = (
        (512, 1536, 128, 128, 256) if large else (CHANNELS, POOLED, BOTTLENECK, ATTENTION, EMBEDDING)
    )
    found: dict[str, tuple[int, ...]] = {f"{WAVLM}mask_emb": (hidden,), "feature_weight": (layers + 1,)}

    def linear(name: str, outputs: int, inputs: int, *kernel: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs, *kernel), (outputs,)

    def norm(name: str, size: int, batch: bool = False) -> None:
        parts = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
        found.update({f"{name}.{part}": (size,) for part in parts})
        if batch:
            found[f"{name}.num_batches_tracked"] = ()

    for n, size in enumerate(KERNELS):
        found[f"{WAVLM}feature_extractor.conv_layers.{n}.0.weight"] = (conv, conv if n else 1, size)
        norm(f"{WAVLM}feature_extractor.conv_layers.{n}.2.1", conv)
    norm(f"{WAVLM}layer_norm", conv)
    linear(f"{WAVLM}post_extract_proj", hidden, conv)
    found[f"{WAVLM}encoder.pos_conv.0.bias"] = (hidden,)
    found[f"{WAVLM}encoder.pos_conv.0.weight_g"] = (1, 1, kernel)
    found[f"{WAVLM}encoder.pos_conv.0.weight_v"] = (hidden, hidden // groups, kernel)
    norm(f"{WAVLM}encoder.layer_norm", hidden)
    for n in range(layers):
        layer = f"{WAVLM}encoder.layers.{n}"
        for part in "qkv":
            linear(f"{layer}.self_attn.{part}_proj", hidden, hidden)
        linear(f"{layer}.self_attn.out_proj", hidden, hidden)
        linear(f"{layer}.self_attn.grep_linear", 8, hidden // heads)
        found[f"{layer}.self_attn.grep_a"] = (1, heads, 1, 1)
        if n == 0:
            found[f"{layer}.self_attn.relative_attention_bias.weight"] = (buckets, heads)
        norm(f"{layer}.self_attn_layer_norm", hidden)
        norm(f"{layer}.final_layer_norm", hidden)
        linear(f"{layer}.fc1", feed, hidden)
        linear(f"{layer}.fc2", hidden, feed)
    linear("layer1.conv", channels, hidden, 5)
    norm("layer1.bn", channels, batch=True)
    for n in (2, 3, 4):
        for part in ("Conv1dReluBn1", "Conv1dReluBn2"):
            linear(f"layer{n}.{part}.conv", channels, channels, 1)
            norm(f"layer{n}.{part}.bn", channels, batch=True)
        for group in range(7):
            linear(f"layer{n}.Res2Conv1dReluBn.convs.{group}", channels // 8, channels // 8, 3)
            norm(f"layer{n}.Res2Conv1dReluBn.bns.{group}", channels // 8, batch=True)
        linear(f"layer{n}.SE_Connect.linear1", bottleneck, channels)
        linear(f"layer{n}.SE_Connect.linear2", channels, bottleneck)
    linear("conv", pooled, 3 * channels, 1)
    linear("pooling.linear1", attention, pooled, 1)
    linear("pooling.linear2", pooled, attention, 1)
    norm("bn", 2 * pooled, batch=True)
    linear("linear", embedding, 2 * pooled)
    found["loss_calculator.projection.weight"] = (embedding, 5994) if large else (embedding, 7)
    return found


def small_weights() -> Weights:
    """Random, and so large that each of them matters."""
    generator, found = torch.Generator().manual_seed(0), {}
    for name, shape in shapes().items():
        if name.endswith("num_batches_tracked"):
            found[name] = torch.tensor(3)
            continue
        value = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            value = 0.5 + value.abs()
        elif "norm.weight" in name or ".2.1.weight" in name or ("bn" in name.lower() and len(shape) == 1):
            value = 1 + 0.3 * value
        elif len(shape) > 1 and "relative" not in name and "grep_a" not in name:
            value = value / math.sqrt(math.prod(shape[1:]))
        found[name] = value
    return found


def reference(weights: Weights, audio: Tensor, variant: Variant | None = None) -> Tensor:
    """Audio [b, s] at 16 kHz to embeddings [b, e]."""
    variant = variant or Variant()
    wavlm = {name.removeprefix(WAVLM): w for name, w in weights.items() if name.startswith(WAVLM)}
    states = torch.stack(_states(wavlm, audio, variant))
    weight = weights["feature_weight"]
    weight = weight.softmax(0) if variant.softmax_weights else weight
    x = (weight[:, None, None, None] * states).sum(0).transpose(1, 2) + 1e-6
    if variant.instance_norm:
        x = (x - x.mean(2, keepdim=True)) / (x.var(2, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return _head(weights, x, variant)


def _states(w: Weights, audio: Tensor, variant: Variant) -> list[Tensor]:
    centred = audio - audio.mean(1, keepdim=True)
    x = (centred / (centred.square().mean(1, keepdim=True) + variant.wave_eps).sqrt())[:, None]
    for n, stride in enumerate(STRIDES):
        x = F.conv1d(x, w[f"feature_extractor.conv_layers.{n}.0.weight"], stride=stride)
        x = F.gelu(_norm(w, f"feature_extractor.conv_layers.{n}.2.1", x.mT).mT)
    x = _linear(w, "post_extract_proj", _norm(w, "layer_norm", x.mT))
    v, g = w["encoder.pos_conv.0.weight_v"], w["encoder.pos_conv.0.weight_g"]
    kernel = v * g / v.square().sum((0, 1), keepdim=True).sqrt()
    padding, groups = v.shape[2] // 2, v.shape[0] // v.shape[1]
    position = F.conv1d(x.mT, kernel, w["encoder.pos_conv.0.bias"], padding=padding, groups=groups)
    x = x + F.gelu(position[..., : x.shape[1]]).mT
    bias = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    bias = bias[_buckets(x.shape[1], len(bias), variant.max_distance)].permute(2, 0, 1)
    states = [x]
    for n in range(LAYERS):
        layer = f"encoder.layers.{n}"
        if variant.pre_norm:
            x = x + _attention(
                w, f"{layer}.self_attn", _norm(w, f"{layer}.self_attn_layer_norm", x), bias, variant
            )
            x = x + _feed(w, layer, _norm(w, f"{layer}.final_layer_norm", x))
        else:
            x = _norm(
                w,
                f"{layer}.self_attn_layer_norm",
                x + _attention(w, f"{layer}.self_attn", x, bias, variant),
            )
            x = _norm(w, f"{layer}.final_layer_norm", x + _feed(w, layer, x))
        states.append(x)
    if variant.last_state == "normed":
        states[-1] = _norm(w, "encoder.layer_norm", x)
    return states


def _attention(w: Weights, name: str, x: Tensor, bias: Tensor, variant: Variant) -> Tensor:
    def heads(tensor: Tensor) -> Tensor:
        return tensor.unflatten(2, (HEADS, -1)).transpose(1, 2)

    gates = _linear(w, f"{name}.grep_linear", heads(x)).unflatten(-1, (2, 4)).sum(-1).sigmoid()
    gate = gates[..., :1] * (gates[..., 1:] * w[f"{name}.grep_a"] - 1) + 2
    q, k, v = (heads(_linear(w, f"{name}.{part}_proj", x)) for part in "qkv")
    score = q @ k.mT / math.sqrt(q.shape[-1]) + (gate * bias if variant.gated else bias)
    return _linear(w, f"{name}.out_proj", (score.softmax(-1) @ v).transpose(1, 2).flatten(2))


def _buckets(time: int, buckets: int, farthest: int) -> Tensor:
    """Half of the buckets for keys after the query; of each half, half by one and the rest by powers."""
    half = buckets // 2
    exact = half // 2

    def bucket(distance: int) -> int:
        offset, distance = (half if distance > 0 else 0), abs(distance)
        if distance < exact:
            return offset + distance
        grown = exact + int(math.log(distance / exact) / math.log(farthest / exact) * (half - exact))
        return offset + min(grown, half - 1)

    return torch.tensor([[bucket(key - query) for key in range(time)] for query in range(time)])


def _feed(w: Weights, layer: str, x: Tensor) -> Tensor:
    return _linear(w, f"{layer}.fc2", F.gelu(_linear(w, f"{layer}.fc1", x)))


def _head(w: Weights, x: Tensor, variant: Variant) -> Tensor:
    x = _conv_relu_norm(w, "layer1.conv", "layer1.bn", x, variant, padding=2)
    outputs = []
    for n, dilation in zip((2, 3, 4), variant.dilations, strict=True):
        x = x + _block(w, f"layer{n}", x, dilation, variant)
        outputs.append(x)
    x = F.conv1d(torch.cat(outputs, 1), w["conv.weight"], w["conv.bias"]).relu()
    observed = x - x.mean(2, keepdim=True) if variant.global_context else x
    score = torch.tanh(F.conv1d(observed, w["pooling.linear1.weight"], w["pooling.linear1.bias"]))
    alpha = F.conv1d(score, w["pooling.linear2.weight"], w["pooling.linear2.bias"]).softmax(2)
    mean = (alpha * x).sum(2)
    std = ((alpha * x**2).sum(2) - mean**2).clamp(min=1e-9).sqrt()
    return _linear(w, "linear", _batch_norm(w, "bn", torch.cat([mean, std], 1)))


def _block(w: Weights, name: str, x: Tensor, dilation: int, variant: Variant) -> Tensor:
    x = _conv_relu_norm(w, f"{name}.Conv1dReluBn1.conv", f"{name}.Conv1dReluBn1.bn", x, variant)
    parts = x.split(x.shape[1] // 8, 1)
    done: list[Tensor] = []
    for n in range(variant.groups - 1):
        arguments = parts[n] + done[-1] if done else parts[n]
        names = f"{name}.Res2Conv1dReluBn.convs.{n}", f"{name}.Res2Conv1dReluBn.bns.{n}"
        done.append(_conv_relu_norm(w, *names, arguments, variant, padding=dilation, dilation=dilation))
    x = torch.cat([*done, *parts[variant.groups - 1 :]], 1)
    x = _conv_relu_norm(w, f"{name}.Conv1dReluBn2.conv", f"{name}.Conv1dReluBn2.bn", x, variant)
    gate = _linear(
        w, f"{name}.SE_Connect.linear2", _linear(w, f"{name}.SE_Connect.linear1", x.mean(2)).relu()
    )
    return x * gate.sigmoid()[..., None]


def _conv_relu_norm(
    w: Weights, conv: str, norm: str, x: Tensor, variant: Variant, padding: int = 0, dilation: int = 1
) -> Tensor:
    x = F.conv1d(x, w[f"{conv}.weight"], w[f"{conv}.bias"], padding=padding, dilation=dilation)
    return _batch_norm(w, norm, x.relu()) if variant.relu_first else _batch_norm(w, norm, x).relu()


def _batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = weight / (variance + 1e-5).sqrt()
    offset = bias - mean * scale
    return x * scale[:, None] + offset[:, None] if x.dim() == 3 else x * scale + offset


def _norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
