"""Check a long run beforehand.

    python -m training.preflight mini --codes FOLDER --run runs/tts --tokenizer FOLDER

It takes the options of `training.train_tts`, writes into RUN/preflight, and ends with exit code 1 where the
run would be in vain. Some utterances of the shards are decoded, to be listened to. The model is overfitted to
them, at full depth and with the run's learning rate: if it then does not reproduce them from their text
alone, no length of training helps. Last, the speed and memory of steps of the run itself are measured.
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
from cat_tts.sequences.rows import speaking_rate
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer import AudioTokenizer, save_audio
from tokenizer.io.checkpoint import write_config
from training.common.optimizers import BETAS
from training.common.renamed_options import TTS_OPTIONS, rename_options
from training.common.run import wsd_schedule
from training.data.code_shards import Codes, read_codes, read_info, require_tokenizer
from training.tts.batches import TTSBatch, TTSBatches
from training.tts.cost import Cost, measure
from training.tts.recipes import PRESETS, TTSTraining
from training.tts.samples import speak
from training.tts.setup import adapted, starting_model
from training.tts.voice_vectors import condition_on_voice, load_speaker_encoder

logger = logging.getLogger(__name__)

MIN_RECALL, RECALL_INTERVAL, SHORT_FRAMES = 0.95, 50, 25
"""Part of the codes that must be reproduced; steps between two checks; frames of a short utterance."""
GREEDY = SamplingOptions(temperature=0.0, decision_temperature=0.0)


@dataclass(frozen=True, kw_only=True)
class Preflight(TTSTraining):
    """The planned run, and how much of it to check."""

    utterances: int = 2
    """Number of short utterances that are decoded and overfitted."""
    overfit_steps: int = 600
    """Most steps of overfitting, which ends when the utterances are reproduced."""
    measured_steps: int = 3
    """Steps of which speed and memory are measured."""


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """Results of a preflight."""

    recalled: list[float]
    """Part of each utterance's codes that was reproduced."""
    overfit_steps: int
    overfit_loss: float
    """Loss at the end, in nats a code."""
    cost: Cost

    @property
    def passed(self) -> bool:
        """Whether all utterances were reproduced."""
        return min(self.recalled) >= MIN_RECALL


def preflight(options: Preflight) -> PreflightReport:
    """Decode, overfit and measure; write RUN/preflight, and return what is in its report.json.

    Raises:
        ValueError: the shards are not of this tokenizer, or none is given.
    """
    codes, info = read_codes(options.codes), read_info(options.codes)
    if options.tokenizer is None:
        raise ValueError("name the tokenizer of the codes with --tokenizer, to decode some of them")
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer, "decoder")
    require_tokenizer(info, tokenizer)
    torch.manual_seed(options.seed)
    model, text_tokenizer = starting_model(options, codes, info)
    speaker_encoder = load_speaker_encoder(options.speaker_encoder, info.codebook_size)
    condition_on_voice(model, speaker_encoder, adapters_only=options.lora.rank > 0)
    batches = TTSBatches(
        codes,
        model.config,
        text_tokenizer,
        options.batches,
        options.dropout,
        seed=options.seed,
        steps=options.steps,
    )
    chosen = short_utterances(codes, options.utterances)
    written = [torch.as_tensor(codes[index]["codes"]).long() for index in chosen]
    folder = options.run / "preflight"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, "shard", written, tokenizer)
    for i, index in enumerate(chosen):
        logger.info("%d_shard.wav: %r", i, codes[index]["text"])

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured = adapted(copy.deepcopy(model), options).to(device)
    encoder = None if speaker_encoder is None else speaker_encoder.to(device)
    cost = measure(measured, batches, options, options.measured_steps, encoder)
    model.to(device)
    batch = batches.collate([(index,) for index in chosen]).to(device)
    texts = [codes[index]["text"] for index in chosen]
    loss, steps, spoken = overfit(model, text_tokenizer, batch, texts, written, options)
    _write(folder, "model", spoken, tokenizer)
    recalled = [agreement(*pair) for pair in zip(written, spoken, strict=True)]
    report = PreflightReport(recalled=recalled, overfit_steps=steps, overfit_loss=loss, cost=cost)
    write_config(folder / "report.json", report)
    return report


