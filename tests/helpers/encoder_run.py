"""Short runs of encoder and quantizer, without decoder."""

from dataclasses import replace
from pathlib import Path

from training.audio_tokenizer.recipes import TokenizerTraining, tiny


def options(run: Path, data: Path, **changes) -> TokenizerTraining:
    made = replace(
        tiny(),
        run=run,
        data=data,
        trainable="encoder",
        adversarial_from=None,
        weights=replace(tiny().weights, semantic=0.0, spectral=10.0),
        batches=replace(tiny().batches, batch_seconds=0.96, crop_seconds=0.32),
        monitor=replace(tiny().monitor, samples_every=2),
    )
    return replace(made, **changes)
