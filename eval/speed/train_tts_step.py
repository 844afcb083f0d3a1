"""Throughput and memory of a TTS training step: `python -m eval.speed.train_tts_step --codes FOLDER`.

Against a plain teacher-forced step, the public recipe: the Depth Transformer over prompts, text, padding and
frames alike, all 33 positions and all heads. The same model, of about the paper's proportions, on texts and
lengths of a real corpus with random codes; contenders take turns, and what counts is the median of the
rounds' ratios. On a CPU time is that of the thread, on a GPU the products are bfloat16.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import tyro
from datasets import Dataset
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cat_tts import CatTTS, TTSConfig
from cat_tts.sequences.rows import IGNORED
from cat_tts.sequences.sequence_dropout import deep_frames
from cat_tts.text.tokenizers import train_sentencepiece
from eval.common.results import command_line, markdown_table, require_place, write_json
from eval.speed.generation import SIZES
from eval.speed.memory import peak_growth
from training.common.distributed import optimizer_step
from training.data.code_shards import read_codes
from training.tts.batches import DropoutConfig, TTSBatch, TTSBatchConfig, TTSBatches
from training.tts.cost import count_saved

Step = Callable[[CatTTS], Tensor]


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Options of the comparison."""

    codes: Path
    """Folder of shards; their texts and lengths are used."""
    size: str = "small"
    """One of eval.speed's: small is 12 x 512 and 4 x 256 wide, with 32 codebooks."""
    rows: int = 512
    """Rows of a step, padding included."""
    rounds: int = 5
    utterances: int = 400
    deep_part: float = 1 / 16
    device: str = "cpu"
    out: Annotated[Path | None, tyro.conf.arg(help="JSON file to write")] = None


def plain(batch: TTSBatch) -> Step:
    """Return the reference step: all rows, all positions, all heads, and a mean over channels of their means.

    Args:
        batch: What the step reads.
    """

    def step(model: CatTTS) -> Tensor:
        states = model.states(model.embed(batch.rows, model.config.num_codebooks), positions=batch.positions)
        targets = batch.targets.flatten(0, 1)
        decision, codes = model.frame_logits(states.flatten(0, 1), targets)
        stop = (targets[:, 0] == model.config.tokens.audio_end).long()
        wanted = torch.where(targets[:, 0] == IGNORED, IGNORED, stop)
        losses = [F.cross_entropy(decision.float(), wanted, ignore_index=IGNORED)]
        for k, logits in enumerate(codes.unbind(1)):
            losses.append(F.cross_entropy(logits.float(), targets[:, 1 + k], ignore_index=IGNORED))
        return torch.stack(losses).mean()

    return step


def ours(batch: TTSBatch) -> Step:
    """Return the computation of training.train_tts for a pass.

    Args:
        batch: What the pass reads.
    """

    def step(model: CatTTS) -> Tensor:
        loss = model(batch.rows, None, batch.targets, batch.depth, batch.positions, batch.deep)
        codes, decisions = batch.counts.unbind()
        return loss.code_sums.sum() / codes + loss.decision_sum / decisions

    return step


