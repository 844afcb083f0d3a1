"""Before a long run: `python -m training.preflight mini --codes FOLDER --run runs/tts --tokenizer FOLDER`.

It takes the options of `training.train_tts`, writes into RUN/preflight, and ends with exit code 1 where the
run would be in vain. Some utterances of the shards are decoded, to be heard. The model is made to learn them
by heart, at full depth and with the run's learning rate: if it then does not say them from their text alone,
no length of training helps. Last, steps of the run itself are measured.
"""

import copy
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Int
from torch import Tensor, nn

from cat_tts import CatTTS, SamplingOptions
from cat_tts.sequences.rows import speaking_pace
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer import AudioTokenizer, save_audio
from tokenizer.io.checkpoint import write_config
from training.common.optimizers import BETAS
from training.common.run import trapezoid
from training.data.code_shards import Codes, read_codes, read_info, require_tokenizer
from training.tts.batches import Batch, Batches
from training.tts.cost import Cost, measure
from training.tts.recipes import PRESETS, TTSTraining
from training.tts.samples import speak
from training.tts.setup import adapted, starting_model

logger = logging.getLogger(__name__)

ENOUGH, EVERY, SHORT = 0.95, 50, 25
"""Part of the codes that have to come back; steps between two looks at them; frames of a short utterance."""
GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)


@dataclass(frozen=True, kw_only=True)
class Preflight(TTSTraining):
    """The run that is planned, and how closely to look at it."""

    utterances: int = 2
    """So many short ones are decoded and learnt by heart."""
    overfit_steps: int = 600
    """At most: it ends when they are learnt."""
    measured_steps: int = 3


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found."""

    recalled: list[float]
    """Part of each utterance's codes that came back."""
    overfit_steps: int
    overfit_loss: float
    """A code, in nats, at the end."""
    cost: Cost

    @property
    def passed(self) -> bool:
        return min(self.recalled) >= ENOUGH


def preflight(options: Preflight) -> Report:
    """Look at everything; raise ValueError where shards and tokenizer do not belong together."""
    codes, info = read_codes(options.codes), read_info(options.codes)
    if options.tokenizer is None:
        raise ValueError("name the tokenizer of the codes with --tokenizer: they are decoded, to be heard")
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer, "decoder")
    require_tokenizer(info, tokenizer)
    torch.manual_seed(options.seed)
    model, text = starting_model(options, codes, info)
    batches = Batches(
        codes, model.config, text, options.batches, options.dropout, seed=options.seed, steps=options.steps
    )
    chosen = short_ones(codes, options.utterances)
    written = [torch.as_tensor(codes[index]["codes"]).long() for index in chosen]
    folder = options.run / "preflight"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, "shard", written, tokenizer)
    for i, index in enumerate(chosen):
        logger.info("%d_shard.wav: %r", i, codes[index]["text"])

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cost = measure(
        adapted(copy.deepcopy(model), options).to(device), batches, options, options.measured_steps
    )
    model.to(device)
    batch = batches.collate([(index,) for index in chosen]).to(device)
    texts = [codes[index]["text"] for index in chosen]
    loss, steps, spoken = overfit(model, text, batch, texts, written, options)
    _write(folder, "model", spoken, tokenizer)
    recalled = [agreement(*pair) for pair in zip(written, spoken, strict=True)]
    report = Report(recalled=recalled, overfit_steps=steps, overfit_loss=loss, cost=cost)
    write_config(folder / "report.json", report)
    return report


