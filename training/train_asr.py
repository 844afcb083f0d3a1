"""Train CAT-ASR on encoded speech: `python -m training.train_asr mini --codes FOLDER --run runs/asr`.

The shards are those of the TTS training (training.prepare). Samples are read at random depths, so that one
model transcribes codes of any depth. The same command continues the run that it finds in RUN, exactly where
it was; the batch, the depths and the noise of a step depend on (seed, step) alone. Several processes each
read a batch of their own:

    accelerate launch --config_file training/accelerate/ddp.yaml -m training.train_asr ...
"""

import logging
import sys
from collections.abc import Iterable, Sequence
from typing import cast

from tqdm import tqdm

from cat_tts.asr.model import CatASR
from training.asr.batches import ASRBatch
from training.asr.monitor import validate
from training.asr.recipe import PRESETS, ASRTraining
from training.asr.setup import build
from training.common.distributed import optimizer_step, total_over_processes
from training.common.renamed_options import ASR_OPTIONS
from training.common.run import StopRequest, run_preset, save_state, wsd_schedule

logger = logging.getLogger(__name__)


def train(options: ASRTraining) -> CatASR:
    """Run or resume the training; return the averaged model."""
    setup = build(options)
    accelerator, monitor, rates, done = setup.accelerator, setup.monitor, options.optimizer, setup.first
    result = cast(CatASR, setup.average.module)
    progress = tqdm(total=options.steps, initial=setup.first, disable=not accelerator.is_main_process)
    with StopRequest() as stop, progress:
        for step, batch in enumerate(cast("Iterable[ASRBatch]", setup.loader), setup.first):
            done = step + 1
            loss = setup.model(*batch.to(accelerator.device))
            total = loss.text + options.weights.ctc * loss.ctc
            if not total.isfinite():
                raise FloatingPointError(f"step {step}: the loss is {total.item()}; lower the learning rate")
            accelerator.backward(total)
            rate = rates.learning_rate * wsd_schedule(
                step, steps=options.steps, warmup=rates.warmup, decay=rates.decay
            )
            norm = optimizer_step(setup.optimizers, rate, rates.clip)
            setup.average.update_parameters(accelerator.unwrap_model(setup.model))

            progress.update()
            progress.set_postfix(text=f"{loss.text.item():.3f}", ctc=f"{loss.ctc.item():.3f}")
            if done % options.monitor.every == 0 and accelerator.is_main_process:
                monitor.log(done, loss, float(norm))
            stopping = total_over_processes(accelerator, int(stop.requested)) > 0
            if done % options.save_every == 0 or done == options.steps or stopping:
                if accelerator.is_main_process:
                    result.eval().save_pretrained(options.run / "model", setup.text_tokenizer)
                    monitor.write(done, validate(result, setup.text_tokenizer, setup.validation))
                save_state(accelerator, options.run, done)
            if stopping:
                break
    if stop and accelerator.is_main_process:
        logger.warning("stop requested: saved at step %d", done)
    return result.eval()


def current_arguments(arguments: Sequence[str]) -> list[str]:
    """Turn `RUN ... --preset NAME` of earlier versions into `NAME --run RUN ...`."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in PRESETS:
        return list(arguments)
    run, *rest = arguments
    preset = "mini"
    for i, argument in enumerate(rest):
        if argument == "--preset" and i + 1 < len(rest):
            preset = rest[i + 1]
            del rest[i : i + 2]
            break
        if argument.startswith("--preset="):
            preset = rest.pop(i).partition("=")[2]
            break
    print(f"{run} is now {preset} --run {run}; the old form goes with the next version", file=sys.stderr)
    return [preset, "--run", run, *rest]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    arguments = current_arguments(sys.argv[1:] if argv is None else argv)
    run_preset(train, PRESETS, arguments, __doc__ or "", ASR_OPTIONS)


if __name__ == "__main__":
    main()
