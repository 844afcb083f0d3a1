"""Train a CAT tokenizer: `python -m training.train_tokenizer mini --data MANIFEST --run runs/codec`.

Paper 3.2: encoder, quantizer, decoder and semantic head are trained together; stage 2 adds discriminators.
The same command continues the run that it finds in RUN, exactly where it was; what a step hears depends on
(seed, step) alone. Several processes share a step's batch:

    accelerate launch --config_file training/accelerate/ddp.yaml -m training.train_tokenizer ...

or, for models that need it, split its weights too: fsdp2.yaml.
"""

import logging
import math

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from tokenizer import AudioTokenizer
from tokenizer.discriminators import generator_loss, halves
from training.audio_tokenizer.joint_model import judged
from training.audio_tokenizer.losses import discriminator_loss, feature_loss, weighted_sum
from training.audio_tokenizer.monitor import gradient_norms, validate
from training.audio_tokenizer.recipes import PRESETS, TokenizerTraining
from training.audio_tokenizer.setup import Parts, build
from training.common.distributed import descend, total_over_processes
from training.common.run import StopRequest, run_preset, save_state, trapezoid

logger = logging.getLogger(__name__)


def train(options: TokenizerTraining) -> AudioTokenizer:
    """Run or resume the training; return the averaged model."""
    parts = build(options)
    accelerator, monitor = parts.accelerator, parts.monitor
    weights, rates = options.weights, options.optimizer
    start = options.steps if options.adversarial_from is None else options.adversarial_from
    done = parts.first
    progress = tqdm(total=options.steps, initial=parts.first, disable=not accelerator.is_main_process)
    with StopRequest() as stop, progress:
        for step, batch in enumerate(parts.loader, parts.first):
            batch, done = batch.to(accelerator.device), step + 1
            adversarial = step >= start
            frozen = options.trainable in ("decoder", "heads")
            frozen |= options.trainable == "partial" and adversarial
            factor = trapezoid(step, steps=options.steps, warmup=rates.warmup, decay=rates.decay)
            values: dict[str, float | Tensor] = {}

            rebuilt = parts.joint(
                batch.audio, batch.frames, batch.depth, batch.tasks, batch.texts, frozen, batch.given
            )
            losses = {"commitment": rebuilt.commitment, "codebook": rebuilt.codebook}
            if rebuilt.audio is not None:
                losses["mel"] = parts.mel(rebuilt.audio, batch.audio)
            if rebuilt.spectral is not None:
                losses["spectral"] = rebuilt.spectral
            if rebuilt.pitch is not None:
                losses["pitch"] = rebuilt.pitch
            tokens = total_over_processes(accelerator, batch.tokens)
            for name, read in (("semantic", rebuilt.semantic), ("ctc", rebuilt.ctc)):
                if read is not None:  # a mean over the tokens of all processes, whoever has how many
                    losses[name] = read * accelerator.num_processes / max(1, tokens)
            if adversarial and rebuilt.audio is not None:
                verdicts = parts.discriminators(torch.cat([batch.audio, rebuilt.audio.detach()]))
                loss = discriminator_loss(*halves(verdicts))
                rise = min(1.0, (done - start) / max(1, rates.warmup))
                rate = rates.discriminator_learning_rate * min(factor, rise)
                norm = _update(parts, [parts.discriminator_optimizer], loss, rate, rates.clip)
                values |= {"train/loss/discriminator": loss, "train/discriminator_grad_norm": norm}
                values["train/discriminator_lr"] = rate
                real, fake = judged(parts.judge, batch.audio, rebuilt.audio)
                losses |= {"adversarial": generator_loss(fake), "feature": feature_loss(real, fake)}
            if done % options.monitor.gradients_every == 0 and not frozen:
                values |= gradient_norms(losses, weights, parts.bare.latents)
            total, rate = weighted_sum(losses, weights), rates.learning_rate * factor
            values["train/lr"] = rate
            values["train/grad_norm"] = _update(parts, parts.optimizers, total, rate, rates.clip)
            if parts.revival is not None and factor == 1 and not frozen:
                parts.revival.update(done, rebuilt.codes, rebuilt.low)
            parts.average.update()

            values |= {f"train/loss/{name}": loss for name, loss in losses.items()}
            logged = {
                name: torch.as_tensor(value).item()
                for name, value in values.items()
                if tokens or ("semantic" not in name and "ctc" not in name)
            }
            if not math.isfinite(float(total.detach())):
                raise FloatingPointError(f"step {step}: the loss is {total.item()}; lower the learning rate")
            monitor.add(logged, batch, rebuilt.codes)
            progress.update()
            heard = next(name for name in ("mel", "spectral", "semantic", "ctc") if name in losses)
            progress.set_postfix({heard: f"{logged.get(f'train/loss/{heard}', math.nan):.3f}"}, refresh=False)
            if done % options.monitor.every == 0:
                monitor.log(accelerator, done)
            stopping = total_over_processes(accelerator, int(stop.asked)) > 0
            scheduled = done % options.save_every == 0 or done == options.steps
            sampling = done % options.monitor.samples_every == 0 and rebuilt.audio is not None
            result = parts.average.module() if sampling or scheduled or stopping else None
            if result is not None and accelerator.is_main_process:
                if sampling:
                    monitor.sample(done, result.tokenizer, parts.samples, parts.mel)
                if scheduled or stopping:
                    parts.save_model(result)
                    if done > start:
                        parts.judge.save_pretrained(options.run / "model" / "judge")
                if parts.validation and scheduled:
                    monitor.write(done, validate(result, parts.mel, parts.validation))
            if scheduled or stopping:
                save_state(accelerator, options.run, done)
            if stopping:
                break
    if stop and accelerator.is_main_process:
        logger.warning("asked to stop: saved at step %d", done)
    return parts.average.module().tokenizer.eval()


def _update(parts: Parts, optimizers: list[Optimizer], loss: Tensor, rate: float, clip: float) -> Tensor:
    """One step down the gradient of `loss`, which is no longer than `clip`; its norm before that."""
    parts.accelerator.backward(loss)
    return descend(optimizers, rate, clip)


def main(argv: list[str] | None = None) -> None:
    run_preset(train, PRESETS, argv, __doc__ or "")


if __name__ == "__main__":
    main()
