"""Train CAT-TTS on encoded speech: `python -m training.tts RUN --codes FOLDER`.

Progressive Sequence Dropout draws each sample's depth; the loss is paper eq. 9 plus the decision between
going on and stopping. A run that finds its own state in RUN continues it; the batch and the depths of a
step depend on (seed, step) alone.
"""

import logging
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from cat_tts import CatTTS, TTSConfig
from cat_tts import config as presets
from cat_tts.dropout import sample_depths
from cat_tts.text import SENTENCEPIECE_FILE, SentencePieceText, train_sentencepiece
from training.codes import Codes, read_codes, read_info
from training.examples import Batch, Batches
from training.run import StopRequest, key, log_metrics, resume_state, save_state, trapezoid

logger = logging.getLogger(__name__)

PRESETS = {"small": presets.small, "mini": presets.mini, "tiny": presets.tiny}


@dataclass(frozen=True, kw_only=True)
class TTSTraining:
    """One run. Defaults are the mini recipe; the paper's are lr 2e-4 and 1.35M tokens a batch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run: state, metrics, and the model as RUN/model."""
    codes: Path
    """Folder of shards, see training.prepare."""
    preset: str = "mini"
    """Shape of the model: small, mini or tiny."""
    steps: int = 5000
    rows_per_batch: int = 1024
    """Text tokens and frames of a batch, padding included."""
    max_frames: int = 250
    pair: float = 0.5
    """Part of the sequences that are two utterances of one speaker."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 200
    decay: float = 0.25
    """Part of the run over which the learning rate falls to nothing."""
    clip: float = 1.0
    ema: float = 0.998
    dropout: float = 1.0
    """p of Progressive Sequence Dropout."""
    max_depth: int | None = None
    """Train the first codebooks only; a run resumed without it goes on with all (a curriculum)."""
    reach_last: bool = True
    """Draw depths from 1..K; --no-reach-last is the paper's 1..K-1, which at p = 1 never trains K."""
    validation: int = 64
    """Utterances kept out of the training, for the validation loss."""
    save_every: int = 500
    seed: int = 0


def train(options: TTSTraining) -> CatTTS:
    """Run or resume the training; return the averaged model."""
    accelerator = Accelerator()
    set_seed(options.seed)
    if options.preset not in PRESETS:
        raise ValueError(f"preset {options.preset!r}: choose one of {', '.join(PRESETS)}")
    codes, info, shape = read_codes(options.codes), read_info(options.codes), PRESETS[options.preset]()
    deepest = info.num_codebooks if options.max_depth is None else options.max_depth
    if not 1 <= deepest <= info.num_codebooks:
        raise ValueError(f"max_depth={deepest} but the codes have {info.num_codebooks} codebooks")
    if not 0 < options.validation < len(codes):
        raise ValueError(
            f"validation={options.validation} of {len(codes)} utterances: keep some, train on some"
        )
    options.run.mkdir(parents=True, exist_ok=True)
    text = _text_tokenizer(options.run, codes, shape.text_vocab_size)
    config = replace(
        shape,
        num_codebooks=info.num_codebooks,
        codebook_size=info.codebook_size,
        text_vocab_size=text.vocab_size,
    )
    training, validation = _batches(options, config, text, codes, accelerator.num_processes)
    model = CatTTS(config)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema)).to(accelerator.device)
    result = cast(CatTTS, averaged.module)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, options.learning_rate, betas=(0.9, 0.95))
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(averaged)
    first = resume_state(accelerator, options.run)
    mine = range(
        first * accelerator.num_processes + accelerator.process_index,
        options.steps * accelerator.num_processes,
        accelerator.num_processes,
    )
    loader = DataLoader(Subset(training, mine), batch_size=None)

    progress = tqdm(total=options.steps, initial=first, disable=not accelerator.is_main_process)
    with StopRequest() as stop, progress:
        for step, batch in enumerate(loader, first):
            batch = batch.to(accelerator.device)
            draw = torch.Generator().manual_seed(key(options.seed, step, accelerator.process_index))
            depth = sample_depths(
                len(batch.rows), deepest, options.dropout, draw, reach_last=options.reach_last
            )
            loss = model(batch.rows, None, batch.targets, depth.to(accelerator.device), batch.positions)
            total = loss.codes + loss.decision
            if not total.isfinite():
                raise FloatingPointError(f"step {step}: the loss is {total.item()}; lower the learning rate")
            factor = trapezoid(step, steps=options.steps, warmup=options.warmup, decay=options.decay)
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * factor
            accelerator.backward(total)
            norm = accelerator.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            optimizer.zero_grad()
            averaged.update_parameters(accelerator.unwrap_model(model))

            progress.update()
            progress.set_postfix(codes=f"{loss.codes.item():.3f}", decision=f"{loss.decision.item():.3f}")
            done = step + 1
            if done % 25 == 0 and accelerator.is_main_process:
                losses = {"train/loss/codes": loss.codes.item(), "train/loss/decision": loss.decision.item()}
                means = enumerate(loss.layers.tolist())
                layers = {f"train/layer/{k}": mean for k, mean in means if not math.isnan(mean)}
                log_metrics(
                    options.run, {"step": done, **losses, **layers, "train/grad_norm": float(norm or 0.0)}
                )
            if done % options.save_every == 0 or done == options.steps or stop:
                if accelerator.is_main_process:
                    result.save_pretrained(options.run / "model", text)
                    log_metrics(options.run, {"step": done, **validate(result, validation)})
                save_state(accelerator, options.run, done)
            if stop:
                logger.warning("asked to stop: saved at step %d", done)
                break
    return result.eval()


