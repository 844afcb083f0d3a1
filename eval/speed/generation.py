"""Measure the speed of frame generation, against other implementations and against memory bandwidth.

Every contender has random weights of the same shapes. They take turns, round by round, and ratios are medians
of the ratios of a round: neighbours on the machine slow all of a round, not one contender.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from cat_tts import CatTTS, Continuation, FrameDecoder, SamplingOptions, TTSConfig
from cat_tts.config import SpecialTokens, TransformerConfig, paper
from cat_tts.generation.int8_linear import Weights
from eval.speed.csm import csm
from eval.speed.reference_loop import published_loop

Run = Callable[[int], object]
"""Generates a number of frames of every sequence of a batch."""

PROMPT = 16
"""Rows of text before the first frame."""
GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)


def _shape(dim: int, num_layers: int, num_heads: int, head_dim: int, ffn_dim: int) -> TransformerConfig:
    return TransformerConfig(
        dim=dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads // 2,
        head_dim=head_dim,
        ffn_dim=ffn_dim,
    )


def _config(temporal: TransformerConfig, depth: TransformerConfig) -> TTSConfig:
    tokens = SpecialTokens(pad=0, audio_start=1, audio_end=2, slot=3)
    return TTSConfig(temporal=temporal, depth=depth, text_vocab_size=512, tokens=tokens)


SIZES: dict[str, Callable[[], TTSConfig]] = {
    # In `tiny` the products cost nothing: what is left is the overhead of the framework.
    "tiny": lambda: _config(_shape(64, 2, 4, 16, 192), _shape(64, 2, 4, 16, 192)),
    "small": lambda: _config(_shape(512, 12, 8, 64, 1536), _shape(256, 4, 4, 64, 1536)),
    "paper": paper,
}


@torch.inference_mode()
def measure(
    size: str,
    *,
    batch: int,
    depth: int,
    device: str = "cpu",
    rounds: int = 7,
    frames: int = 6,
    only: Sequence[str] | None = None,
) -> dict:
    """Measure frame times of the contenders and their ratios to those of `ours` and of `int8`.

    A frame's time is (time of `frames` frames - time of 2) / (frames - 2), so that reading the prompt does
    not count; on the CPU the clock is that of the calling thread.

    Args:
        size: One of `SIZES`.
        batch: Number of sequences.
        depth: Number of codebooks.
        device: A torch device name; weights are bfloat16 on cuda, else float32.
        rounds: Number of turns of every contender.
        frames: Frames of the longer run, more than 2.
        only: Names from `CONTENDERS`; by default all, int8 on the CPU only.

    Returns:
        Milliseconds a frame by contender, ratios, bytes read and bandwidth, as plain numbers.
    """
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    with torch.device(device):
        model = CatTTS(SIZES[size]()).eval().to(dtype)
    names = only or [name for name in CONTENDERS if name != "int8" or device == "cpu"]
    runs = {name: CONTENDERS[name](model, batch, depth) for name in names}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(2)
    copied = []
    for _ in range(rounds):
        for name, run in runs.items():
            short, long = _seconds(run, 2, device), _seconds(run, frames, device)
            times[name].append((long - short) / (frames - 2))
        copied.append(copy_bandwidth(device))
    read, bandwidth = frame_bytes(model, depth), statistics.median(copied)
    return {
        "size": size,
        "batch": batch,
        "depth": depth,
        "device": device,
        "rounds": rounds,
        "ms_per_frame": {name: 1000 * statistics.median(values) for name, values in times.items()},
        "speed_of_ours": _ratios(times, "ours"),
        "speed_of_int8": _ratios(times, "int8"),
        "weight_bytes_per_frame": read,
        "copy_bytes_per_second": bandwidth,
        "bound_ms_per_frame": 1000 * read / bandwidth,
    }


def _ratios(times: Mapping[str, Sequence[float]], ours: str) -> dict[str, float]:
    """Return the time of the others as a multiple of the time of `ours`, by name."""
    if ours not in times:
        return {}
    return {
        name: statistics.median(a / b for a, b in zip(values, times[ours], strict=True))
        for name, values in times.items()
        if name != ours
    }


def prompt_ids(batch: int, device: torch.device) -> Int[Tensor, "b t"]:
    """Return the text before the frames, the same for all contenders.

    Args:
        batch: Number of sequences.
        device: Where to put it.

    Returns:
        Random text ids [b, t], t = `PROMPT`.
    """
    return torch.randint(5, 500, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).to(device)


def prompt_rows(model: CatTTS, batch: int) -> Int[Tensor, "b t c"]:
    """Return `prompt_ids` as rows of a model.

    Args:
        model: Tells the number of codebooks and the pad code.
        batch: Number of sequences.

    Returns:
        Rows [b, t, c], c = 1 + number of codebooks: text id and pad codes.
    """
    ids = prompt_ids(batch, model.text_embedding.weight.device)
    pads = ids.new_full((batch, PROMPT, model.config.num_codebooks), model.config.pad_code)
    return torch.cat([ids[..., None], pads], -1)


def _published(model: CatTTS, batch: int, depth: int) -> Run:
    rows = prompt_rows(model, batch)
    return lambda frames: published_loop(model, rows, depth, frames)


def _ours(weights: Weights = "float", options: SamplingOptions = GREEDY) -> Callable[..., Run]:
    def prepare(model: CatTTS, batch: int, depth: int) -> Run:
        decoder, rows = FrameDecoder[int](model, batch, weights), prompt_rows(model, batch)

        def run(frames: int) -> None:
            for i in range(batch):
                sequence = Continuation(
                    rows=rows[i],
                    depth=depth,
                    seed=i,
                    options=options,
                    min_frames=frames,
                    max_frames=frames,
                )
                decoder.join(sequence, i)
            for _ in range(frames):
                decoder.step()
            decoder.clear()

        return run

    return prepare


def _products(model: CatTTS, batch: int, depth: int) -> Run:
    """Prepare the `nn.Linear` products of a frame, and nothing else."""
    inner = model.depth
    stop = nn.Linear(inner.decision_head.in_features, 2, bias=False).to(inner.decision_head.weight)
    modules = _linear(model.temporal)
    for k in range(1 + depth):
        for part in (inner.adapter_in, *inner.layers, *inner.adapters[k : k + 1]):
            modules += _linear(part)
        modules.append(stop if k == 0 else inner.code_heads[k - 1])
    widths = {module.in_features for module in modules}
    x = {width: torch.randn(batch, width).to(stop.weight) for width in widths}

    def run(frames: int) -> None:
        for _ in range(frames):
            for module in modules:
                module(x[module.in_features])

    return run


def _linear(part: nn.Module) -> list[nn.Linear]:
    return [module for module in part.modules() if isinstance(module, nn.Linear)]


def _csm(model: CatTTS, batch: int, depth: int) -> Run:
    weight = model.text_embedding.weight
    peer, ids = csm(model.config, depth), prompt_ids(batch, weight.device)
    peer.to(device=weight.device, dtype=weight.dtype)  # pyright: ignore[reportCallIssue]

    def run(frames: int) -> None:
        made = peer.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=frames, do_sample=False)
        assert isinstance(made, Tensor) and made.shape[1:] == (frames, depth)

    return run


CONTENDERS: dict[str, Callable[[CatTTS, int, int], Run]] = {
    "published": _published,
    "csm": _csm,
    "products": _products,
    "ours": _ours(),
    "sampled": _ours(options=SamplingOptions()),
    "int8": _ours("int8"),
}


def frame_bytes(model: CatTTS, depth: int) -> int:
    """Return how many bytes of weights a frame reads at least in `FrameDecoder`.

    It reads the incoming adapter once, rows of tables, two rows of the stop head, and the layers of the Depth
    Transformer at every position.

    Args:
        model: The model.
        depth: Number of codebooks.
    """
    inner = model.depth
    layers = sum(p.nbytes for layer in inner.layers for p in layer.parameters())
    heads = sum(p.nbytes for head in inner.code_heads[:depth] for p in head.parameters())
    adapters = sum(p.nbytes for part in inner.adapters[: 1 + depth] for p in part.parameters())
    temporal = sum(p.nbytes for p in model.temporal.parameters())
    incoming = sum(p.nbytes for p in inner.adapter_in.parameters())
    return temporal + incoming + (1 + depth) * layers + heads + adapters


def copy_bandwidth(device: str) -> float:
    """Return bytes read and written a second by a copy that no cache holds.

    Args:
        device: A torch device name.
    """
    size = 2**28 if device.startswith("cuda") else 2**26
    source = torch.ones(size // 4, device=device)
    target = source.clone()
    return 2 * size / min(_seconds(lambda _: target.copy_(source), 1, device) for _ in range(3))


def clock(device: str) -> float:
    """Return the time in seconds: CPU time of the calling thread, which is the only one that computes.

    On a GPU it is wall-clock time, after all work on the GPU is finished.

    Args:
        device: A torch device name.
    """
    if not device.startswith("cuda"):
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(run: Run, frames: int, device: str) -> float:
    before = clock(device)
    run(frames)
    return clock(device) - before
