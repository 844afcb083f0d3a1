"""The set-up of a tokenizer's training: everything is checked and built here, before the first step."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import TypeAdapter
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from tokenizer import AudioTokenizer
from tokenizer.discriminators import Discriminators
from training.audio_tokenizer.batches import Segments, calibration
from training.audio_tokenizer.codebook_revival import Revival
from training.audio_tokenizer.heads.ctc import CTCHead
from training.audio_tokenizer.heads.pitch import PitchHead
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.heads.spectral import SpectralHead
from training.audio_tokenizer.initialization.filter_bank import HELD
from training.audio_tokenizer.initialization.pca_kmeans import calculate
from training.audio_tokenizer.joint_model import Joint, checkpoint_layers, compile_layers
from training.audio_tokenizer.losses import MultiScaleMelLoss
from training.audio_tokenizer.monitor import VALIDATION_SECONDS, Monitor
from training.audio_tokenizer.recipes import FIXED, OptimizerConfig, TokenizerTraining
from training.common.distributed import ignore_signals, lower_precision, replicate, start
from training.common.optimizers import matrices, muon, require_whole
from training.common.run import first_difference, has_state, keep_settings, resume_state
from training.common.weight_average import Average, hollow
from training.data.manifest import Clip, read_manifest

BETAS = (0.8, 0.99)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop works with."""

    run: Path
    first: int
    """The step at which the run begins or goes on."""
    accelerator: Accelerator
    joint: nn.Module
    bare: Joint
    """The same without data-parallel wrapper."""
    optimizers: list[Optimizer]
    average: Average
    """Of the weights: what the training is for."""
    discriminators: nn.Module
    discriminator_optimizer: Optimizer
    judge: Discriminators
    """The discriminators without data-parallel wrapper, which must not see the tokenizer's backward pass."""
    mel: MultiScaleMelLoss
    loader: DataLoader
    monitor: Monitor
    revival: Revival | None
    samples: list[Clip]
    validation: list[Clip]

    def save_model(self, result: Joint) -> None:
        """Write RUN/model, and the semantic head as RUN/model/semantic."""
        result.tokenizer.save_pretrained(self.run / "model")
        if result.head is not None:
            result.head.save_pretrained(self.run / "model" / "semantic")


