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
from cat_tts.model.code_embeddings import TABLE_SCALE, init_code_embeddings, init_code_heads, reinit_codebooks
from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer import AudioTokenizer
from training.common.distributed import ignore_signals, lower_precision, start
from training.common.optimizers import optimizers, require_unsharded
from training.common.run import resume_state, save_settings
from training.common.settings import HardwareConfig
from training.common.weight_average import WeightAverage, meta_copy
from training.data.code_shards import Codes, CodesInfo, read_codes, read_info, require_tokenizer
from training.data.mixture import epoch_indices, read_mixture
from training.tts.batches import DropoutConfig, TTSBatch, TTSBatches
from training.tts.initialization import initialize
from training.tts.lora import adapt, is_adapted, merge, save_adapter
from training.tts.monitor import TTSMonitor
from training.tts.recipes import FIXED, TTSTraining
from training.tts.samples import Samples, swap_prompts
from training.tts.text_tokenizer import (
    build_text_tokenizer,
    replace_text_tokenizer,
    save_text_tokenizer,
    token_durations,
)
from training.tts.voice_vectors import condition_on_voice, load_speaker_encoder, weights_sha256


@dataclass(frozen=True, kw_only=True)
class TTSSetup:
    """The parts that the training loop works with."""

    first: int
    """The step at which the run begins or continues."""
    accelerator: Accelerator
    model: nn.Module
    text_tokenizer: TextTokenizer
    optimizers: list[Optimizer]
    average: WeightAverage[CatTTS]
    """Running average of the weights, the result of the training."""
    loader: "DataLoader[list[TTSBatch]]"
    monitor: TTSMonitor
    validation: list[TTSBatch]
    samples: Samples | None
    """Texts that are spoken during the training; None without an audio tokenizer."""
    speaker_encoder: VoiceVectorEncoder | None
    """What computes voice vectors, on the device of the model; None for a model that reads none."""

    def result(self, run: Path) -> CatTTS:
        """Return the averaged model; all processes must call.

        The adapters of a LoRA run are written to RUN/adapter by the main process and merged into the model.
        """
        result = self.average.module()
        if not is_adapted(result):
            return result
        if self.accelerator.is_main_process:
            save_adapter(result, run / "adapter")
        return merge(result)


