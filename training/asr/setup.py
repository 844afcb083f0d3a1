"""The set-up of a CAT-ASR's training: everything is checked and built here, before the first step."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from cat_tts.asr.from_qwen3 import from_qwen3, is_cat_asr
from cat_tts.asr.model import CatASR
from cat_tts.model.code_embeddings import init_code_embeddings
from cat_tts.text.phonemes import phonemes_without_stress
from cat_tts.text.tokenizers import SENTENCEPIECE_FILE, SentencePieceText, TextTokenizer, train_sentencepiece
from tokenizer import AudioTokenizer
from training.asr.batches import ASRBatch, ASRBatches, Utterances
from training.asr.monitor import ASRMonitor
from training.asr.recipe import ASRTraining
from training.common.distributed import ignore_signals, lower_precision, start
from training.common.optimizers import optimizers
from training.common.run import resume_state
from training.data.code_shards import Codes, read_codes, read_info


@dataclass(frozen=True, kw_only=True)
class ASRSetup:
    """The parts that the training loop works with."""

    first: int
    """The step at which the run begins or continues."""
    accelerator: Accelerator
    model: nn.Module
    text_tokenizer: TextTokenizer
    optimizers: list[Optimizer]
    average: AveragedModel
    """Running average of the weights, the result of the training."""
    loader: "DataLoader[ASRBatch]"
    monitor: ASRMonitor
    validation: Utterances


def build(options: ASRTraining) -> ASRSetup:
    """Check the options, build everything and load RUN's state.

    Raises:
        ValueError: options and codes do not fit together.
    """
    accelerator = start(unused=True)
    set_seed(options.seed)
    codes = read_codes(options.codes)
    if not 0 < options.validation < len(codes):
        raise ValueError(
            f"validation={options.validation} of {len(codes)} utterances: keep some, train on some"
        )
    options.run.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():  # the others read the text tokenizer that it makes
        unwrapped, text_tokenizer = _starting_model(options, codes)
    utterances = Utterances.read(codes, text_tokenizer, options.batches.max_frames, unwrapped.ctc_targets)
    # The same utterances whatever the seed: a run may begin with the model of another.
    training, validation = utterances.split(options.validation, seed=0)
    rates = options.optimizer
    average = AveragedModel(unwrapped, multi_avg_fn=get_ema_multi_avg_fn(rates.ema)).to(accelerator.device)
    unprepared = optimizers(unwrapped, rates)
    if options.hardware.precision == "bf16":
        lower_precision(unwrapped, accelerator.device)
    if options.hardware.checkpointing:
        for layer in unwrapped.llm.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    model, *prepared = accelerator.prepare(unwrapped, *unprepared)
    accelerator.register_for_checkpointing(average)
    first = resume_state(accelerator, options.run)
    monitor = ASRMonitor(options.run)
    if options.monitor.tensorboard and accelerator.is_main_process:
        monitor.open_tensorboard(first)
    batches = ASRBatches(
        training,
        options.batches,
        depth_dropout=options.dropout.p,
        vocab_size=text_tokenizer.vocab_size,
        seed=options.seed,
        steps=options.steps,
        rank=accelerator.process_index,
    )
    return ASRSetup(
        first=first,
        accelerator=accelerator,
        model=model,
        text_tokenizer=text_tokenizer,
        optimizers=prepared,
        average=average,
        loader=DataLoader(
            batches,
            batch_size=None,
            sampler=range(first, options.steps),
            num_workers=options.hardware.workers,
            worker_init_fn=ignore_signals,
        ),
        monitor=monitor,
        validation=validation,
    )


def _starting_model(options: ASRTraining, codes: Codes) -> tuple[CatASR, TextTokenizer]:
    """Return what `init` names, or random weights in the options' shape, with the text tokenizer."""
    info = read_info(options.codes)
    if options.init is not None and is_cat_asr(options.init):
        model, text_tokenizer = CatASR.from_pretrained(options.init)
        shape = (model.config.num_codebooks, model.config.codebook_size)
        if shape != (info.num_codebooks, info.codebook_size):
            raise ValueError(f"{options.init} reads other codes than those of {options.codes}")
    elif options.init is not None:
        model, text_tokenizer = from_qwen3(options.init, info.num_codebooks, info.codebook_size)
    else:
        text_tokenizer = _text_tokenizer(options.run, codes, options.text_pieces)
        model = CatASR(
            replace(
                options.shape,
                bidirectional=options.shape.bidirectional and not options.causal,
                num_codebooks=info.num_codebooks,
                codebook_size=info.codebook_size,
                text_vocab_size=text_tokenizer.vocab_size,
                phonemes=_phonemes(codes) if options.phonemes else (),
            )
        )
    if options.tokenizer is not None:
        quantizer = AudioTokenizer.from_pretrained(options.tokenizer).quantizer
        init_code_embeddings(model.code_embeddings, quantizer)
    return model, text_tokenizer


def _phonemes(codes: Codes) -> tuple[str, ...]:
    return tuple(sorted({phoneme for text in codes["text"] for phoneme in phonemes_without_stress(text)}))


def _text_tokenizer(run: Path, codes: Codes, vocab_size: int) -> SentencePieceText:
    """Return the run's own SentencePiece model, trained on all texts of the corpus by the first call."""
    path = run / SENTENCEPIECE_FILE
    if not path.exists():
        temporary = run / f"{SENTENCEPIECE_FILE}.tmp"
        train_sentencepiece(codes["text"][:], temporary, vocab_size)
        os.replace(temporary, path)
    return SentencePieceText(path)
