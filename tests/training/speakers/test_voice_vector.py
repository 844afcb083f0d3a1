import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cat_tts.speakers.voice_vector import VoiceVectorEncoder
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from training.data.code_shards import INFO, CodesInfo, write_shard
from training.speakers.clips import SpeakerClips
from training.speakers.teacher_embeddings import read_embeddings, write_embeddings
from training.speakers.voice_vector import VoiceVectorTraining, main, train, with_margin

pytestmark = pytest.mark.usefixtures("datasets_cache")

CODEBOOKS, SIZE = 6, 32


def write_voices(folder: Path, speakers: Sequence[int], clips: int, seed: int) -> Path:
    """Codes of speakers who each prefer some codes of the last codebooks; the others hold the text."""
    draw = np.random.default_rng(seed)
    rows = []
    for speaker in speakers:
        preferred = np.random.default_rng(speaker).permutation(SIZE)[:6]
        for _ in range(clips):
            codes = draw.integers(SIZE, size=(int(draw.integers(12, 30)), CODEBOOKS))
            codes[:, 3:] = draw.choice(preferred, codes[:, 3:].shape)
            row = {"text": "a", "speaker": f"s{speaker}", "language": "en", "source": "here"}
            rows.append({**row, "frames": len(codes), "codes": codes.astype(np.int16)})
    info = CodesInfo(
        num_codebooks=CODEBOOKS,
        codebook_size=SIZE,
        frame_rate=12.5,
        tokenizer_sha256="",
        clips_sha256="",
        clips=len(rows),
        clips_per_shard=len(rows),
        num_shards=1,
    )
    folder.mkdir(parents=True)
    write_shard(folder / info.shards[0], rows, info)
    (folder / INFO).write_text(json.dumps(vars(info)))
    return folder


@pytest.fixture(scope="module")
def voices(datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Codes of sixty speakers and of six others, and embeddings of the sixty."""
    folder = tmp_path_factory.mktemp("voices")
    draw = np.random.default_rng(0)
    write_embeddings(folder / "teacher.npz", {f"s{i}": draw.normal(size=5) for i in range(60)})
    codes = write_voices(folder / "codes", range(60), 3, 0)
    return codes, write_voices(folder / "kept_out", range(90, 96), 4, 1), folder / "teacher.npz"


def options(run: Path, voices: tuple[Path, Path, Path], **changes) -> VoiceVectorTraining:
    """A short run of the tiny preset."""
    codes, kept_out, teacher = voices
    quick = {
        "steps": 4,
        "clips": 10,
        "min_frames": 10,
        "max_frames": 20,
        "learning_rate": 1e-2,
        "warmup": 2,
        "ema": 0.5,
    }
    paths = {"codes": codes, "validation": kept_out, "teacher": teacher, "preset": "tiny"}
    return VoiceVectorTraining(run=run, **{**paths, **quick, **changes})


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_to_verify_speakers_who_are_not_in_the_training(
    voices: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    train(options(tmp_path, voices, steps=1, learning_rate=1e-9))
    before = metrics(tmp_path)[-1]["validation/eer"]
    train(
        options(tmp_path / "trained", voices, steps=150, clips=20, ema=0.9, depth_dropout=0.2, save_every=150)
    )
    logged = metrics(tmp_path / "trained")
    assert list(logged[0]) == ["step", "train/loss/speakers", "train/loss/teacher", "train/grad_norm"]
    assert logged[-2]["train/loss/teacher"] < logged[0]["train/loss/teacher"] < 1.2
    after = logged[-1]
    assert after["validation/eer"] < 0.15 < before
    assert after["validation/same"] > after["validation/different"] + 0.3


def test_a_terminated_run_continues_as_if_nothing_had_been(
    voices: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    train(options(tmp_path / "whole", voices))
    with terminated_at(2):
        train(options(tmp_path / "parts", voices))
    assert json.loads((tmp_path / "parts" / "state" / "step.json").read_text()) == {"step": 2}
    result = train(options(tmp_path / "parts", voices))
    assert_equal(saved_state(tmp_path / "parts"), saved_state(tmp_path / "whole"))
    assert_equal(
        result.state_dict(), VoiceVectorEncoder.from_pretrained(tmp_path / "whole" / "model").state_dict()
    )
    assert result.config.num_codebooks == CODEBOOKS and result.config.codebook_size == SIZE


def test_without_a_teacher(voices: tuple[Path, Path, Path], tmp_path: Path) -> None:
    train(options(tmp_path, voices, teacher=None, validation=None, steps=1))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_margin_by_hand() -> None:
    cosines = torch.tensor([[math.cos(1.0), 0.3], [0.4, -1.0]])
    rotated = with_margin(cosines, torch.tensor([0, 1]), 0.2)
    assert rotated[0].tolist() == pytest.approx([math.cos(1.2), 0.3])
    assert rotated[1].tolist() == pytest.approx([0.4, -1.0], abs=1e-5)


def test_batches_are_of_different_speakers() -> None:
    codes = [np.full((length, 2), length, np.int16) for length in (3, 9, 5, 7)]
    clips = SpeakerClips(codes, ["b", "a", "b", ""])
    assert clips.speakers == ["a", "b"] and clips.by_speaker == [[1], [0, 2]]
    batch = clips.batch(torch.Generator().manual_seed(0), 5, max_frames=4)
    assert sorted(batch.speaker.tolist()) == [0, 1]
    for row, frames, speaker in zip(batch.codes, batch.frames.tolist(), batch.speaker.tolist(), strict=True):
        length = int(row[0, 0])
        assert length == 9 if speaker == 0 else length in (3, 5)
        assert frames == min(length, 4) and int(row[frames:].sum()) == 0
    with pytest.raises(ValueError, match="name 1 speakers"):
        SpeakerClips(codes, ["a", "a", "", ""])


def test_embeddings_are_read_in_the_order_of_the_names(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "d.npz", {"x": np.array([3.0, 4.0]), "y": np.array([0.0, 2.0])})
    found = read_embeddings(tmp_path / "d.npz", ["y", "x"])
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [0.6, 0.8]]))
    with pytest.raises(ValueError, match="lacks 1 of 2 speakers, z the first"):
        read_embeddings(tmp_path / "d.npz", ["x", "z"])


@pytest.mark.parametrize(("changed", "message"), [({"preset": "large"}, "choose one of mini, tiny")])
def test_bad_options(
    voices: tuple[Path, Path, Path], tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(options(tmp_path, voices, **changed))


def test_a_mistake_is_one_line(
    voices: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--codes", str(voices[0]), "--preset", "large"])
    assert ended.value.code == 2
    assert "error: preset 'large': choose one of mini, tiny" in capsys.readouterr().err