def build(options: TTSTraining) -> TTSSetup:
    """Check the options, build everything and load RUN's state.

    Raises:
        ValueError: options, codes or RUN do not fit together; nothing has been written then.
    """
    codes, info = read_codes(options.codes), read_info(options.codes)
    if not 0 < options.validation < len(codes):
        raise ValueError(
            f"validation={options.validation} of {len(codes)} utterances: keep some, train on some"
        )
    accelerator = start(unused=False)
    require_unsharded(accelerator, options.optimizer)
    set_seed(options.seed)
    settings = TypeAdapter(TTSTraining).dump_python(options, mode="json")
    settings["tokenizer_sha256"] = info.tokenizer_sha256
    settings["mixture"] = asdict(read_mixture(options.codes))
    for name in ("muon", "embedding_learning_rate_scale"):
        settings[name] = settings["optimizer"][name]
    with accelerator.main_process_first():
        tokenizer = _tokenizer(options, info)
        speaker_encoder = load_speaker_encoder(options.speaker_encoder, info.codebook_size)
        settings["speaker_encoder_sha256"] = weights_sha256(speaker_encoder)
        unwrapped, text_tokenizer = starting_model(options, codes, info, tokenizer)
        condition_on_voice(unwrapped, speaker_encoder, adapters_only=options.lora.rank > 0)
        training, kept_out = _batches(options, unwrapped.config, text_tokenizer, codes, accelerator)
        if speaker_encoder is not None:
            speaker_encoder.to(accelerator.device)
        samples = _samples(options, tokenizer, speaker_encoder, kept_out, accelerator)
        save_settings(options.run, settings, FIXED)
        if options.init is None or options.new_text:
            save_text_tokenizer(text_tokenizer, options.run, options.text)
    adapted(unwrapped, options)
    template, rates = meta_copy(unwrapped), options.optimizer
    # They hold what is frozen below too: a later run may train it.
    unprepared = optimizers(unwrapped, rates, rates.embedding_learning_rate_scale)
    _freeze(unwrapped, training.deepest)
    for table in unwrapped.code_embeddings if options.reinit_codebooks_from else []:
        table.requires_grad_(False)
    prepare_hardware(unwrapped, options.hardware, accelerator.device)
    model, *prepared = accelerator.prepare(unwrapped, *unprepared)
    average = WeightAverage(template, dict(unwrapped.named_parameters()), rates.ema)
    monitor = TTSMonitor(options.run, unwrapped.config.num_codebooks)
    accelerator.register_for_checkpointing(average, monitor)
    first = resume_state(accelerator, options.run)
    if options.monitor.tensorboard and accelerator.is_main_process:
        monitor.open_tensorboard(first)
    return TTSSetup(
        first=first,
        accelerator=accelerator,
        model=model,
        text_tokenizer=text_tokenizer,
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
        validation=[kept_out.collate([(i,)]).to(accelerator.device) for i in kept_out.usable.tolist()],
        samples=samples,
        speaker_encoder=speaker_encoder,
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
    """Build the model that the training starts from, and its text tokenizer.

    Args:
        options: `init` names the model; without it, it has random weights and the `shape` of the options.
        codes: The shards; a new text tokenizer is made of all their texts.
        info: Number of codebooks, and codes in each.
        tokenizer: The audio tokenizer of the codes; random embeddings then begin with its vectors.

    Raises:
        ValueError: the model that `init` names speaks other codes.
    """
    initial = None
    if options.init is not None:
        initial = initialize(options.init, options.shape, info.num_codebooks, info.codebook_size)
        if options.reinit_codebooks_from is not None and tokenizer is not None:
            tables, heads = initial[0].code_embeddings, initial[0].depth.code_heads
            reinit_codebooks(tables, heads, tokenizer.quantizer, options.reinit_codebooks_from)
        if not options.new_text:
            return initial
    text_tokenizer = build_text_tokenizer(options.run, options.text, codes, options.shape.text_vocab_size)
    if initial is not None:
        durations = token_durations(initial[0].config, text_tokenizer, codes)
        return replace_text_tokenizer(initial[0], text_tokenizer, durations), text_tokenizer
    config = replace(
        options.shape,
        num_codebooks=info.num_codebooks,
        codebook_size=info.codebook_size,
        text_vocab_size=text_tokenizer.vocab_size,
        token_durations=token_durations(options.shape, text_tokenizer, codes),
    )
    model = CatTTS(config)
    if tokenizer is not None:
        init_code_embeddings(model.code_embeddings, tokenizer.quantizer)
        nn.init.normal_(model.text_embedding.weight, std=TABLE_SCALE)
        init_code_heads(model.depth.code_heads, tokenizer.quantizer)
        if options.reinit_codebooks_from is not None:
            tables, heads = model.code_embeddings, model.depth.code_heads
            reinit_codebooks(tables, heads, tokenizer.quantizer, options.reinit_codebooks_from)
    return model, text_tokenizer


def adapted(model: CatTTS, options: TTSTraining) -> CatTTS:
    """Put the LoRA adapters that the options name, if any, into `model`, in place, and return it."""
    return adapt(model, options.lora, options.init) if options.lora.rank else model


def prepare_hardware(model: CatTTS, hardware: HardwareConfig, device: torch.device) -> None:
    """Set precision and activation checkpointing of `model`, in place."""
    if hardware.precision == "bf16":
        lower_precision(model, device)
    if hardware.checkpointing:
        for layer in (*model.temporal.layers, *model.depth.layers):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _samples(
    options: TTSTraining,
    tokenizer: AudioTokenizer | None,
    speaker_encoder: VoiceVectorEncoder | None,
    kept_out: TTSBatches,
    accelerator: Accelerator,
) -> Samples | None:
    if tokenizer is None:
        return None
    chosen = [kept_out.codes[i] for i in kept_out.usable[:2].tolist()]
    return Samples(options.run, tokenizer.to(accelerator.device), swap_prompts(chosen), speaker_encoder)


def _batches(
    options: TTSTraining,
    config: TTSConfig,
    text_tokenizer: TextTokenizer,
    codes: Codes,
    accelerator: Accelerator,
) -> tuple[TTSBatches, TTSBatches]:
    """Return the training's batches, and those of the `validation` utterances kept out of it."""
    order = np.random.default_rng(options.seed).permutation(len(codes))
    kept_out = np.sort(order[: options.validation])
    used = np.sort(order[options.validation :])
    trained = codes.select(used)
    training = TTSBatches(
        trained,
        config,
        text_tokenizer,
        options.batches,
        options.dropout,
        seed=options.seed,
        steps=options.steps,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        epochs=partial(_epoch, trained["source"][:], np.array(trained["frames"][:]), options),
    )
    validation = TTSBatches(
        codes.select(kept_out),
        config,
        text_tokenizer,
        options.batches,
        DropoutConfig(),
        seed=options.seed,
        steps=0,
    )
    return training, validation


def _epoch(sources: list[str], frames: np.ndarray, options: TTSTraining, epoch: int) -> np.ndarray:
    mixture = read_mixture(options.codes)
    return epoch_indices(sources, frames, mixture, seed=options.seed, epoch=epoch)


def _freeze(model: CatTTS, deepest: int) -> None:
    """Freeze what no sample reaches, so that neither momentum nor weight decay move it."""
    for k in range(deepest, model.config.num_codebooks):
        unused = [model.code_embeddings[k], model.depth.code_heads[k]]
        if model.config.adapter_dim is not None:
            unused += [model.depth.adapters[k + 1], model.depth.head_norms[k + 1]]
        for module in unused:
            module.requires_grad_(False)
