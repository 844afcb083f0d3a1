"""The set-up of a TTS model's training: everything is checked and built here, before the first step."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

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
from cat_tts.model.code_embeddings import TABLE_SCALE, begin_anew, point_heads, read_tables
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer import AudioTokenizer
from training.common.distributed import ignore_signals, lower_precision, start
from training.common.optimizers import optimizers, require_whole
from training.common.run import keep_settings, resume_state
from training.common.weight_average import Average, hollow
from training.data.code_shards import Codes, CodesInfo, read_codes, read_info, require_tokenizer
from training.data.mixture import epoch_indices, read_mixture
from training.tts.batches import Batch, Batches, DropoutConfig
from training.tts.initialization import initialise
from training.tts.lora import adapt, is_adapted, merge, save_adapter
from training.tts.monitor import Monitor
from training.tts.recipes import FIXED, HardwareConfig, TTSTraining
from training.tts.samples import Samples, exchanged
from training.tts.text_tokenizer import keep_text, own_text, retold, text_frames


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop works with."""

    first: int
    """The step at which the run begins or goes on."""
    accelerator: Accelerator
    model: nn.Module
    text: TextTokenizer
    optimizers: list[Optimizer]
    average: Average[CatTTS]
    """Of the weights: what the training is for."""
    loader: "DataLoader[list[Batch]]"
    monitor: Monitor
    validation: list[Batch]
    samples: Samples | None
    """What is spoken in the midst of the training."""

    def result(self, run: Path) -> CatTTS:
        """What the run is for, the averaged model; all processes must call. Of adapters, the main one writes
        RUN/adapter, and the result is the plain model with them merged in."""
        result = self.average.module()
        if not is_adapted(result):
            return result
        if self.accelerator.is_main_process:
            save_adapter(result, run / "adapter")
        return merge(result)


def build(options: TTSTraining) -> Parts:
    """Check the options, build everything, load RUN's state; raise ValueError before anything is written."""
    codes, info = read_codes(options.codes), read_info(options.codes)
    if not 0 < options.validation < len(codes):
        raise ValueError(
            f"validation={options.validation} of {len(codes)} utterances: keep some, train on some"
        )
    accelerator = start(unused=False)
    require_whole(accelerator, options.optimizer)
    set_seed(options.seed)
    settings = TypeAdapter(TTSTraining).dump_python(options, mode="json")
    settings["tokenizer_sha256"] = info.tokenizer_sha256
    settings["mixture"] = asdict(read_mixture(options.codes))
    settings["muon"] = options.optimizer.muon or None  # as in runs begun before there was a choice
    settings["tables"] = None if options.optimizer.tables == 1 else options.optimizer.tables
    with accelerator.main_process_first():
        spoken = _tokenizer(options, info)
        bare, text = starting_model(options, codes, info, spoken)
        training, alone = _batches(options, bare.config, text, codes, accelerator)
        samples = _samples(options, spoken, alone, accelerator)
        keep_settings(options.run, settings, FIXED)
        if options.init is None or options.new_text:
            keep_text(text, options.run, options.text)
    adapted(bare, options)
    shell, rates = hollow(bare), options.optimizer
    changing = optimizers(bare, rates)  # what is frozen below is theirs too: a later run may train it
    _freeze(bare, training.deepest)
    for table in bare.code_embeddings if options.meant_from else []:
        table.requires_grad_(False)
    prepare_hardware(bare, options.hardware, accelerator.device)
    model, *prepared = accelerator.prepare(bare, *changing)
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
        optimizers=prepared,
        average=average,
        loader=DataLoader(
            training,
            batch_size=None,
            sampler=range(first, options.steps),
            num_workers=options.hardware.workers,
            worker_init_fn=ignore_signals,
        ),
        monitor=monitor,
        validation=[alone.collate([(i,)]).to(accelerator.device) for i in alone.usable.tolist()],
        samples=samples,
    )


def _tokenizer(options: TTSTraining, info: CodesInfo) -> AudioTokenizer | None:
    if options.tokenizer is None:
        return None
    tokenizer = AudioTokenizer.from_pretrained(options.tokenizer, "decoder")
    require_tokenizer(info, tokenizer)
    return tokenizer


