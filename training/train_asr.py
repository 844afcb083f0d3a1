"""Train CAT-ASR on encoded speech: `python -m training.train_asr RUN --codes FOLDER`.

The shards are those of the TTS training (training.prepare). Samples are read at random depths, so that one
model transcribes codes of any depth. A run that finds its own state in RUN continues it; the batch, the
depths and the noise of a step depend on (seed, step) alone.
"""

import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, cast

import jiwer
import torch
import tyro
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from cat_tts.asr import config as presets
from cat_tts.asr.beam_search import transcribe
from cat_tts.asr.from_qwen3 import from_qwen3, is_cat_asr
from cat_tts.asr.model import CatASR
from cat_tts.model.code_embeddings import read_tables
from cat_tts.sequences.sequence_dropout import sample_depths
from cat_tts.text.phonemes import sounds
from cat_tts.text.tokenizers import SENTENCEPIECE_FILE, SentencePieceText, TextTokenizer, train_sentencepiece
from tokenizer import AudioTokenizer
from training.asr.batches import Transcribed, misheard, noisy
from training.common.distributed import descend, lower_precision, start, total_over_processes
from training.common.optimizers import optimizers
from training.common.run import StopRequest, key, log_metrics, resume_state, save_state, trapezoid
from training.data.code_shards import Codes, read_codes, read_info
from training.tts.recipes import OptimizerConfig

logger = logging.getLogger(__name__)

SHORT = 25
"""Frames with which a curriculum begins: 2 s."""
PRESETS = {"mini": presets.mini, "tiny": presets.tiny}


@dataclass(frozen=True, kw_only=True)
class ASRTraining:
    """One run. Defaults are the mini recipe; the paper's is --init Qwen/Qwen3-1.7B --learning-rate 5e-5
    --warmup 4000 --text-noise 0 --short-first 0 --steps 200000, with 1M tokens a batch."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run: state, metrics, and the model as RUN/model."""
    codes: Path
    """Folder of shards, see training.prepare."""
    preset: str = "mini"
    """Shape of the model: mini or tiny."""
    init: str | None = None
    """A Qwen3 checkpoint or a CatASR to begin with (folder or hub id); the shape is then its own."""
    tokenizer: Path | None = None
    """The AudioTokenizer that made the codes: its vectors become the first tables of codes."""
    text_pieces: int = 512
    """Size of the text vocabulary, 256 bytes among it."""
    phonemes: bool = False
    """The second head spells with phonemes of English, not with bytes: they are nearer to what is heard."""
    causal: bool = False
    """Frames see none behind them, as in the paper."""
    steps: int = 5000
    rows_per_batch: int = 768
    """Frames and text tokens of a batch, padding included."""
    max_frames: int = 120
    short_first: int = 500
    """Steps over which the longest utterance grows from 2 s to `max_frames`."""
    learning_rate: float = 2e-3
    muon: bool = False
    """For the matrices of the layers, as in the TTS training."""
    precision: Literal["no", "bf16"] = "no"
    weight_decay: float = 0.1
    warmup: int = 100
    decay: float = 0.4
    """Part of the run over which the learning rate falls to nothing."""
    clip: float = 1.0
    ema: float = 0.995
    ctc: float = 1.0
    """Weight of the second head's loss, in a shape that has one."""
    text_noise: float = 0.3
    """Part of the text tokens that the model reads wrongly, so that it has to listen."""
    frame_noise: float = 0.0
    """Part of the frames that it hears wrongly, in stretches: what is heard twice is not learnt by heart."""
    depth_dropout: float = 0.5
    """Part of the samples that are read at a random depth; the others at the full one."""
    validation: int = 64
    """Utterances kept out of the training, for the validation loss."""
    save_every: int = 500
    seed: int = 0


def train(options: ASRTraining) -> CatASR:
    """Run or resume the training; return the averaged model."""
    accelerator = start(unused=True)
    set_seed(options.seed)
    if options.preset not in PRESETS:
        raise ValueError(f"preset {options.preset!r}: choose one of {', '.join(PRESETS)}")
    codes, info = read_codes(options.codes), read_info(options.codes)
    if not 0 < options.validation < len(codes):
        raise ValueError(
            f"validation={options.validation} of {len(codes)} utterances: keep some, train on some"
        )
    options.run.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():  # the others read the text tokenizer that it makes
        model, text = _model(options, codes)
    data = Transcribed.read(codes, text, options.max_frames, model.spell)
    # The same utterances whatever the seed: a run may begin with the model of another.
    training, validation = data.split(options.validation, seed=0)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema)).to(accelerator.device)
    result = cast(CatASR, averaged.module)
    rates = OptimizerConfig(
        learning_rate=options.learning_rate, weight_decay=options.weight_decay, muon=options.muon
    )
    changing = optimizers(model, rates)
    if options.precision == "bf16":
        lower_precision(model, accelerator.device)
    model, *changing = accelerator.prepare(model, *changing)
    accelerator.register_for_checkpointing(averaged)
    first = resume_state(accelerator, options.run)

    progress = tqdm(
        range(first, options.steps),
        total=options.steps,
        initial=first,
        disable=not accelerator.is_main_process,
    )
    with StopRequest() as stop, progress:
        for step in progress:
            draw = torch.Generator().manual_seed(key(options.seed, step, accelerator.process_index))
            longest = _longest(options, step)
            batch = training.batch(draw, options.rows_per_batch, longest)
            given = noisy(batch.text, options.text_noise, text.vocab_size, draw)
            batch = replace(batch, codes=misheard(batch.codes, options.frame_noise, draw))
            depth = sample_depths(len(batch.codes), info.num_codebooks, options.depth_dropout, draw)
            batch, device = batch.to(accelerator.device), accelerator.device
            loss = model(
                batch.codes, batch.frames, batch.text, depth.to(device), given.to(device), batch.spelt
            )
            total = loss.text + options.ctc * loss.ctc
            if not total.isfinite():
                raise FloatingPointError(f"step {step}: the loss is {total.item()}; lower the learning rate")
            factor = trapezoid(step, steps=options.steps, warmup=options.warmup, decay=options.decay)
            accelerator.backward(total)
            norm = descend(changing, options.learning_rate * factor, options.clip)
            averaged.update_parameters(accelerator.unwrap_model(model))

            progress.set_postfix(text=f"{loss.text.item():.3f}", ctc=f"{loss.ctc.item():.3f}")
            done = step + 1
            stopping = total_over_processes(accelerator, int(stop.asked)) > 0
            if done % 25 == 0 and accelerator.is_main_process:
                losses = {"train/loss/text": loss.text.item(), "train/loss/ctc": loss.ctc.item()}
                log_metrics(options.run, {"step": done, **losses, "train/grad_norm": float(norm)})
            if done % options.save_every == 0 or done == options.steps or stopping:
                if accelerator.is_main_process:
                    result.eval().save_pretrained(options.run / "model", text)
                    log_metrics(options.run, {"step": done, **validate(result, text, validation)})
                save_state(accelerator, options.run, done)
            if stopping:
                logger.warning("asked to stop: saved at step %d", done)
                break
    return result.eval()


