import json
from pathlib import Path

import pytest
import torch
from interruption import Crash, assert_equal, crashing_at, saved_state, terminated_at

from tokenizer import AudioTokenizer
from tokenizer.config import tiny
from training.crops import RandomCrops
from training.losses import MultiScaleMelLoss
from training.manifest import read_manifest
from training.tokenizer import TokenizerTraining, train


def options(run: Path, manifest: Path, **changes) -> TokenizerTraining:
    """A short run of the tiny preset, fast enough to learn something."""
    quick = {
        "steps": 6,
        "batch_size": 2,
        "crop_seconds": 0.16,
        "warmup": 2,
        "learning_rate": 5e-3,
        "ema": 0.5,
    }
    return TokenizerTraining(run=run, manifest=manifest, preset="tiny", **{**quick, "ema": 0.5, **changes})


def mel_loss(model: AudioTokenizer, manifest: Path) -> float:
    """Of 16 crops that training does not see, at full depth."""
    crops = RandomCrops(read_manifest(manifest), 7680, 24_000, seed=99, items=16)
    audio = torch.stack([crops[i] for i in range(16)])
    with torch.no_grad():
        return MultiScaleMelLoss(24_000)(model(audio).audio, audio).item()


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tokenizer") / "run"
    train(options(run, corpus))
    return run


def test_twenty_steps_cut_the_mel_loss_by_two_fifths(corpus: Path, tmp_path: Path) -> None:
    untrained = mel_loss(AudioTokenizer(tiny()), corpus)
    model = train(options(tmp_path, corpus, steps=20, batch_size=4, crop_seconds=0.32))
    assert mel_loss(model, corpus) < 0.6 * untrained


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_terminated_run_goes_on_as_if_nothing_had_been(
    corpus: Path, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    with terminated_at(step):
        train(options(tmp_path, corpus))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": step}
    train(options(tmp_path, corpus))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (
        uninterrupted / "model" / "model.safetensors"
    ).read_bytes()


def test_a_crashed_run_goes_on_from_its_last_save(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    with crashing_at(5), pytest.raises(Crash):
        train(options(tmp_path, corpus, save_every=2))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 4}
    train(options(tmp_path, corpus, save_every=2))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))


def test_a_finished_run_stays_as_it_is(corpus: Path, tmp_path: Path) -> None:
    first = train(options(tmp_path, corpus, steps=2))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = train(options(tmp_path, corpus, steps=2))
    assert_equal(again.state_dict(), first.state_dict())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written


def test_the_model_is_the_average_of_the_weights(corpus: Path, tmp_path: Path) -> None:
    with terminated_at(1):
        first = train(options(tmp_path, corpus, steps=2, ema=0.75)).state_dict()
    result = train(options(tmp_path, corpus, steps=2, ema=0.75))
    state = saved_state(tmp_path)
    average = {name: 0.75 * first[name] + 0.25 * weight for name, weight in state["weights"].items()}
    torch.testing.assert_close(result.state_dict(), average)
    kept = {name.removeprefix("module."): value for name, value in state["average"].items()}
    assert kept.pop("n_averaged") == 2
    assert_equal(kept, result.state_dict())
    assert_equal(AudioTokenizer.from_pretrained(tmp_path / "model").state_dict(), result.state_dict())


def test_without_averaging_model_and_state_hold_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    result = train(options(tmp_path, corpus, steps=2, ema=0.0))
    assert not result.training
    state = saved_state(tmp_path)["weights"]
    assert_equal(dict(sorted(state.items())), dict(sorted(result.state_dict().items())))


def test_metrics_name_the_losses(corpus: Path, tmp_path: Path) -> None:
    train(options(tmp_path, corpus, steps=25, batch_size=1, crop_seconds=0.08))
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    metrics = json.loads(line)
    losses = ["train/loss/mel", "train/loss/commitment", "train/loss/codebook"]
    assert list(metrics) == ["step", *losses, "train/grad_norm"]
    assert metrics["step"] == 25 and all(metrics[name] > 0 for name in losses)


def test_the_learning_rate_follows_the_trapezoid(corpus: Path, tmp_path: Path) -> None:
    rates = []
    for step in (1, 2, 3, 4):
        with terminated_at(step - len(rates)):
            train(options(tmp_path, corpus, steps=4, warmup=2, decay=0.5, learning_rate=1e-3))
        rates.append(saved_state(tmp_path)["optimizer"]["param_groups"][0]["lr"])
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


def test_every_sample_uses_a_prefix_of_the_codebooks_drawn_anew(
    corpus: Path, codec: Path, tmp_path: Path
) -> None:
    before = AudioTokenizer.from_pretrained(codec).quantizer.layers
    depths = []
    for seed in range(8):
        changes = {"steps": 1, "batch_size": 1, "weight_decay": 0.0, "init": codec, "seed": seed}
        after = train(options(tmp_path / str(seed), corpus, **changes)).quantizer.layers
        pairs = zip(before, after, strict=True)
        trained = [not torch.equal(a.codebook.weight, b.codebook.weight) for a, b in pairs]
        depths.append(sum(trained))
        assert trained == [k < depths[-1] for k in range(6)]
    assert len(set(depths)) >= 4


def test_init_is_where_a_run_starts(corpus: Path, codec: Path, tmp_path: Path) -> None:
    model = train(options(tmp_path, corpus, steps=1, learning_rate=0.0, init=codec, seed=1))
    assert_equal(model.state_dict(), AudioTokenizer.from_pretrained(codec).state_dict())


def test_decoder_only_keeps_the_meaning_of_codes(corpus: Path, codec: Path, tmp_path: Path) -> None:
    before = AudioTokenizer.from_pretrained(codec).state_dict()
    after = train(options(tmp_path, corpus, steps=3, init=codec, decoder_only=True)).state_dict()
    for name, weight in before.items():
        assert torch.equal(after[name], weight) != name.startswith("decoder."), name
    audio = torch.randn(1, 7680)
    reloaded = AudioTokenizer.from_pretrained(tmp_path / "model")
    assert torch.equal(reloaded.encode(audio), AudioTokenizer.from_pretrained(codec).encode(audio))


def test_another_seed_is_another_run(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other = train(options(tmp_path, corpus, seed=1, init=uninterrupted / "model", steps=1)).state_dict()
    same = train(options(tmp_path / "0", corpus, seed=0, init=uninterrupted / "model", steps=1)).state_dict()
    assert not torch.equal(other["decoder.0.layers.0.qkv.weight"], same["decoder.0.layers.0.qkv.weight"])


def test_an_unknown_preset_is_refused_before_anything_is_written(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset 'huge': choose one of paper, mini, tiny"):
        train(TokenizerTraining(run=tmp_path / "run", manifest=corpus, preset="huge"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan; lower the learning rate"):
        train(options(tmp_path, corpus, learning_rate=1e30, warmup=0))
    assert not (tmp_path / "state").exists()
