"""Train CAT-TTS on encoded speech: `python -m training.train_tts mini --codes FOLDER --run runs/tts`.

Progressive Sequence Dropout draws each sample's depth; the loss is paper eq. 9 plus the decision between
continuing and stopping. The same command continues the run that it finds in RUN, exactly where it was; what
a step reads depends on (seed, step) alone. Several processes share a step's passes:

    accelerate launch --config_file training/accelerate/ddp.yaml -m training.train_tts ...

or, for models that need it, split its weights too: fsdp2.yaml.
"""

import logging
from collections.abc import Iterable
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor
from tqdm import tqdm

from cat_tts import CatTTS
from training.common.distributed import optimizer_step, total_over_processes
from training.common.renamed_options import TTS_OPTIONS
from training.common.run import StopRequest, key, run_preset, save_state, wsd_schedule
from training.tts.batches import TTSBatch
from training.tts.monitor import packed, validate
from training.tts.recipes import PRESETS, TTSTraining
from training.tts.setup import build
from training.tts.voice_vectors import voice_vectors

logger = logging.getLogger(__name__)


def train(options: TTSTraining) -> CatTTS:
    """Run or resume the training; return the averaged model."""
    setup = build(options)
    accelerator, monitor, rates, done = setup.accelerator, setup.monitor, options.optimizer, setup.first
    progress = tqdm(total=options.steps, initial=setup.first, disable=not accelerator.is_main_process)
    with StopRequest() as stop, progress:
        for step, passes in enumerate(cast("Iterable[list[TTSBatch]]", setup.loader), setup.first):
            done = step + 1
            # The loss is a mean over the codes of the whole step, whichever pass and process has how many.
            local_counts = torch.stack([batch.counts for batch in passes]).sum(0)
            counts = cast(Tensor, accelerator.reduce(local_counts.to(accelerator.device), "sum"))
            codes, decisions = counts[0] / accelerator.num_processes, counts[1] / accelerator.num_processes
            torch.manual_seed(key(options.seed, step, accelerator.process_index))  # of the adapters' dropout
            sums = 0
            for i, batch in enumerate(passes):
                batch = batch.to(accelerator.device)
                speaker = voice_vectors(setup.speaker_encoder, batch.clips, batch.depth)
                last = i == len(passes) - 1
                with nullcontext() if last else accelerator.no_sync(setup.model):
                    loss = setup.model(
                        batch.rows, None, batch.targets, batch.depth, batch.positions, batch.deep, speaker
                    )
                    accelerator.backward(loss.code_sums.sum() / codes + loss.decision_sum / decisions)
                sums = sums + packed(loss)
            sums = cast(Tensor, accelerator.reduce(sums, "sum")).cpu()
            if not sums.isfinite().all():
                raise FloatingPointError(f"step {step}: the loss is {sums.sum()}; lower the learning rate")
            rate = rates.learning_rate * wsd_schedule(
                step, steps=options.steps, warmup=rates.warmup, decay=rates.decay
            )
            norm = optimizer_step(setup.optimizers, rate, rates.clip)
            setup.average.update()

            rows = total_over_processes(accelerator, sum(batch.length for batch in passes))
            monitor.add(sums, float(norm), rows)
            progress.update()
            if done % options.monitor.every == 0:
                if accelerator.is_main_process:
                    progress.set_postfix(codes=f"{monitor.log(done, rate):.3f}", refresh=False)
                monitor.reset()
            stopping = total_over_processes(accelerator, int(stop.requested)) > 0
            scheduled = done % options.save_every == 0 or done == options.steps
            sampling = setup.samples is not None and done % options.monitor.samples_every == 0
            result = setup.result(options.run) if scheduled or stopping or sampling else None
            if result is not None and accelerator.is_main_process:
                if setup.samples is not None and sampling:
                    setup.samples.write(done, result.eval(), setup.text_tokenizer, monitor.writer)
                if scheduled or stopping:
                    result.save_pretrained(options.run / "model", setup.text_tokenizer)
                if scheduled:
                    losses = validate(result, setup.validation, speaker_encoder=setup.speaker_encoder)
                    monitor.write(done, losses)
            if scheduled or stopping:
                save_state(accelerator, options.run, done)
            if stopping:
                break
    if stop and accelerator.is_main_process:
        logger.warning("stop requested: saved at step %d", done)
    return setup.result(options.run).eval()


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    run_preset(train, PRESETS, argv, __doc__ or "", TTS_OPTIONS)


if __name__ == "__main__":
    main()