@torch.no_grad()
def validate(model: CatASR, text: TextTokenizer, kept_out: Transcribed) -> dict[str, float]:
    """At full depth, over kept-out utterances: both losses, the text's loss with the audio of another
    utterance of like length in place of its own, and the word error rate of greedy decoding.

    A model whose loss is no worse with the wrong audio does not listen.
    """
    device, sums, counts = next(model.parameters()).device, torch.zeros(3), torch.zeros(3)
    batches = [batch.to(device) for batch in kept_out.batches(rows=2048)]
    texts, heard = [], []
    for batch in batches:
        tokens, letters = int((batch.text >= 0).sum()) + len(batch.text), int((batch.spelt >= 0).sum())
        count = torch.tensor([tokens, letters, tokens])
        depth = torch.full((len(batch.codes),), model.config.num_codebooks, device=device)
        right = model(batch.codes, batch.frames, batch.text, depth, None, batch.spelt)
        wrong = model(batch.codes.roll(1, 0), batch.frames.roll(1), batch.text, depth)
        sums += count * torch.stack([right.text, right.ctc, wrong.text]).cpu()
        counts += count
        texts += [text.decode([i for i in row if i >= 0]) for row in batch.text.tolist()]
        codes = [one[:n] for one, n in zip(batch.codes, batch.frames.tolist(), strict=True)]
        heard += [text.decode(one.ids) for one in transcribe(model, codes)]
    text_loss, ctc, mismatched = (sums / counts).tolist()
    return {
        "validation/loss/text": text_loss,
        "validation/loss/ctc": ctc,
        "validation/loss/mismatched": mismatched,
        "validation/wer": float(
            jiwer.wer([_words(text) for text in texts], [_words(text) for text in heard])
        ),
    }


def _words(text: str) -> str:
    """Lower case without punctuation: a coarse measure for the log, see eval.asr for the real one."""
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())


def _longest(options: ASRTraining, step: int) -> int:
    """The curriculum: frames of the longest utterance of a step."""
    grown = SHORT + (options.max_frames - SHORT) * step / max(1, options.short_first)
    return options.max_frames if step >= options.short_first else min(options.max_frames, int(grown))


def _model(options: ASRTraining, codes: Codes) -> tuple[CatASR, TextTokenizer]:
    """What the run begins with: a trained model, or a preset with a text tokenizer of its own."""
    info = read_info(options.codes)
    if options.init is not None and is_cat_asr(options.init):
        model, text = CatASR.from_pretrained(options.init)
        if (model.config.num_codebooks, model.config.codebook_size) != (
            info.num_codebooks,
            info.codebook_size,
        ):
            raise ValueError(f"{options.init} reads other codes than those of {options.codes}")
    elif options.init is not None:
        model, text = from_qwen3(options.init, info.num_codebooks, info.codebook_size)
    else:
        text = _text_tokenizer(options.run, codes, options.text_pieces)
        shape = PRESETS[options.preset]()
        model = CatASR(
            replace(
                shape,
                bidirectional=shape.bidirectional and not options.causal,
                num_codebooks=info.num_codebooks,
                codebook_size=info.codebook_size,
                text_vocab_size=text.vocab_size,
                phonemes=_sounds(codes) if options.phonemes else (),
            )
        )
    if options.tokenizer is not None:
        read_tables(model.code_embeddings, AudioTokenizer.from_pretrained(options.tokenizer).quantizer)
    return model, text


def _sounds(codes: Codes) -> tuple[str, ...]:
    return tuple(sorted({one for text in codes["text"] for one in sounds(text)}))


def _text_tokenizer(run: Path, codes: Codes, vocab_size: int) -> SentencePieceText:
    """The run's own SentencePiece model, trained on all texts of the corpus by the first call."""
    path = run / SENTENCEPIECE_FILE
    if not path.exists():
        temporary = run / f"{SENTENCEPIECE_FILE}.tmp"
        train_sentencepiece(codes["text"][:], temporary, vocab_size)
        os.replace(temporary, path)
    return SentencePieceText(path)


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    train(tyro.cli(ASRTraining, args=argv, description=__doc__))


if __name__ == "__main__":
    main()
