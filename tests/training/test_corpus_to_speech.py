"""The whole way of twenty VoxBox utterances, by the commands that a user types: from archives to speech."""

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from inference import Synthesizer
from inference.engine.options import UNWATCHED, SynthesisOptions
from tests.helpers.command import clone_command
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.helpers.voxbox import Planted, index_of
from tokenizer import AudioTokenizer, load_audio
from tokenizer.io.audio import AI_GENERATED
from training import bundle, corpora, prepare, train_tts
from training.data.code_shards import read_codes
from training.data.manifest import read_manifest


@pytest.fixture
def sounds(imported: dict[str, tuple[Path, Planted]], tmp_path: Path) -> Path:
    """What the archives hold, unpacked by other means than ours."""
    for archive in (imported["tar"][0].parent / "audios").rglob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
            tar.extractall(tmp_path / "sounds")
    return tmp_path / "sounds"


@pytest.mark.usefixtures("datasets_cache")
def test_twenty_utterances_become_a_model_that_speaks_at_two_depths(
    imported: dict[str, tuple[Path, Planted]],
    sounds: Path,
    codec: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root, planted = imported["tar"][0].parent, imported["tar"][1]
    everything, clean, report = (tmp_path / name for name in ("all.jsonl", "clean.jsonl", "report.json"))
    assert corpora.main(["import", "voxbox", str(root), "-o", str(everything)]) == 0
    assert corpora.main(["validate", str(everything), "--clean", str(clean), "--report", str(report)]) == 1
    found = json.loads(report.read_text())["faults"]
    assert {fault["fault"]: Path(fault["clip"]).stem for fault in found} == planted.faults
    clips = read_manifest(clean)
    assert sorted(map(index_of, clips)) == sorted(planted.usable)

    codes = tmp_path / "codes"
    prepare.main([str(codes), "--manifest", str(clean), "--tokenizer", str(codec), "--clips-per-shard", "5"])
    rows, tokenizer = read_codes(codes), AudioTokenizer.from_pretrained(codec)
    assert len(rows) == len(clips) == 13 and len(list(codes.glob("*.parquet"))) > 2
    for clip, row in zip(clips, rows, strict=True):
        name = index_of(clip)
        assert (row["text"], row["speaker"]) == (planted.texts[name], planted.speakers.get(name, ""))
        expected = tokenizer.encode(load_audio(sounds / str(clip.member))[None])[0]
        assert torch.equal(torch.tensor(row["codes"]), expected.short())

    run, whole = tmp_path / "run", tmp_path / "whole"
    training = ["tiny", "--codes", str(codes), "--validation", "2", "--run"]
    train_tts.main([*training, str(whole)])
    with terminated_at(3):
        train_tts.main([*training, str(run)])
    assert json.loads((run / "state" / "step.json").read_text()) == {"step": 3}
    weights = Path("model") / "model.safetensors"
    assert (run / weights).read_bytes() != (whole / weights).read_bytes()
    train_tts.main([*training, str(run)])
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()
    assert_equal(saved_state(run), saved_state(whole))
    *steps, end = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]  # it did go on, and not begin again
    assert end["validation/loss/codes"] < 0.96 * math.log(33)  # of 32 codes and the pad code

    made, clip = tmp_path / "made", next(clip for clip in clips if clip.language == "en")
    bundle.main([str(made), "--tokenizer", str(codec), "--tts", str(run / "model")])
    voice, words, text = sounds / str(clip.member), str(clip.text), "seven boats are in the garden"
    usual = {"model": made, "device": "cpu", "prompt_text": words, "text": text, "max_seconds": 0.8}
    clone, synthesizer = clone_command(usual, voice, capfd), Synthesizer.from_pretrained(made, device="cpu")
    for depth in (2, 6):
        path = tmp_path / f"{depth}.wav"
        result = clone(depth=depth, output=path, retries=0)
        assert result.code == 0 and f"depth {depth} of 6, " in result.out, result.err
        with soundfile.SoundFile(path) as file:
            assert (file.format, file.samplerate, file.channels) == ("WAV", 24_000, 1)
            assert file.comment == AI_GENERATED
            written = file.read(dtype="float32")
        take = synthesizer.synthesize(
            text,
            synthesizer.load_voice(voice, words),
            SynthesisOptions(depth=depth, max_seconds=0.8, policy=UNWATCHED),
        )
        assert take.codes.shape[1] == depth and len(written) == 1920 * len(take.codes) > 0
        assert np.abs(written - take.audio).max() <= 2**-15 < np.abs(written).max()
