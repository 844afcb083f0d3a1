"""Train a CAT tokenizer to reconstruct audio: `python -m training.tokenizer RUN --manifest FILE`.

The reconstruction stage of paper 3.2: multi-scale mel loss, codebook and commitment losses, quantizer
dropout on every sample, encoder, quantizer and decoder trained together. A run that finds its own state
in RUN continues it; the crops and depths of a step depend on (seed, step) alone.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer import config as presets
from training.crops import RandomCrops
from training.losses import WINDOWS, MultiScaleMelLoss
from training.manifest import read_manifest
from training.run import StopRequest, log_metrics, resume_state, save_state, trapezoid

logger = logging.getLogger(__name__)

PRESETS = {"paper": presets.paper, "mini": presets.mini, "tiny": presets.tiny}
LOSS_WEIGHTS = {"mel": 15.0, "commitment": 0.25, "codebook": 1.0}
"""Paper A.1; the keys are the logged ones."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """One run. Defaults are the mini recipe; the paper's are lr 1e-4, weight decay 0.01, 520k steps."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run: state, metrics, and the model as RUN/model."""
    manifest: Path
    """JSONL of clips, see training.manifest."""
    preset: str = "mini"
    """Shape of the model: paper, mini or tiny."""
    init: Path | None = None
    """Folder of a model to start from, in place of random weights in the shape of `preset`."""
    decoder_only: bool = False
    """Keep encoder and quantizer, and so what codes mean: the partial training of Figure 4."""
    steps: int = 6000
    batch_size: int = 16
    crop_seconds: float = 0.64
    """Length of a crop; rounded up to whole frames."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 150
    decay: float = 0.25
    """Part of the run over which the learning rate falls to nothing."""
    clip: float = 1.0
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones that RUN/model holds."""
    mel_windows: tuple[int, ...] = WINDOWS
    """Scales of the mel loss; the shortest cost most."""
    save_every: int = 500
    workers: int = 0
    """Processes that read crops."""
    seed: int = 0


def train(options: TokenizerTraining) -> AudioTokenizer:
    """Run or resume the training; return the averaged model."""
    accelerator = Accelerator()
    set_seed(options.seed)
    model = AudioTokenizer.from_pretrained(options.init) if options.init else AudioTokenizer(_config(options))
    config = model.config
    options.run.mkdir(parents=True, exist_ok=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("decoder.") or not options.decoder_only)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema))
    result = cast(AudioTokenizer, averaged.module)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        options.learning_rate,
        betas=(0.8, 0.99),
        weight_decay=options.weight_decay,
    )
    mel_loss = MultiScaleMelLoss(config.sample_rate, options.mel_windows).to(accelerator.device)
    averaged.to(accelerator.device)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(averaged)
    first = resume_state(accelerator, options.run)
    loader = _crops(options, config, first, accelerator)

    progress = tqdm(total=options.steps, initial=first, disable=not accelerator.is_main_process)
    with StopRequest() as stop, progress:
        for step, audio in enumerate(loader, first):
            draw = torch.Generator().manual_seed(hash((options.seed, step, accelerator.process_index)))
            depth = torch.randint(1, config.num_codebooks + 1, (len(audio),), generator=draw)
            rebuilt = model(audio, depth.to(audio.device))
            losses = {
                "mel": mel_loss(rebuilt.audio, audio),
                "commitment": rebuilt.commitment_loss,
                "codebook": rebuilt.codebook_loss,
            }
            total = torch.stack([LOSS_WEIGHTS[name] * loss for name, loss in losses.items()]).sum()
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
            progress.set_postfix(mel=f"{losses['mel'].item():.3f}")
            done = step + 1
            if done % 25 == 0 and accelerator.is_main_process:
                logged = {f"train/loss/{name}": loss.item() for name, loss in losses.items()}
                log_metrics(options.run, {"step": done, **logged, "train/grad_norm": float(norm or 0.0)})
            if done % options.save_every == 0 or done == options.steps or stop:
                if accelerator.is_main_process:
                    result.save_pretrained(options.run / "model")
                save_state(accelerator, options.run, done)
            if stop:
                logger.warning("asked to stop: saved at step %d", done)
                break
    return result.eval()


def _config(options: TokenizerTraining) -> TokenizerConfig:
    if options.preset not in PRESETS:
        raise ValueError(f"preset {options.preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[options.preset]()


def _crops(
    options: TokenizerTraining, config: TokenizerConfig, first: int, accelerator: Accelerator
) -> DataLoader:
    frames = -(-round(options.crop_seconds * config.sample_rate) // config.frame_size)
    items = options.steps * options.batch_size * accelerator.num_processes
    clips = read_manifest(options.manifest)
    crops = RandomCrops(clips, frames * config.frame_size, config.sample_rate, options.seed, items)
    rest = Subset(crops, range(first * options.batch_size * accelerator.num_processes, items))
    return accelerator.prepare(DataLoader(rest, options.batch_size, num_workers=options.workers))


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    train(tyro.cli(TokenizerTraining, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
