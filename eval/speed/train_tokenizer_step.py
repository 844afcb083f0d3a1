"""Compare the throughput of a training step with that of a plain loop.

    python -m eval.speed.train_tokenizer_step --data MANIFEST

Both train the mini recipe on the same batches, stage 1 and stage 2: training.train_tokenizer, and the loop
written out below, which knows no Accelerate, no checkpoint and no log. Rounds take turns on one thread;
what counts is the CPU time of the thread, in medians, and whether memory grows.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import psutil
import torch
import tyro
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators, generator_loss
from training.audio_tokenizer import recipes
from training.audio_tokenizer.batches import TokenizerBatches
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.losses import MultiScaleMelLoss, discriminator_loss, feature_loss, weighted_sum
from training.audio_tokenizer.recipes import TokenizerTraining
from training.data.manifest import read_manifest
from training.train_tokenizer import train


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """Options of the comparison."""

    data: Path
    """Manifest with texts."""
    steps: int = 12
    """Steps of a round; the first two are not counted."""
    rounds: int = 3
    preset: str = "mini"
    memory_steps: int = 100
    """Steps over which memory is watched, after as many to warm up."""


def plain(options: TokenizerTraining) -> None:
    """Train with the reference loop, with each step as one would write it down first.

    Args:
        options: The recipe.
    """
    torch.manual_seed(options.seed)
    shape, rates = options.shape, options.optimizer
    model, discriminators = AudioTokenizer(shape.model), Discriminators(shape.discriminators)
    head = SemanticHead(shape.semantic)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(rates.ema))
    mel = MultiScaleMelLoss(shape.model.sample_rate)
    trained = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(trained, rates.learning_rate, betas=(0.8, 0.99))
    discriminator_optimizer = torch.optim.AdamW(
        discriminators.parameters(), rates.discriminator_learning_rate, betas=(0.8, 0.99)
    )
    clips = read_manifest(options.data)
    data = TokenizerBatches(
        clips, options.batches, shape.model, head.encode_text, seed=options.seed, steps=options.steps
    )
    for step in range(options.steps):
        batch = data[step]
        quantized = model.quantizer(model.latents(batch.audio), batch.depth)
        audio = model.synthesize(quantized.latents)
        losses = {
            "mel": mel(audio, batch.audio),
            "commitment": quantized.commitment_loss,
            "codebook": quantized.codebook_loss,
        }
        if any(batch.texts):
            semantic = head(quantized.latents, batch.frames, batch.tasks, batch.texts)
            losses["semantic"] = semantic.total / semantic.tokens
        if options.adversarial_from is not None and step >= options.adversarial_from:
            discriminator_optimizer.zero_grad()
            discriminator_loss(discriminators(batch.audio), discriminators(audio.detach())).backward()
            torch.nn.utils.clip_grad_norm_(discriminators.parameters(), rates.clip)
            discriminator_optimizer.step()
            real, fake = discriminators(batch.audio), discriminators(audio)
            losses |= {"adversarial": generator_loss(fake), "feature": feature_loss(real, fake)}
        optimizer.zero_grad()
        weighted_sum(losses, options.weights).backward()
        torch.nn.utils.clip_grad_norm_(trained, rates.clip)
        optimizer.step()
        averaged.update_parameters(model)


def steps_of(run: Callable[[], object], updates: int) -> tuple[list[float], list[float]]:
    """Measure the steps of a training.

    Steps are distinguished by their last update: stage 1 has one a step, stage 2 has two.

    Args:
        run: The training.
        updates: Optimizer updates a step.

    Returns:
        Thread seconds of each step but the first two, and resident megabytes after each step.
    """
    clock, memory, process = [], [], psutil.Process()

    def stamp(*_: object) -> None:
        clock.append(time.thread_time())
        memory.append(process.memory_info().rss / 2**20)

    hook = register_optimizer_step_post_hook(stamp)
    try:
        run()
    finally:
        hook.remove()
    ends = clock[updates - 1 :: updates]
    return [after - before for before, after in pairwise(ends[1:])], memory[updates - 1 :: updates]


def compare(options: SpeedOptions) -> dict[str, float]:
    """Measure both loops in both stages, and the memory of ours.

    Args:
        options: What to compare.

    Returns:
        By name: median step times and their ratios, plain over ours, where above 1 is faster than the plain
        loop; megabytes halfway and at the end.
    """
    results: dict[str, float] = {}
    preset = recipes.PRESETS[options.preset]()
    with tempfile.TemporaryDirectory() as folder:
        for stage, start in ((1, None), (2, 0)):
            recipe = replace(preset, data=options.data, steps=options.steps, adversarial_from=start)
            ours, reference = [], []
            for i in range(options.rounds):
                mine = replace(recipe, run=Path(folder) / f"{stage}-{i}")
                ours += steps_of(lambda mine=mine: train(mine), stage)[0]
                reference += steps_of(lambda plain_=recipe: plain(plain_), stage)[0]
            results[f"stage_{stage}_step_seconds"] = statistics.median(ours)
            results[f"stage_{stage}_plain_step_seconds"] = statistics.median(reference)
            results[f"stage_{stage}_ratio"] = statistics.median(reference) / statistics.median(ours)
        if options.memory_steps:
            steps = 2 * options.memory_steps
            long = replace(preset, data=options.data, steps=steps, adversarial_from=0, save_every=steps)
            long = replace(long, run=Path(folder) / "memory")
            memory = steps_of(lambda: train(long), 2)[1]
            quarter = len(memory) // 4
            results["megabytes_halfway"] = statistics.median(memory[quarter : 2 * quarter])
            results["megabytes_at_the_end"] = statistics.median(memory[3 * quarter :])
    return results


def main(argv: list[str] | None = None) -> None:
    """Run the command line: `python -m eval.speed.train_tokenizer_step --help`."""
    torch.set_num_threads(1)
    print(json.dumps(compare(tyro.cli(SpeedOptions, args=argv, description=__doc__)), indent=2))


if __name__ == "__main__":
    main()
