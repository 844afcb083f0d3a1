"""The set-up of a tokenizer's training: everything is checked and built here, before the first step."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import TypeAdapter
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from tokenizer import AudioTokenizer, TokenizerConfig
from tokenizer.discriminators import Discriminators
from training.audio_tokenizer.batches import TokenizerBatches, calibration
from training.audio_tokenizer.dead_code_reset import DeadCodeReset
from training.audio_tokenizer.heads.ctc import CTCHead
from training.audio_tokenizer.heads.pitch import PitchHead
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.heads.spectral import SpectralHead
from training.audio_tokenizer.initialization.filter_bank import FIXED_STAGES
from training.audio_tokenizer.initialization.pca_kmeans import calculate
from training.audio_tokenizer.joint_model import JointModel, checkpoint_layers, compile_layers
from training.audio_tokenizer.losses import MultiScaleMelLoss
from training.audio_tokenizer.monitor import MAX_VALIDATION_SECONDS, TokenizerMonitor
from training.audio_tokenizer.recipes import FIXED, TokenizerOptimizerConfig, TokenizerTraining
from training.common.distributed import ignore_signals, lower_precision, replicate, start
from training.common.optimizers import matrices, muon, require_unsharded
from training.common.run import first_difference, has_state, resume_state, save_settings
from training.common.weight_average import WeightAverage, meta_copy
from training.data.manifest import Clip, read_manifest

logger = logging.getLogger(__name__)

BETAS = (0.8, 0.99)


@dataclass(frozen=True, kw_only=True)
class TokenizerSetup:
    """The parts that the training loop works with."""

    run: Path
    first: int
    """The step at which the run begins or continues."""
    accelerator: Accelerator
    joint: nn.Module
    unwrapped: JointModel
    """`joint` without data-parallel wrapper."""
    optimizers: list[Optimizer]
    average: WeightAverage
    """Running average of the weights, the result of the training."""
    discriminators: nn.Module
    discriminator_optimizer: Optimizer
    unwrapped_discriminators: Discriminators
    """The discriminators without data-parallel wrapper, which must not see the tokenizer's backward pass."""
    mel: MultiScaleMelLoss
    loader: DataLoader
    monitor: TokenizerMonitor
    dead_code_reset: DeadCodeReset | None
    samples: list[Clip]
    validation: list[Clip]

    def save_model(self, result: JointModel) -> None:
        """Write RUN/model, and the semantic head as RUN/model/semantic."""
        result.tokenizer.save_pretrained(self.run / "model")
        if result.head is not None:
            result.head.save_pretrained(self.run / "model" / "semantic")