def build(options: TokenizerTraining) -> Parts:
    """Check the options, build everything, load RUN's state; raise ValueError before anything is written."""
    clips, validation = read_manifest(options.data), _validation(options)
    if max(options.weights.semantic, options.weights.ctc) > 0 and not any(clip.text for clip in clips):
        raise ValueError(
            f"{options.data}: no clip has a text to learn from; add texts, or --weights.semantic 0 "
            "and --weights.ctc 0"
        )
    accelerator = start(unused=options.trainable == "partial")
    require_whole(accelerator, options.optimizer)
    set_seed(options.seed)
    model = _tokenizer(options)
    config = model.config
    judge = Discriminators(options.shape.discriminators)
    spectral = SpectralHead(config) if options.weights.spectral > 0 else None
    silent, pitched = options.trainable in ("encoder", "heads"), options.weights.pitch > 0
    pitch = PitchHead(config) if silent and pitched else None
    head = _semantic_head(options)
    width = config.code_dim if head is None or head.config.ctc_layer is None else head.config.dim
    ctc = CTCHead(width) if options.weights.ctc > 0 else None
    bare = Joint(model, head, spectral, ctc, pitch, silent=silent, pitched=pitched)
    data = Segments(
        clips,
        options.batches,
        config,
        bare.encode_text,
        seed=options.seed,
        steps=options.steps,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    if options.filter_bank and options.init is None and not has_state(options.run):
        calculate(model, spectral, calibration(clips, config, options.seed), options.seed)
    monitor = Monitor(options.run, config)
    settings = TypeAdapter(TokenizerTraining).dump_python(options, mode="json")
    settings["muon"] = options.optimizer.muon or None  # as in runs begun before there was a choice
    settings["batches"]["text_noise"] = options.batches.text_noise or None
    with accelerator.main_process_first():
        keep_settings(options.run, settings, FIXED)

    if options.trainable in ("decoder", "encoder", "heads"):
        for name, parameter in model.named_parameters():
            part = "decoder" if name.startswith("decoder.") else "encoder"
            parameter.requires_grad_(part == options.trainable)
    if options.filter_bank:
        for stage in model.encoder[:HELD]:
            stage.requires_grad_(False)
    shell = hollow(bare)
    if options.hardware.precision == "bf16":
        for module in (bare, judge):
            lower_precision(module, accelerator.device)
    if options.hardware.checkpointing:
        checkpoint_layers(model)
    if options.hardware.compile:
        compile_layers(model)
    rates = options.optimizer
    joint, *changing = accelerator.prepare(bare, *_optimizers(bare, rates))
    average = Average(shell, dict(bare.named_parameters()), options.optimizer.ema)
    accelerator.register_for_checkpointing(average, monitor)
    discriminators, discriminator_optimizer = replicate(
        accelerator,
        judge,
        torch.optim.AdamW(
            judge.parameters(), rates.discriminator_learning_rate, betas=BETAS, weight_decay=0.0, fused=True
        ),
    )
    revival = Revival(model.quantizer, accelerator, options.seed) if options.revive else None
    if revival is not None:
        accelerator.register_for_checkpointing(revival)
    first = resume_state(accelerator, options.run)
    if options.monitor.tensorboard and accelerator.is_main_process:
        monitor.open_tensorboard(first)
    return Parts(
        run=options.run,
        first=first,
        accelerator=accelerator,
        joint=joint,
        bare=bare,
        optimizers=changing,
        average=average,
        discriminators=discriminators,
        discriminator_optimizer=discriminator_optimizer,
        judge=judge,
        mel=MultiScaleMelLoss(config.sample_rate, options.mel_windows).to(accelerator.device),
        loader=DataLoader(
            data,
            batch_size=None,
            sampler=range(first, options.steps),
            num_workers=options.hardware.workers,
            worker_init_fn=ignore_signals,
        ),
        monitor=monitor,
        revival=revival,
        samples=(validation or clips)[:2],
        validation=validation,
    )


def _tokenizer(options: TokenizerTraining) -> AudioTokenizer:
    if options.init is None:
        return AudioTokenizer(options.shape.model)
    model = AudioTokenizer.from_pretrained(options.init)
    codebooks = model.config.num_codebooks
    given, wanted = (
        TypeAdapter(type(one)).dump_python(
            replace(one, layer_scale=0.0, quantizer=replace(one.quantizer, num_codebooks=codebooks)),
            mode="json",
        )
        for one in (model.config, options.shape.model)
    )
    difference = first_difference(given, wanted, "config")
    if difference:
        raise ValueError(
            f"{options.init} is of another shape than the preset: {difference}; choose its preset"
        )
    return model.train()


def _optimizers(joint: Joint, rates: OptimizerConfig) -> list[Optimizer]:
    """AdamW for all that is trained, but for what is Muon's."""
    turned = matrices(joint) if rates.muon else []
    held = {id(weight) for weight in turned}
    rest = [weight for weight in joint.parameters() if weight.requires_grad and id(weight) not in held]
    built: list[Optimizer] = [
        torch.optim.AdamW(rest, rates.learning_rate, betas=BETAS, weight_decay=rates.weight_decay, fused=True)
    ]
    return [*built, muon(turned, rates)] if turned else built


def _semantic_head(options: TokenizerTraining) -> SemanticHead | None:
    """That of the folder to start from, or of an LLM, or a random one; None where its loss counts nothing."""
    if options.weights.semantic == 0:
        return None
    if options.init is not None and (options.init / "semantic").is_dir():
        return SemanticHead.from_pretrained(options.init / "semantic").train()
    if options.llm is not None:
        return SemanticHead.from_llm(options.llm, options.shape.model.code_dim)
    return SemanticHead(options.shape.semantic)


def _validation(options: TokenizerTraining) -> list[Clip]:
    """Clips spread over the whole manifest, none of them long."""
    if options.monitor.validation is None:
        return []
    clips = [c for c in read_manifest(options.monitor.validation) if c.duration <= VALIDATION_SECONDS]
    if not clips:
        raise ValueError(f"{options.monitor.validation}: no clip lasts at most {VALIDATION_SECONDS} s")
    count = min(options.monitor.validation_clips, len(clips))
    return [clips[i * len(clips) // count] for i in range(count)]
