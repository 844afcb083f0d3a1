"""The set-up of a TTS model's training: everything is checked and built here, before the first step."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import TypeAdapter
from torch import nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from cat_tts import CatTTS, TTSConfig
from cat_tts.text import SENTENCEPIECE_FILE, TextTokenizer, load_text_tokenizer, train_sentencepiece
from training.average import Average, hollow
from training.codes import Codes, CodesInfo, read_codes, read_info
from training.examples import Batch, Batches, DropoutConfig
from training.processes import ignore_signals, lower_precision, start
from training.run import keep_settings, resume_state
from training.tts_monitor import Monitor
from training.tts_recipes import FIXED, TTSTraining

BETAS = (0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop works with."""

    first: int
    """The step at which the run begins or goes on."""
    accelerator: Accelerator
    model: nn.Module
    text: TextTokenizer
    optimizer: Optimizer
    average: Average[CatTTS]
    """Of the weights: what the training is for."""
    loader: "DataLoader[list[Batch]]"
    monitor: Monitor
    validation: list[Batch]


def build(options: TTSTraining) -> Parts:
    """Check the options, build everything, load RUN's state; raise ValueError before anything is written."""
    codes, info = read_codes(options.codes), read_info(options.codes)
    if not 0 < options.monitor.validation < len(codes):
        raise ValueError(
            f"monitor.validation={options.monitor.validation} of {len(codes)} utterances: keep some, "
            "train on some"
        )
    accelerator = start(unused=False)
    set_seed(options.seed)
    settings = TypeAdapter(TTSTraining).dump_python(options, mode="json")
    settings["tokenizer_sha256"] = info.tokenizer_sha256
    with accelerator.main_process_first():
        bare, text = _model(options, codes, info)
        training, validation = _batches(options, bare.config, text, codes, accelerator)
        keep_settings(options.run, settings, FIXED)
        if not (options.run / SENTENCEPIECE_FILE).exists():
            _write_text(text, options.run)
    shell = hollow(bare)
    _freeze(bare, training.deepest)
    if options.hardware.precision == "bf16":
        lower_precision(bare, accelerator.device)
    if options.hardware.checkpointing:
        for layer in (*bare.temporal.layers, *bare.depth.layers):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    rates = options.optimizer
    groups = [
        {"params": [p for p in bare.parameters() if p.ndim > 1], "weight_decay": rates.weight_decay},
        {"params": [p for p in bare.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    model, optimizer = accelerator.prepare(
        bare, torch.optim.AdamW(groups, rates.learning_rate, betas=BETAS, fused=True)
    )
    average = Average(shell, dict(bare.named_parameters()), rates.ema)
    monitor = Monitor(options.run, bare.config.num_codebooks)
    accelerator.register_for_checkpointing(average, monitor)
    first = resume_state(accelerator, options.run)
    if options.monitor.tensorboard and accelerator.is_main_process:
        monitor.open_tensorboard(first)
    return Parts(
        first=first,
        accelerator=accelerator,
        model=model,
        text=text,
        optimizer=optimizer,
        average=average,
        loader=DataLoader(
            training,
            batch_size=None,
            sampler=range(first, options.steps),
            num_workers=options.hardware.workers,
            worker_init_fn=ignore_signals,
        ),
        monitor=monitor,
        validation=[batch.to(accelerator.device) for batch in validation],
    )


def _model(options: TTSTraining, codes: Codes, info: CodesInfo) -> tuple[CatTTS, TextTokenizer]:
    """Random weights, and a SentencePiece model of the run's own, trained on all texts of the codes."""
    path = options.run / SENTENCEPIECE_FILE
    if path.exists():
        text = load_text_tokenizer(options.run)
    else:
        with TemporaryDirectory() as folder:
            texts, size = codes["text"][:], options.shape.text_vocab_size
            text = train_sentencepiece(texts, Path(folder) / SENTENCEPIECE_FILE, size)
    config = replace(
        options.shape,
        num_codebooks=info.num_codebooks,
        codebook_size=info.codebook_size,
        text_vocab_size=text.vocab_size,
    )
    return CatTTS(config), text


def _write_text(text: TextTokenizer, run: Path) -> None:
    with TemporaryDirectory(dir=run) as folder:
        text.save(folder)
        os.replace(Path(folder) / SENTENCEPIECE_FILE, run / SENTENCEPIECE_FILE)


def _batches(
    options: TTSTraining, config: TTSConfig, text: TextTokenizer, codes: Codes, accelerator: Accelerator
) -> tuple[Batches, list[Batch]]:
    """The training's batches, and those of `monitor.validation` utterances kept out of it."""
    order = np.random.default_rng(options.seed).permutation(len(codes))
    kept_out = np.sort(order[: options.monitor.validation])
    used = np.sort(order[options.monitor.validation :])
    training = Batches(
        codes.select(used),
        config,
        text,
        options.batches,
        options.dropout,
        seed=options.seed,
        steps=options.steps,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    alone = Batches(
        codes.select(kept_out), config, text, options.batches, DropoutConfig(), seed=options.seed, steps=0
    )
    return training, [alone.collate([(i,)]) for i in alone.usable.tolist()]


def _freeze(model: CatTTS, deepest: int) -> None:
    """What no sample reaches keeps its weights: neither momentum nor weight decay move them."""
    for k in range(deepest, model.config.num_codebooks):
        unused = [model.code_embeddings[k], model.depth.code_heads[k]]
        if model.config.adapter_dim is not None:
            unused += [model.depth.adapters[k + 1], model.depth.head_norms[k + 1]]
        for module in unused:
            module.requires_grad_(False)