def overfit(
    model: CatTTS,
    text: TextTokenizer,
    batch: Batch,
    texts: Sequence[str],
    codes: Sequence[Int[Tensor, "_ k"]],
    options: Preflight,
) -> tuple[float, int, list[Int[Tensor, "_ k"]]]:
    """Learn one batch until its utterances come back from their texts alone: loss, steps, what comes back."""
    optimizer = torch.optim.AdamW(model.parameters(), options.optimizer.learning_rate, betas=BETAS)
    loss, spoken, steps = math.inf, [], options.overfit_steps
    for step in range(steps):
        for group in optimizer.param_groups:
            factor = trapezoid(step, steps=steps, warmup=10, decay=0.5)
            group["lr"] = options.optimizer.learning_rate * factor
        parts = model(batch.rows, None, batch.targets, batch.depth, batch.positions)
        (parts.codes + parts.decision).backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss = parts.codes.item()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            spoken = [_spoken(model.eval(), text, *pair) for pair in zip(texts, codes, strict=True)]
            model.train()
            heard = [agreement(*pair) for pair in zip(codes, spoken, strict=True)]
            logger.info("step %d: loss %.3f, %.0f %% come back", step + 1, loss, 100 * min(heard))
            if min(heard) >= ENOUGH:
                return loss, step + 1, spoken
    return loss, steps, spoken


def agreement(codes: Int[Tensor, "t k"], spoken: Int[Tensor, "n k"]) -> float:
    """Part of the codes that are the same at their place; what is missing or too much counts against it."""
    both, longest = min(len(codes), len(spoken)), max(len(codes), len(spoken))
    return float((codes[:both] == spoken[:both]).sum()) / (longest * codes.shape[1])


def short_ones(codes: Codes, count: int) -> list[int]:
    """The utterances that last closest to two seconds, no text twice."""
    found: dict[str, int] = {}
    far = np.abs(np.array(codes["frames"][:]) - SHORT)
    for index in np.argsort(far, kind="stable").tolist():
        found.setdefault(codes[index]["text"], index)
        if len(found) == count:
            break
    return list(found.values())


def _spoken(model: CatTTS, text: TextTokenizer, said: str, codes: Int[Tensor, "t k"]) -> Int[Tensor, "n k"]:
    return speak(
        model,
        text,
        said,
        codes[:0],
        pace=speaking_pace(model.config, text.encode(said), len(codes)),
        depth=codes.shape[1],
        seed=0,
        max_frames=len(codes) + 10,
        options=GREEDY,
    )


def _write(folder: Path, name: str, codes: Sequence[Int[Tensor, "_ k"]], tokenizer: AudioTokenizer) -> None:
    for i, one in enumerate(codes):
        if len(one):
            audio = tokenizer.decode(one[None])[0].clamp(-1, 1)
            save_audio(folder / f"{i}_{name}.wav", audio, tokenizer.config.sample_rate)


def main(argv: list[str] | None = None) -> int:
    """Entry point: 0 where the run can begin, 1 where it would be in vain, 2 for a mistake of the user."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    presets = {name: (preset.__doc__ or "", Preflight(**vars(preset()))) for name, preset in PRESETS.items()}
    try:
        options = tyro.extras.overridable_config_cli(presets, args=argv, description=__doc__)
        report = preflight(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(report, options))
    return 0 if report.passed else 1


def describe(report: Report, options: Preflight) -> str:
    """The report in words."""
    cost, folder = report.cost, options.run / "preflight"
    verdict = (
        "The model speaks what it learnt" if report.passed else "FAILED: what was learnt does not come back"
    )
    parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in cost.parts.items())
    peak = "" if cost.peak is None else f"; at its peak {cost.peak / 2**30:.2f} were allocated"
    return (
        f"{verdict}: {', '.join(f'{100 * part:.1f} %' for part in report.recalled)} of the codes after "
        f"{report.overfit_steps} steps (loss {report.overfit_loss:.3f}); compare the files in {folder}.\n"
        f"Parameters: {cost.parameters / 1e6:.1f}M, {cost.trained / 1e6:.1f}M of them trained.\n"
        f"Memory of one process, GiB: {cost.memory / 2**30:.2f} ({parts}){peak}.\n"
        f"Speed of one process: {cost.rows_per_second:.0f} rows/s, {cost.seconds_per_step:.2f} s a step, "
        f"{cost.seconds_per_step * options.steps / 3600:.1f} h for {options.steps} steps."
    )


if __name__ == "__main__":
    sys.exit(main())