def overfit(
    model: CatTTS,
    text_tokenizer: TextTokenizer,
    batch: TTSBatch,
    texts: Sequence[str],
    codes: Sequence[Int[Tensor, "_ k"]],
    options: Preflight,
) -> tuple[float, int, list[Int[Tensor, "_ k"]]]:
    """Overfit a model to one batch until its utterances are reproduced from their texts alone.

    Args:
        model: the model; it is changed.
        text_tokenizer: the model's text tokenizer.
        batch: the utterances as a batch.
        texts: their texts.
        codes: their codes, [t, k] each.
        options: learning rate, clipping and the number of steps.

    Returns:
        The loss in nats a code, the number of steps, and the codes that the model generates, [n, k] each.
    """
    optimizer = torch.optim.AdamW(model.parameters(), options.optimizer.learning_rate, betas=BETAS)
    loss, spoken, steps = math.inf, [], options.overfit_steps
    for step in range(steps):
        for group in optimizer.param_groups:
            factor = wsd_schedule(step, steps=steps, warmup=10, decay=0.5)
            group["lr"] = options.optimizer.learning_rate * factor
        parts = model(batch.rows, None, batch.targets, batch.depth, batch.positions)
        (parts.codes + parts.decision).backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad()
        loss = parts.codes.item()
        if (step + 1) % RECALL_INTERVAL == 0 or step + 1 == steps:
            spoken = [_speak(model.eval(), text_tokenizer, *pair) for pair in zip(texts, codes, strict=True)]
            model.train()
            recall = min(agreement(*pair) for pair in zip(codes, spoken, strict=True))
            logger.info("step %d: loss %.3f, %.0f %% reproduced", step + 1, loss, 100 * recall)
            if recall >= MIN_RECALL:
                return loss, step + 1, spoken
    return loss, steps, spoken


def agreement(codes: Int[Tensor, "t k"], spoken: Int[Tensor, "n k"]) -> float:
    """Return the part of codes that are equal at the same index; missing and extra frames count as different.

    Args:
        codes: the reference [t, k].
        spoken: the generated codes [n, k].
    """
    both, longest = min(len(codes), len(spoken)), max(len(codes), len(spoken))
    return float((codes[:both] == spoken[:both]).sum()) / (longest * codes.shape[1])


def short_utterances(codes: Codes, count: int) -> list[int]:
    """Return the indices of the utterances that are closest to two seconds long, no text twice."""
    indices: dict[str, int] = {}
    difference = np.abs(np.array(codes["frames"][:]) - SHORT_FRAMES)
    for index in np.argsort(difference, kind="stable").tolist():
        indices.setdefault(codes[index]["text"], index)
        if len(indices) == count:
            break
    return list(indices.values())


def _speak(
    model: CatTTS, text_tokenizer: TextTokenizer, text: str, codes: Int[Tensor, "t k"]
) -> Int[Tensor, "n k"]:
    return speak(
        model,
        text_tokenizer,
        text,
        codes[:0],
        rate=speaking_rate(model.config, text_tokenizer.encode(text), len(codes)),
        depth=codes.shape[1],
        seed=0,
        max_frames=len(codes) + 10,
        options=GREEDY,
    )


def _write(folder: Path, name: str, codes: Sequence[Int[Tensor, "_ k"]], tokenizer: AudioTokenizer) -> None:
    for i, utterance in enumerate(codes):
        if len(utterance):
            audio = tokenizer.decode(utterance[None])[0].clamp(-1, 1)
            save_audio(folder / f"{i}_{name}.wav", audio, tokenizer.config.sample_rate)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; exit code 1 if the run would be in vain, 2 after a user error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    presets = {name: (preset.__doc__ or "", Preflight(**vars(preset()))) for name, preset in PRESETS.items()}
    try:
        arguments = rename_options(sys.argv[1:] if argv is None else argv, TTS_OPTIONS)
        options = tyro.extras.overridable_config_cli(presets, args=arguments, description=__doc__)
        report = preflight(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(report, options))
    return 0 if report.passed else 1


def describe(report: PreflightReport, options: Preflight) -> str:
    """Return the report in sentences."""
    cost, folder = report.cost, options.run / "preflight"
    verdict = (
        "The model reproduces the utterances" if report.passed else "FAILED: utterances are not reproduced"
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