def build(options: TokenizerTraining) -> TokenizerSetup:
    """Check the options, build everything and load RUN's state.

    Raises:
        ValueError: options, data or RUN do not fit together; nothing has been written then.
    """
    clips, validation = read_manifest(options.data), _validation(options)
    if max(options.weights.semantic, options.weights.ctc) > 0 and not any(clip.text for clip in clips):
        raise ValueError(
            f"{options.data}: no clip has a text to learn from; add texts, or --weights.semantic 0 "
            "and --weights.ctc 0"
        )
    accelerator = start(unused=options.trainable == "partial")
    require_unsharded(accelerator, options.optimizer)
    set_seed(options.seed)
    model = _tokenizer(options)
    config = model.config
    options = replace(options, shape=replace(options.shape, model=config))
    unwrapped_discriminators = Discriminators(options.shape.discriminators)
    spectral = SpectralHead(config) if options.weights.spectral > 0 else None
    without_decoder, supervise_pitch = options.trainable in ("encoder", "heads"), options.weights.pitch > 0
    pitch = PitchHead(config) if without_decoder and supervise_pitch else None
    head = _semantic_head(options)
    width = config.code_dim if head is None or head.config.ctc_layer is None else head.config.dim
    ctc = CTCHead(width) if options.weights.ctc > 0 else None
    unwrapped = JointModel(
        model, head, spectral, ctc, pitch, without_decoder=without_decoder, supervise_pitch=supervise_pitch
    )
    data = TokenizerBatches(
        clips,
        options.batches,
        config,
        unwrapped.encode_text,
        seed=options.seed,
        steps=options.steps,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    if options.filter_bank and options.init is None and not has_state(options.run):
        calculate(model, spectral, calibration(clips, config, options.seed), options.seed)
    monitor = TokenizerMonitor(options.run, config)
    settings = TypeAdapter(TokenizerTraining).dump_python(options, mode="json")
    settings["muon"] = options.optimizer.muon
    with accelerator.main_process_first():
        save_settings(options.run, settings, FIXED)

    if options.trainable in ("decoder", "encoder", "heads"):
        for name, parameter in model.named_parameters():
            part = "decoder" if name.startswith("decoder.") else "encoder"
            parameter.requires_grad_(part == options.trainable)
    if options.filter_bank:
        for stage in model.encoder[:FIXED_STAGES]:
            stage.requires_grad_(False)
    template = meta_copy(unwrapped)
    if options.hardware.precision == "bf16":
        for module in (unwrapped, unwrapped_discriminators):
            lower_precision(module, accelerator.device)
    if options.hardware.checkpointing:
        checkpoint_layers(model)
    if options.hardware.compile:
        compile_layers(model)
    rates = options.optimizer
    joint, *prepared = accelerator.prepare(unwrapped, *_optimizers(unwrapped, rates))
    average = WeightAverage(template, dict(unwrapped.named_parameters()), options.optimizer.ema)
    accelerator.register_for_checkpointing(average, monitor)
    discriminators, discriminator_optimizer = replicate(
        accelerator,
        unwrapped_discriminators,
        torch.optim.AdamW(
            unwrapped_discriminators.parameters(),
            rates.discriminator_learning_rate,
            betas=BETAS,
            weight_decay=0.0,
            fused=True,
        ),
    )
    dead_code_reset = (
        DeadCodeReset(model.quantizer, accelerator, options.seed) if options.reset_dead_codes else None
    )
    if dead_code_reset is not None:
        accelerator.register_for_checkpointing(dead_code_reset)
    first = resume_state(accelerator, options.run)
    if options.monitor.tensorboard and accelerator.is_main_process:
        monitor.open_tensorboard(first)
    return TokenizerSetup(
        run=options.run,
        first=first,
        accelerator=accelerator,
        joint=joint,
        unwrapped=unwrapped,
        optimizers=prepared,
        average=average,
        discriminators=discriminators,
        discriminator_optimizer=discriminator_optimizer,
        unwrapped_discriminators=unwrapped_discriminators,
        mel=MultiScaleMelLoss(config.sample_rate, options.mel_windows).to(accelerator.device),
        loader=DataLoader(
            data,
            batch_size=None,
            sampler=range(first, options.steps),
            num_workers=options.hardware.workers,
            worker_init_fn=ignore_signals,
        ),
        monitor=monitor,
        dead_code_reset=dead_code_reset,
        samples=(validation or clips)[:2],
        validation=validation,
    )


def _tokenizer(options: TokenizerTraining) -> AudioTokenizer:
    """Return the tokenizer of `init`, whatever its shape is, or a random one of the preset's shape."""
    if options.init is None:
        return AudioTokenizer(options.shape.model)
    model = AudioTokenizer.from_pretrained(options.init)
    loaded, preset = (
        TypeAdapter(TokenizerConfig).dump_python(config, mode="json")
        for config in (model.config, options.shape.model)
    )
    if difference := first_difference(preset, loaded, "config"):
        logger.info("%s has a shape of its own, which stays: the preset's %s", options.init, difference)
    return model.train()


def _optimizers(joint: JointModel, rates: TokenizerOptimizerConfig) -> list[Optimizer]:
    """Build AdamW for all trained weights, and Muon for those that are its where the rates ask for it."""
    muon_params = matrices(joint) if rates.muon else []
    taken = {id(weight) for weight in muon_params}
    rest = [weight for weight in joint.parameters() if weight.requires_grad and id(weight) not in taken]
    built: list[Optimizer] = [
        torch.optim.AdamW(rest, rates.learning_rate, betas=BETAS, weight_decay=rates.weight_decay, fused=True)
    ]
    return [*built, muon(muon_params, rates)] if muon_params else built


def _semantic_head(options: TokenizerTraining) -> SemanticHead | None:
    """Return the head of `init`, or of an LLM, or a random one; None where its loss has a weight of 0."""
    if options.weights.semantic == 0:
        return None
    if options.init is not None and (options.init / "semantic").is_dir():
        return SemanticHead.from_pretrained(options.init / "semantic").train()
    if options.llm is not None:
        return SemanticHead.from_llm(options.llm, options.shape.model.code_dim)
    return SemanticHead(replace(options.shape.semantic, latent_dim=options.shape.model.code_dim))


def _validation(options: TokenizerTraining) -> list[Clip]:
    """Return validation clips spread over the whole manifest, none of them long."""
    if options.monitor.validation is None:
        return []
    clips = [c for c in read_manifest(options.monitor.validation) if c.duration <= MAX_VALIDATION_SECONDS]
    if not clips:
        raise ValueError(f"{options.monitor.validation}: no clip lasts at most {MAX_VALIDATION_SECONDS} s")
    count = min(options.monitor.validation_clips, len(clips))
    return [clips[i * len(clips) // count] for i in range(count)]