def full_step(step: Step, model: CatTTS, optimizer: torch.optim.Optimizer) -> None:
    """Run forward, backward, and the update.

    Args:
        step: Computes the loss.
        model: The model; it is updated.
        optimizer: Its optimizer.
    """
    cuda = next(model.parameters()).is_cuda
    with torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext():
        loss = step(model)
    loss.backward()
    optimizer_step([optimizer], 1e-4, 1.0)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the time of this thread, or of the GPU, in seconds.

    Args:
        run: What is timed.
        device: Where it computes.
    """
    if device.type == "cpu":
        begin = time.thread_time()
        run()
        return time.thread_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def saved_bytes(step: Step, model: CatTTS) -> int:
    """Return the bytes stored for the backward pass, without weights, each storage counted once.

    Args:
        step: Computes the loss.
        model: The model.
    """
    cuda = next(model.parameters()).is_cuda
    lower = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
    with count_saved(model) as found, lower:
        step(model)
        return sum(found.values())


def data(options: StepOptions, config: TTSConfig) -> TTSBatches:
    """Return batches of single utterances with real texts and lengths, and random codes.

    Args:
        options: Names the corpus and the sizes of batches.
        config: The model.
    """
    codes = read_codes(options.codes)
    draw = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(codes), generator=draw)[: options.utterances].tolist()
    rows = []
    for i in chosen:
        found = codes[i]
        shape = (found["frames"], config.num_codebooks)
        drawn = torch.randint(config.codebook_size, shape, generator=draw).tolist()
        rows.append({**{n: found[n] for n in ("text", "speaker", "frames")}, "codes": drawn})
    with TemporaryDirectory() as folder:
        size = min(512, config.text_vocab_size)
        words = train_sentencepiece(codes["text"][:], Path(folder) / "text.model", size)
    batches = TTSBatchConfig(rows=options.rows, pair=0.0)
    dropout = DropoutConfig(p=0.0)
    return TTSBatches(Dataset.from_list(rows), config, words, batches, dropout, seed=0, steps=options.rounds)


def contenders(options: StepOptions, batches: TTSBatches, number: int) -> dict[str, tuple[Step, TTSBatch]]:
    """Return the steps of a round by name, each with its batch.

    At p = 1 depths are spread evenly: few samples then have the mean of many.

    Args:
        options: Device and part of deep frames.
        batches: The batches.
        number: Number of the round, from 0; it determines the random draws.
    """
    (batch,) = batches[number]
    count, full = len(batch.rows), int(batch.depth[0])
    places = torch.arange(count)
    even = ((places + 0.5) / count * full + (places + number) % 2).long().clamp(min=1)
    even = even[torch.randperm(count, generator=torch.Generator().manual_seed(number))]
    draw = torch.Generator().manual_seed(number)
    some = batch._replace(depth=even)
    deep = deep_frames(batch.targets, options.deep_part, draw)
    others = torch.randperm(len(batches.usable), generator=draw)[:count]
    shuffled = batches.collate([(i,) for i in batches.usable[others.numpy()].tolist()])
    device = torch.device(options.device)
    steps = {
        "plain, recipe's batches": (plain, shuffled),
        "plain": (plain, batch),
        "p = 0": (ours, batch),
        "p = 1": (ours, some),
        "p = 0, deep 1/16": (ours, batch._replace(deep=deep)),
        "p = 1, deep 1/16": (ours, some._replace(deep=deep)),
    }
    return {name: (make(one.to(device)), one) for name, (make, one) in steps.items()}


def compare(options: StepOptions) -> dict[str, Any]:
    """Measure rows a second, bytes and FLOPs of each contender.

    Args:
        options: What to compare.

    Returns:
        The measurements and their ratios by contender, under `steps`, beside what was measured.
    """
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = SIZES[options.size]()
    batches = data(options, config)
    model = CatTTS(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas=(0.9, 0.95), fused=True)
    rates: dict[str, list[float]] = {}
    memory: dict[str, dict[str, float]] = {}
    for number in range(options.rounds + 1):  # the first is not counted: it allocates
        steps = contenders(options, batches, number)
        for name, (step, batch) in steps.items():
            took = seconds(lambda step=step: full_step(step, model, optimizer), device)
            if number:
                rates.setdefault(name, []).append(batch.length / took)
                continue
            grown = peak_growth(lambda step=step: full_step(step, model, optimizer), device)
            with FlopCounterMode(display=False) as counter:
                full_step(step, model, optimizer)
            memory[name] = {
                "saved_bytes_per_row": saved_bytes(step, model) / batch.length,
                "peak_bytes_per_row": grown / batch.length,
                "flops_per_row": counter.get_total_flops() / batch.length,
                "rows": batch.length,
                "padded_rows": batch.rows[..., 0].numel(),
                "frames": int((batch.targets[..., 1] != IGNORED).sum()),
                "mean_depth": batch.depth.double().mean().item(),
            }
    result = {name: {"rows_per_second": statistics.median(rates[name]), **memory[name]} for name in rates}
    for name, one in result.items():
        for other in ("plain, recipe's batches", "plain", "p = 0"):
            pairs = zip(rates[name], rates[other], strict=True)
            one[f"speed over {other}"] = statistics.median(mine / theirs for mine, theirs in pairs)
            one[f"saved over {other}"] = one["saved_bytes_per_row"] / result[other]["saved_bytes_per_row"]
            one[f"flops over {other}"] = one["flops_per_row"] / result[other]["flops_per_row"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"size": options.size, "parameters": parameters, "device": options.device, "steps": result}


def table(result: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios as a table for a page of the docs.

    Args:
        result: What `compare` returned.

    Returns:
        The fields of `eval.common.results.Table`.
    """
    head = ["step", "rows/s", "speed / plain", "speed / recipe", "speed / p = 0"]
    head += ["saved MB a row", "saved / plain", "saved / p = 0", "peak MB a row", "FLOPs / p = 0"]
    rows = []
    for name, one in result["steps"].items():
        speeds = [one["speed over plain"], one["speed over plain, recipe's batches"], one["speed over p = 0"]]
        saved = [one["saved_bytes_per_row"] / 1e6, one["saved over plain"], one["saved over p = 0"]]
        peak = [one["peak_bytes_per_row"] / 1e6, one["flops over p = 0"]]
        rows.append([name, *(round(float(v), 2) for v in [one["rows_per_second"], *speeds, *saved, *peak])])
    return {"title": "A training step", "head": head, "rows": rows}


def main(argv: list[str] | None = None) -> None:
    """Run the command line: `python -m eval.speed.train_tts_step --help`."""
    torch.set_num_threads(1)
    argv = sys.argv[1:] if argv is None else argv
    options = tyro.cli(StepOptions, args=argv, description=__doc__)
    require_place(options.out)
    result = compare(options)
    shown = table(result)
    if options.out is not None:
        command = command_line("eval.speed.train_tts_step", argv)
        write_json(options.out, {"command": command, **result, "tables": [shown]})
    print(markdown_table(shown["head"], shown["rows"]))
    print(json.dumps(result["steps"], indent=1))


if __name__ == "__main__":
    main()
