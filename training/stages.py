"""The commands of which the default voice's chain consists."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from cat_tts import CatTTS, SamplingOptions
from tokenizer import AudioTokenizer
from tokenizer.checkpoint import WEIGHTS
from training import payload, pieces, teacher_hibari, teacher_kokoro
from training.bundle import Bundle
from training.bundle import bundle as write_bundle
from training.codes import read_info
from training.filter_bank import has_room
from training.manifest import Clip, read_manifest, write_manifest
from training.recipes import PRESETS

OPEN_END = 10_000_000
"""Steps of a run that time ends."""
SYNTHETIC = (teacher_hibari.SOURCE, teacher_kokoro.SOURCE)
CAREFUL = 4e-4
"""The learning rate of what was calculated: at twice as much it is lost."""
REAL_SHARE = 0.3
"""Of what the tokenizer hears; synthetic voices alone would not prepare it for real prompts."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all stages need to know."""

    out: Path
    payload: Path
    device: str
    size: str
    workers: int
    save_every: int
    batch_seconds: float
    rows: int
    codec: Path | None = None
    """Folder of a tokenizer to start from."""
    tts: Path | None = None
    """Folder of a TTS model to start from."""

    @property
    def corpus(self) -> Path:
        return self.out / "corpus" / "manifest.jsonl"

    def run(self, stage: str) -> Path:
        """Folder of a training."""
        return self.out / stage

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", *(str(argument) for argument in arguments)]


def corpus(setting: Setting) -> list[str]:
    """Real speech, then synthetic until the script ends or the time is over."""
    folder = setting.payload
    human = (
        ["--human", folder / payload.SPEECH] if (folder / payload.SPEECH / "manifest.jsonl").exists() else []
    )
    hours = payload.read(folder).hours
    return setting.command(
        *("training.corpus", setting.corpus.parent, *human, "--synthetic-hours", hours),
        *("--script", folder / payload.SCRIPT, *payload.teacher_of(folder, setting.device)),
        *("--format", "wav", "--workers", setting.workers),
    )


def encoder(setting: Setting, steps: int, decay: float) -> list[str]:
    """Encoder and quantizer of the tokenizer, learning from spectra and from being read: an encoder learns
    little from a decoder that cannot speak yet. A preset with room for it begins with a filter bank."""
    bank = has_room(PRESETS[setting.size]().shape.model)
    return _tokenizer(
        setting,
        *("encoder", steps, decay, None, "--trainable", "encoder", "--weights.spectral", 10),
        *("--weights.ctc", 1, "--weights.pitch", 3, "--batches.utterances", 0.9),
        *(("--filter-bank", "--optimizer.learning-rate", CAREFUL) if bank else ()),
        *(("--init", setting.codec) if setting.codec else ()),
    )


def codec(setting: Setting, steps: int, decay: float, adversarial_from: int | None) -> list[str]:
    """The decoder for the codes that the encoder stage has fixed."""
    encoded = setting.run("encoder") / "model"
    return _tokenizer(
        setting,
        *("codec", steps, decay, adversarial_from, "--trainable", "decoder", "--batches.utterances", 0),
        *("--weights.pitch", 10),
        *("--init", encoded if encoded.exists() else setting.codec),
    )


def _tokenizer(
    setting: Setting, stage: str, steps: int, decay: float, adversarial_from: int | None, *others: object
) -> list[str]:
    """Without semantic head: in runs as short as this it costs more than it brings."""
    return setting.command(
        *("training.train_tokenizer", setting.size, "--data", codec_manifest(setting)),
        *("--run", setting.run(stage), "--steps", steps, "--adversarial-from", adversarial_from),
        *("--optimizer.decay", decay, "--weights.semantic", 0),
        *("--batches.batch-seconds", setting.batch_seconds, "--save-every", setting.save_every),
        *_hardware(setting),
        *others,
    )


def codes(setting: Setting, tokenizer: Path) -> list[str]:
    """The corpus as codes."""
    return setting.command(
        *("training.prepare", setting.run("codes"), "--manifest", setting.corpus),
        *("--tokenizer", tokenizer, "--readers", setting.workers),
    )


def tts(setting: Setting, tokenizer: Path, steps: int, decay: float) -> list[str]:
    """The TTS model, from what codes mean to their tokenizer; one utterance in twenty is kept out of its
    training, 64 at most."""
    kept_out = min(64, max(1, read_info(setting.run("codes")).clips // 20))
    return setting.command(
        *("training.train_tts", setting.size, "--codes", setting.run("codes"), "--run", setting.run("tts")),
        *("--steps", steps, "--optimizer.decay", decay, "--save-every", setting.save_every),
        *("--batches.rows", setting.rows, "--validation", kept_out, *_hardware(setting)),
        *("--tokenizer", tokenizer, "--monitor.samples-every", OPEN_END),
        *("--dropout.unheard", 0.3, "--dropout.untold", 0.1),
        *(("--init", setting.tts) if setting.tts else ()),
    )


def _hardware(setting: Setting) -> list[object]:
    if setting.device == "cpu":
        return ["--hardware.precision", "fp32", "--hardware.workers", 0]
    return ["--hardware.precision", "bf16", "--hardware.workers", setting.workers]


def codec_manifest(setting: Setting) -> Path:
    """The corpus with real speech so often that it is `REAL_SHARE` of all, at most ten times."""
    path = setting.corpus.with_name("codec.jsonl")
    if not path.exists():
        write_manifest(path, weighted(read_manifest(setting.corpus), REAL_SHARE))
    return path


def weighted(clips: list[Clip], share: float) -> list[Clip]:
    """The clips, those that are not synthetic repeated so that they fill about `share` of the time."""
    real = [clip for clip in clips if clip.source not in SYNTHETIC]
    real_seconds = sum(clip.duration for clip in real)
    others = sum(clip.duration for clip in clips) - real_seconds
    if not real or not others:
        return clips
    times = min(10, max(1, round(share / (1 - share) * others / real_seconds)))
    return clips + real * (times - 1)


def halve(stage: str, model: Path, out: Path) -> None:
    """A model's folder in half precision."""
    if stage != "tts":
        AudioTokenizer.from_pretrained(model).half().save_pretrained(out)
    else:
        tts_model, text = CatTTS.from_pretrained(model)
        tts_model.half().save_pretrained(out, text)


def brought(codec_pieces: Path, out: Path) -> Path:
    """A tokenizer that comes in pieces, in the precision that is trained in."""
    if not (out / WEIGHTS).exists():
        carried = pieces.join(codec_pieces, out.with_name(f"{out.name}-carried"))
        AudioTokenizer.from_pretrained(carried).float().save_pretrained(out)
        shutil.copytree(carried, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(WEIGHTS))
    return out


def bundle(tokenizer: Path, tts_model: Path, out: Path) -> None:
    """What `cat-tts --model` takes."""
    sampling = SamplingOptions(temperature=0.7, top_p=0.9, guidance=3.0)
    write_bundle(Bundle(out=out, tokenizer=tokenizer, tts=tts_model, sampling=sampling))
