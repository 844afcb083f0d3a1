"""Two corpora of twenty utterances in VoxBox's layouts, with faults planted."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.data.manifest import Clip

RATE = 16_000
ENGLISH = """
the old dog runs over the red stone|a small bird sings in the garden|good morning my friend|she was here in
the summer|seven boats are on their way home|he reads a book under the tree|nobody saw where the cat went|
bring the lantern and go on slowly|there is a letter on the table|winter was early this year
"""
CHINESE = """
今天我们去 他今天很好 我说他不来 大人不是我 他们今天不去 我们很好 今天大人来 不是他说 好人今天来 我去他不去
"""
"""Of so few characters that the vocabulary of a tiny model holds them."""


@dataclass(frozen=True)
class Planted:
    """What is wrong with the fixture: index by name of the fault."""

    faults: dict[str, str]
    """As `training.data.validate` names them."""
    unmeasured: str
    """Its record has no duration; nothing else is wrong with it."""
    duplicate_of: str
    speakers: dict[str, str]
    """As the manifest has to have them, by index; those that nobody knows are not there."""
    texts: dict[str, str]
    """Of all twenty, by index."""

    @property
    def usable(self) -> list[str]:
        """Without fault, in order."""
        return [index for index in self.texts if index not in self.faults.values()]


def voxbox(root: Path, layout: str = "tar") -> Planted:
    """Make `metadata/`, `speaker_ids/` and `audios/` in `root`; `layout` is tar (as published) or files.

    Corpora are vctk (English, FLAC, 24 kHz, speakers known) and casia (Chinese, WAV, 16 kHz, speakers not
    known); ten utterances each, 1.2 to 2 s long.
    """
    assert layout in ("tar", "files")
    english, chinese = [" ".join(text.split()) for text in ENGLISH.split("|")], CHINESE.split()
    texts = {f"VCTK_{i:010d}": text for i, text in enumerate(english)}
    texts |= {f"CASIA_{i:010d}": text for i, text in enumerate(chinese)}
    names = list(texts)
    faults = {
        "missing audio": names[2],
        "duration": names[3],
        "duplicate": names[7],
        "clipping": names[8],
        "broken audio": names[12],
        "no text": names[14],
        "language": names[15],
    }
    speakers = {index: f"vctk/p{225 + i % 2}" for i, index in enumerate(names[:10]) if i != 9}
    planted = Planted(faults, names[5], names[6], speakers, texts)
    for corpus, indices, suffix in (("vctk", names[:10], ".flac"), ("casia", names[10:], ".wav")):
        sounds = {index: _sound(planted, index, suffix) for index in indices}
        if corpus == "vctk":
            sounds[faults["duplicate"]] = sounds[planted.duplicate_of]
            del sounds[faults["missing audio"]]
        _store(root / "audios" / corpus, {f"{index}{suffix}": data for index, data in sounds.items()}, layout)
        lines = [json.dumps(_record(corpus, index, suffix, planted), ensure_ascii=False) for index in indices]
        _write(root / "metadata" / f"{corpus}.jsonl", ("\n".join(lines) + "\n").encode())
    known = "".join(f"{index}\t{name.partition('/')[2]}\n" for index, name in speakers.items())
    _write(root / "speaker_ids" / "vctk.tsv", known.encode())
    return planted


def index_of(clip: Clip) -> str:
    """Of a clip that was read of the fixture."""
    return Path(clip.member or clip.audio.name).stem


def _record(corpus: str, index: str, suffix: str, planted: Planted) -> dict[str, object]:
    """The keys of a published record, all 15 of them."""
    text, faults = planted.texts[index], planted.faults
    language = "zh" if corpus == "casia" else "en"
    seconds = _seconds(planted.duplicate_of if index == faults["duplicate"] else index)
    record = {
        "index": index,
        "split": "train",
        "language": "en" if index == faults["language"] else language,
        "age": "Youth-Adult",
        "gender": "female",
        "emotion": "UNKNOWN",
        "pitch": 180.626,
        "pitch_std": 0.158,
        "speed": 4.2,
        "duration": 9.5 if index == faults["duration"] else seconds,
        "speech_duration": seconds - 0.1,
        "syllable_num": len(text.split()) if language == "en" else len(text),
        "text": "" if index == faults["no text"] else text,
        "syllables": " ".join(text),
        "wav_path": f"{corpus}/{index}{suffix}",
    }
    if index == planted.unmeasured:
        del record["duration"]
    return record


def _seconds(index: str) -> float:
    return 1.2 + 0.08 * (int(index[-2:]) % 10)


def _sound(planted: Planted, index: str, suffix: str) -> bytes:
    """A buzz that rises and falls, of another pitch in every utterance."""
    if index == planted.faults["broken audio"]:
        return b"RIFF, and then nothing of a sound"
    rate = RATE if suffix == ".wav" else 24_000
    time = np.arange(round(_seconds(index) * rate)) / rate
    pitch = 100 + 7 * int(index[-2:])
    audio = 0.3 * (2 * (pitch * time % 1) - 1) * (1 + np.sin(2 * np.pi * 3 * time)) / 2
    if index == planted.faults["clipping"]:
        audio = np.clip(40 * audio, -1, 1)
    file = io.BytesIO()
    soundfile.write(file, audio, rate, format=suffix[1:].upper())
    return file.getvalue()


def _store(folder: Path, sounds: dict[str, bytes], layout: str) -> None:
    """As files, or as two tar.gz archives in which the sounds stand in another order than the records."""
    if layout == "files":
        for name, data in sounds.items():
            _write(folder / name, data)
        return
    folder.mkdir(parents=True)
    names, half = sorted(sounds), len(sounds) // 2
    for number, part in enumerate((names[half:], names[:half])):
        with tarfile.open(folder / f"{folder.name}_{number:04d}.tar.gz", "w:gz") as tar:
            for name in part:
                info = tarfile.TarInfo(f"{folder.name}/{name}")
                info.size = len(sounds[name])
                tar.addfile(info, io.BytesIO(sounds[name]))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