def starting_model(
    options: TTSTraining, codes: Codes, info: CodesInfo, tokenizer: AudioTokenizer | None = None
) -> tuple[CatTTS, TextTokenizer]:
    """What --init names, and what it reads; or random weights, and a text tokenizer of the run's own, made of
    all texts of the codes. With the codes' tokenizer random weights begin with what codes mean."""
    found = None
    if options.init is not None:
        found = initialise(options.init, options.shape, info.num_codebooks, info.codebook_size)
        if options.meant_from is not None and tokenizer is not None:
            tables, heads = found[0].code_embeddings, found[0].depth.code_heads
            begin_anew(tables, heads, tokenizer.quantizer, options.meant_from)
        if not options.new_text:
            return found
    text = own_text(options.run, options.text, codes, options.shape.text_vocab_size)
    if found is not None:
        return retold(found[0], text, text_frames(found[0].config, text, codes)), text
    config = replace(
        options.shape,
        num_codebooks=info.num_codebooks,
        codebook_size=info.codebook_size,
        text_vocab_size=text.vocab_size,
        text_frames=text_frames(options.shape, text, codes),
    )
    model = CatTTS(config)
    if tokenizer is not None:
        read_tables(model.code_embeddings, tokenizer.quantizer)
        nn.init.normal_(model.text_embedding.weight, std=TABLE_SCALE)
        point_heads(model.depth.code_heads, tokenizer.quantizer)
    return model, text


def adapted(model: CatTTS, options: TTSTraining) -> CatTTS:
    """`model`, in place, with the adapters that the options ask for, if any."""
    return adapt(model, options.lora, options.init) if options.lora.rank else model


def prepare_hardware(model: CatTTS, hardware: HardwareConfig, device: torch.device) -> None:
    """Compute as the options ask for."""
    if hardware.precision == "bf16":
        lower_precision(model, device)
    if hardware.checkpointing:
        for layer in (*model.temporal.layers, *model.depth.layers):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _samples(
    options: TTSTraining, tokenizer: AudioTokenizer | None, kept_out: Batches, accelerator: Accelerator
) -> Samples | None:
    if tokenizer is None:
        return None
    chosen = [kept_out.codes[i] for i in kept_out.usable[:2].tolist()]
    return Samples(options.run, tokenizer.to(accelerator.device), exchanged(chosen))


def _batches(
    options: TTSTraining, config: TTSConfig, text: TextTokenizer, codes: Codes, accelerator: Accelerator
) -> tuple[Batches, Batches]:
    """The training's batches, and the `validation` utterances kept out of it, to be read alone."""
    order = np.random.default_rng(options.seed).permutation(len(codes))
    kept_out = np.sort(order[: options.validation])
    used = np.sort(order[options.validation :])
    spoken = codes.select(used)
    training = Batches(
        spoken,
        config,
        text,
        options.batches,
        options.dropout,
        seed=options.seed,
        steps=options.steps,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        epochs=partial(_epoch, spoken["source"][:], np.array(spoken["frames"][:]), options),
    )
    alone = Batches(
        codes.select(kept_out), config, text, options.batches, DropoutConfig(), seed=options.seed, steps=0
    )
    return training, alone


def _epoch(sources: list[str], frames: np.ndarray, options: TTSTraining, epoch: int) -> np.ndarray:
    chosen = read_mixture(options.codes)
    return epoch_indices(sources, frames, chosen, seed=options.seed, epoch=epoch)


def _freeze(model: CatTTS, deepest: int) -> None:
    """What no sample reaches keeps its weights: neither momentum nor weight decay move them."""
    for k in range(deepest, model.config.num_codebooks):
        unused = [model.code_embeddings[k], model.depth.code_heads[k]]
        if model.config.adapter_dim is not None:
            unused += [model.depth.adapters[k + 1], model.depth.head_norms[k + 1]]
        for module in unused:
            module.requires_grad_(False)