@torch.no_grad()
def validate(model: CatTTS, batches: list[Batch]) -> dict[str, float]:
    """Mean losses at full depth over kept-out utterances, overall and by codebook."""
    device, losses = next(model.parameters()).device, []
    for batch in (one.to(device) for one in batches):
        depth = torch.full((len(batch.rows),), model.config.num_codebooks, device=device)
        loss = model(batch.rows, None, batch.targets, depth, batch.positions)
        losses.append(torch.stack([loss.codes, loss.decision, *loss.layers]))
    codes, decision, *layers = torch.stack(losses).mean(0).tolist()
    named = {f"validation/layer/{k}": value for k, value in enumerate(layers)}
    return {"validation/loss/codes": codes, "validation/loss/decision": decision, **named}


def _text_tokenizer(run: Path, codes: Codes | Dataset, vocab_size: int) -> SentencePieceText:
    """The run's own SentencePiece model, trained on all texts of the corpus by the first call."""
    path = run / SENTENCEPIECE_FILE
    if not path.exists():
        temporary = run / f"{SENTENCEPIECE_FILE}.tmp"
        train_sentencepiece(codes["text"][:], temporary, vocab_size)
        os.replace(temporary, path)
    return SentencePieceText(path)


def _batches(
    options: TTSTraining, config: TTSConfig, text: SentencePieceText, codes: Codes | Dataset, processes: int
) -> tuple[Batches, list[Batch]]:
    """The training's batches, and those of `options.validation` utterances kept out of it."""
    order = np.random.default_rng(options.seed).permutation(len(codes))
    kept_out, used = np.sort(order[: options.validation]), np.sort(order[options.validation :])

    def batches(indices: np.ndarray, items: int, pair: float) -> Batches:
        return Batches(
            codes.select(indices),
            config,
            text,
            rows_per_batch=options.rows_per_batch,
            max_frames=options.max_frames,
            pair=pair,
            seed=options.seed,
            items=items,
        )

    training = batches(used, options.steps * processes, options.pair)
    validation = batches(kept_out, options.validation, 0.0)
    return training, [validation.collate([(i,)]) for i in validation.usable.tolist()]


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    train(tyro.cli(TTSTraining, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
