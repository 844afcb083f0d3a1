import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tokenizer import AudioTokenizer, load_audio
from tokenizer.config import tiny
from training.audio_tokenizer.batches import TokenizerBatch
from training.audio_tokenizer.losses import LossWeights, MultiScaleMelLoss
from training.audio_tokenizer.monitor import TokenizerMonitor, codebook_usage, gradient_norms
from training.data.manifest import read_manifest, write_manifest
from training.train_tokenizer import main


def batch(frames: list[int], failures: list[str] | None = None) -> TokenizerBatch:
    items = len(frames)
    return TokenizerBatch(
        audio=torch.zeros(items, 1920 * max(frames)),
        frames=torch.tensor(frames),
        depth=torch.ones(items, dtype=torch.int64),
        tasks=torch.zeros(items, dtype=torch.int64),
        texts=[[]] * items,
        decoder_inputs=[[]] * items,
        failures=failures or [],
    )


def codes(*rows: list[int]) -> Tensor:
    """The same codes in all six codebooks."""
    return torch.tensor(rows)[..., None].expand(-1, -1, 6)


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_perplexity_and_usage_by_hand() -> None:
    used = torch.tensor([[5, 5, 0, 0], [1, 1, 2, 0], [7, 0, 0, 0], [0, 0, 0, 0]])
    perplexities, usages = zip(*codebook_usage(used), strict=True)
    assert perplexities == pytest.approx([2.0, 2 * math.sqrt(2), 1.0, 0.0])
    assert usages == (0.5, 0.75, 0.25, 0.0)


def test_a_line_holds_the_means_since_the_last_one(tmp_path: Path) -> None:
    monitor = TokenizerMonitor(tmp_path, tiny())
    monitor.add({"train/loss/mel": 1.0}, batch([2, 1], ["a"]), codes([3, 4], [3, 9]))
    monitor.add({"train/loss/mel": 2.0, "train/loss/semantic": 5.0}, batch([1]), codes([4]))
    monitor.log(Accelerator(), 2)
    monitor.add({"train/loss/mel": 7.0}, batch([1], ["b"]), codes([0]))
    monitor.log(Accelerator(), 3)
    first, second = lines(tmp_path)
    assert (first["step"], first["train/loss/mel"], first["train/loss/semantic"]) == (2, 1.5, 5.0)
    assert first["train/perplexity/0"] == pytest.approx(2.0)  # 3, 4, 3, 4; the 9 is padding
    assert first["train/usage/5"] == 2 / 32
    assert first["train/audio_seconds_per_second"] > 0
    assert (second["train/loss/mel"], second["train/perplexity/0"]) == (7.0, pytest.approx(1.0))
    assert "train/loss/semantic" not in second
    assert (first["train/skipped"], second["train/skipped"]) == (1, 2)


def test_a_restored_monitor_writes_the_same_line(tmp_path: Path) -> None:
    one, other = TokenizerMonitor(tmp_path / "one", tiny()), TokenizerMonitor(tmp_path / "other", tiny())
    one.add({"train/loss/mel": 1.0}, batch([2]), codes([3, 4]))
    torch.save(one.state_dict(), tmp_path / "state")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for monitor in (one, other):
        monitor.run.mkdir()
        monitor.add({"train/loss/mel": 4.0}, batch([1], ["a"]), codes([4]))
        monitor.log(Accelerator(), 2)
    (first,), (second,) = lines(tmp_path / "one"), lines(tmp_path / "other")
    for line in (first, second):
        line.pop("train/audio_seconds_per_second")
    assert first == second


def test_too_many_failures_end_the_run(tmp_path: Path) -> None:
    monitor = TokenizerMonitor(tmp_path, tiny())
    for _ in range(10):
        monitor.add({}, batch([1], ["x.flac: no such file"]), codes([0]))
    with pytest.raises(ValueError, match=r"11 of 22 files .* cannot be read; repair or remove .*x\.flac"):
        monitor.add({}, batch([1], ["x.flac: no such file"]), codes([0]))


def test_gradient_norms_by_hand() -> None:
    latents = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    losses = {"semantic": latents.sum(), "mel": latents.square().sum() / 2, "codebook": latents.sum()}
    norms = gradient_norms(losses, LossWeights(semantic=2.0, mel=10.0), latents)
    assert norms == {
        "train/latent_gradient/semantic": pytest.approx(2 * math.sqrt(2)),
        "train/latent_gradient/mel": pytest.approx(50.0),
    }


def test_samples_are_what_the_tokenizer_makes_of_the_clips(corpus: Path, codec: Path, tmp_path: Path) -> None:
    monitor, model = TokenizerMonitor(tmp_path, tiny()), AudioTokenizer.from_pretrained(codec)
    clips = read_manifest(corpus)[:1]
    monitor.sample(7, model, clips, MultiScaleMelLoss(24_000, (64,)))
    audio = load_audio(clips[0].audio)
    folder = tmp_path / "samples"
    torch.testing.assert_close(
        load_audio(folder / "step_0000000" / "0_original.wav"), audio, atol=1e-4, rtol=0
    )
    for depth in (1, 2, 6):
        rebuilt = model.decode(model.encode(audio[None], depth))[0, : len(audio)].clamp(-1, 1)
        observed = load_audio(folder / "step_0000007" / f"0_depth_{depth}.wav")
        torch.testing.assert_close(observed, rebuilt, atol=1e-4, rtol=0)


def test_tensorboard_has_numbers_sounds_and_pictures(corpus: Path, codec: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = TokenizerMonitor(tmp_path, tiny())
    monitor.open_tensorboard(0)
    monitor.write(3, {"train/loss/mel": 1.5})
    clips, mel = read_manifest(corpus)[:1], MultiScaleMelLoss(24_000, (64,))
    monitor.sample(3, AudioTokenizer.from_pretrained(codec), clips, mel)
    assert monitor.writer is not None
    monitor.writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("train/loss/mel")
    assert (scalar.step, scalar.value) == (3, 1.5)
    assert {"0_original", "0_depth_1", "0_depth_6"} <= set(events.Tags()["audio"]) & set(
        events.Tags()["images"]
    )


def test_too_many_broken_files_end_the_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clips = read_manifest(corpus)
    broken = [replace(clip, audio=tmp_path / f"{i}.flac") for i, clip in enumerate(clips[:24])]
    write_manifest(tmp_path / "half.jsonl", [*broken, *clips[24:]])
    arguments = ["tiny", "--data", tmp_path / "half.jsonl", "--run", tmp_path / "run", "--steps", 100]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in [*arguments, "--weights.semantic", 0]])
    assert ended.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        "error: " in line and "files that were drawn cannot be read" in line and ".flac: no such file" in line
    )
