import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from corpus import WORDS, write_corpus

from inference.cli import main as cat_tts
from tokenizer import AudioTokenizer, load_audio
from training.default_voice import main
from training.payload import make
from training.pieces import PIECE_BYTES, join


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A minute of chords for real speech, and lines for another of synthetic speech."""
    draw = np.random.default_rng(0)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(" ".join(draw.choice(WORDS.split(), 7)) for _ in range(60)))
    human = write_corpus(tmp_path / "human").parent
    make(tmp_path / "payload", hours=0.02, kokoro=None, human=[human], texts=texts)
    return tmp_path / "payload"


@pytest.mark.slow
def test_a_short_rebuild_is_killed_goes_on_and_speaks(
    payload: Path, prompt_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [str(out), "--payload", str(payload), "--budget-seconds", "240", "--size", "tiny"]
    arguments += ["--workers", "1", "--batch-seconds", "8", "--rows", "256", "--save-every", "20"]
    shares = {"corpus": 0.1, "encoder": 0.15, "codec": 0.2, "codes": 0.1, "tts": 0.45}
    arguments += [word for stage, part in shares.items() for word in (f"--share-{stage}", str(part))]
    command = [sys.executable, "-m", "training.default_voice", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while not (out / "encoder" / "state").exists():
        assert process.poll() is None
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stopped = subprocess.run(
        [*command, "--command-seconds", "45"], capture_output=True, text=True, check=True
    )
    assert "the same command goes on from here" in stopped.stdout and not (out / "bundle").exists()

    main(arguments)
    progress = json.loads((out / "bundle" / "made.json").read_text())
    assert {*shares, "encoder/landing", "codec/landing", "tts/landing"} <= set(progress["done"])
    assert sum(progress["spent"][stage] for stage in shares) < 1.5 * 240
    for stage in ("encoder", "codec", "tts"):
        pieces = list((out / "pieces" / stage).iterdir())
        assert pieces and max(piece.stat().st_size for piece in pieces) <= PIECE_BYTES
    carried = AudioTokenizer.from_pretrained(join(out / "pieces" / "codec", tmp_path / "carried"))
    assert carried.config == AudioTokenizer.from_pretrained(out / "bundle" / "tokenizer").config
    encoded = AudioTokenizer.from_pretrained(out / "encoder" / "model").state_dict()
    for name, weight in AudioTokenizer.from_pretrained(out / "bundle" / "tokenizer").state_dict().items():
        assert name.startswith("decoder") or weight.equal(encoded[name].half().float())  # fixed before

    speech = tmp_path / "speech.wav"
    spoken = ["clone", str(prompt_file), "--prompt-text", "Amber brook.", "--text", "Cedar delta ember."]
    cat_tts([*spoken, "--model", str(out / "bundle"), "-o", str(speech), "--device", "cpu"])
    assert len(load_audio(speech)) > 0


def test_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = [str(tmp_path / "out"), "--payload", str(tmp_path), "--budget-seconds", "10"]
    with pytest.raises(SystemExit):
        main(usual)
    assert "holds no payload.json: make a payload" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*usual, "--share-tts", "0"])
    assert "give each of corpus, encoder, codec, codes, tts more than 0" in capsys.readouterr().err
    with (tmp_path / "out" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            main(usual)
    assert "another command is at work" in capsys.readouterr().err
