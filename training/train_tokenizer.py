"""Train a CAT tokenizer: `python -m training.train_tokenizer mini --data MANIFEST --run runs/codec`.

Paper 3.2: encoder, quantizer, decoder and semantic head are trained together; stage 2 adds discriminators.
The same command continues the run that it finds in RUN, exactly where it was; the audio of a step depends
on (seed, step) alone. Several processes share a step's batch:

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
from tokenizer.discriminators import generator_loss, split_real_fake
from training.audio_tokenizer.joint_model import discriminator_outputs
from training.audio_tokenizer.losses import discriminator_loss, feature_loss, weighted_sum
from training.audio_tokenizer.monitor import gradient_norms, validate
from training.audio_tokenizer.recipes import PRESETS, TokenizerTraining
from training.audio_tokenizer.setup import TokenizerSetup, build
from training.common.distributed import optimizer_step, total_over_processes
from training.common.renamed_options import TOKENIZER_OPTIONS
from training.common.run import StopRequest, run_preset, save_state, wsd_schedule

logger = logging.getLogger(__name__)


def train(options: TokenizerTraining) -> AudioTokenizer:
    """Run or resume the training; return the averaged model."""
    setup = build(options)
    accelerator, monitor = setup.accelerator, setup.monitor
    weights, rates = options.weights, options.optimizer
    start = options.steps if options.adversarial_from is None else options.adversarial_from
    done = setup.first
    progress = tqdm(total=options.steps, initial=setup.first, disable=not accelerator.is_main_process)
    with StopRequest() as stop, progress:
        for step, batch in enumerate(setup.loader, setup.first):
            batch, done = batch.to(accelerator.device), step + 1
            adversarial = step >= start
            frozen = options.trainable in ("decoder", "heads")
            frozen |= options.trainable == "partial" and adversarial
            factor = wsd_schedule(step, steps=options.steps, warmup=rates.warmup, decay=rates.decay)
            values: dict[str, float | Tensor] = {}

            output = setup.joint(
                batch.audio, batch.frames, batch.depth, batch.tasks, batch.texts, frozen, batch.decoder_inputs
            )
            losses = {"commitment": output.commitment, "codebook": output.codebook}
            if output.audio is not None:
                losses["mel"] = setup.mel(output.audio, batch.audio)
            if output.spectral is not None:
                losses["spectral"] = output.spectral
            if output.pitch is not None:
                losses["pitch"] = output.pitch
            tokens = total_over_processes(accelerator, batch.tokens)
            for name, summed in (("semantic", output.semantic), ("ctc", output.ctc)):
                if summed is not None:  # a mean over the tokens of all processes, however they are spread
                    losses[name] = summed * accelerator.num_processes / max(1, tokens)
            if adversarial and output.audio is not None:
                both = setup.discriminators(torch.cat([batch.audio, output.audio.detach()]))
                loss = discriminator_loss(*split_real_fake(both))
                rise = min(1.0, (done - start) / max(1, rates.warmup))
                rate = rates.discriminator_learning_rate * min(factor, rise)
                norm = _update(setup, [setup.discriminator_optimizer], loss, rate, rates.clip)
                values |= {"train/loss/discriminator": loss, "train/discriminator_grad_norm": norm}
                values["train/discriminator_lr"] = rate
                unwrapped = setup.unwrapped_discriminators
                real, fake = discriminator_outputs(unwrapped, batch.audio, output.audio)
                losses |= {"adversarial": generator_loss(fake), "feature": feature_loss(real, fake)}
            if done % options.monitor.gradients_every == 0 and not frozen:
                values |= gradient_norms(losses, weights, setup.unwrapped.latents)
            total, rate = weighted_sum(losses, weights), rates.learning_rate * factor
            values["train/lr"] = rate
            values["train/grad_norm"] = _update(setup, setup.optimizers, total, rate, rates.clip)
            if setup.dead_code_reset is not None and factor == 1 and not frozen:
                setup.dead_code_reset.update(done, output.codes, output.projected)
            setup.average.update()

            values |= {f"train/loss/{name}": loss for name, loss in losses.items()}
            logged = {
                name: torch.as_tensor(value).item()
                for name, value in values.items()
                if tokens or ("semantic" not in name and "ctc" not in name)
            }
            if not math.isfinite(float(total.detach())):
                raise FloatingPointError(f"step {step}: the loss is {total.item()}; lower the learning rate")
            monitor.add(logged, batch, output.codes)
            progress.update()
            shown = next(name for name in ("mel", "spectral", "semantic", "ctc") if name in losses)
            progress.set_postfix({shown: f"{logged.get(f'train/loss/{shown}', math.nan):.3f}"}, refresh=False)
            if done % options.monitor.every == 0:
                monitor.log(accelerator, done)
            stopping = total_over_processes(accelerator, int(stop.requested)) > 0
            scheduled = done % options.save_every == 0 or done == options.steps
            sampling = done % options.monitor.samples_every == 0 and output.audio is not None
            result = setup.average.module() if sampling or scheduled or stopping else None
            if result is not None and accelerator.is_main_process:
                if sampling:
                    monitor.sample(done, result.tokenizer, setup.samples, setup.mel)
                if scheduled or stopping:
                    setup.save_model(result)
                    if done > start:
                        folder = options.run / "model" / "discriminators"
                        setup.unwrapped_discriminators.save_pretrained(folder)
                if setup.validation and scheduled:
                    monitor.write(done, validate(result, setup.mel, setup.validation))
            if scheduled or stopping:
                save_state(accelerator, options.run, done)
            if stopping:
                break
    if stop and accelerator.is_main_process:
        logger.warning("stop requested: saved at step %d", done)
    return setup.average.module().tokenizer.eval()


def _update(
    setup: TokenizerSetup, optimizers: list[Optimizer], loss: Tensor, rate: float, clip: float
) -> Tensor:
    """Make one step down the gradient of `loss`, clipped to `clip`; return its norm before clipping."""
    setup.accelerator.backward(loss)
    return optimizer_step(optimizers, rate, clip)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_preset(train, PRESETS, argv, __doc__ or "", TOKENIZER_OPTIONS)


if __name__ == "__main__":
    main()
