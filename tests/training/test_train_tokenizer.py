import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.helpers.interruption import Crash, assert_equal, crashing_at, saved_state, terminated_at
from tokenizer import AudioTokenizer
from tokenizer.config import tiny as tiny_tokenizer
from tokenizer.discriminators import DiscriminatorConfig, Discriminators
from training.audio_tokenizer.batches import TokenizerBatchConfig, TokenizerBatches
from training.audio_tokenizer.heads.semantic import SemanticHead
from training.audio_tokenizer.losses import MultiScaleMelLoss
from training.audio_tokenizer.recipes import TokenizerTraining, tiny
from training.data.manifest import read_manifest, write_manifest
from training.train_tokenizer import main, train

BOTH = {"adversarial_from": 3}  # of six steps, and text in about every second of all
ALONE = {"adversarial_from": None, "weights": {"semantic": 0.0}}
PARTS = ("weights", "optimizer", "average")


def options(run: Path, data: Path, **changes) -> TokenizerTraining:
    """A short run; a dict of changes changes the fields of that part."""
    quick = {"batches": {"batch_seconds": 0.32}, "mel_windows": (128, 1024)}
    small = DiscriminatorConfig(periods=(5,), period_channels=(4, 4), windows=(256,), band_channels=2)
    made = replace(tiny(), run=run, data=data, shape=replace(tiny().shape, discriminators=small))
    for name, value in {**quick, **changes}.items():
        part = replace(getattr(made, name), **value) if isinstance(value, dict) else value
        made = replace(made, **{name: part})
    return made


def both(run: Path, data: Path, **changes) -> TokenizerTraining:
    """All losses, and a third of the batches crops."""
    return options(run, data, **BOTH, batches={"batch_seconds": 1.6, "utterances": 0.67}, **changes)


def mel_loss(model: AudioTokenizer, manifest: Path) -> float:
    """Of 16 crops that training does not see, at full depth."""
    config = TokenizerBatchConfig(batch_seconds=5.12, crop_seconds=0.32)
    audio = TokenizerBatches(read_manifest(manifest), config, model.config, None, seed=99, steps=1)[0].audio
    with torch.no_grad():
        return MultiScaleMelLoss(24_000)(model(audio).audio, audio).item()


def metrics(run: Path) -> list[dict[str, float]]:
    """Without how fast it was."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if "per_second" not in name} for line in lines]


def assert_same_run(run: Path, other: Path) -> None:
    assert_equal(saved_state(run), saved_state(other))
    for name in ("model", "model/semantic", "model/discriminators"):
        one, two = (folder / name / "model.safetensors" for folder in (run, other))
        assert one.read_bytes() == two.read_bytes()
    assert metrics(run) == metrics(other)


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tokenizer") / "run"
    train(both(run, corpus))
    return run


def test_twenty_steps_cut_the_mel_loss_by_two_fifths(corpus: Path, tmp_path: Path) -> None:
    untrained = mel_loss(AudioTokenizer(tiny_tokenizer()), corpus)
    batches = {"batch_seconds": 1.28, "crop_seconds": 0.32}
    model = train(options(tmp_path, corpus, steps=20, batches=batches, **ALONE))
    assert mel_loss(model, corpus) < 0.6 * untrained


def test_thirty_steps_on_one_batch_cut_every_loss(corpus: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path / "one.jsonl", sorted(read_manifest(corpus), key=lambda clip: clip.duration)[:1])
    batches = {"batch_seconds": 1.12, "utterances": 1.0, "gain": 0.0}
    train(options(tmp_path / "run", tmp_path / "one.jsonl", steps=30, adversarial_from=0, batches=batches))
    lines = metrics(tmp_path / "run")
    first, last = lines[0], lines[-1]
    assert last["train/loss/mel"] < 0.7 * first["train/loss/mel"]
    assert last["train/loss/semantic"] < 0.7 * first["train/loss/semantic"]
    assert last["train/loss/discriminator"] < 0.9 * first["train/loss/discriminator"]


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_terminated_run_continues_as_if_nothing_had_been(
    corpus: Path, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    # from step 4 on, each has two updates: the fifth ends within the sixth update
    with terminated_at(step if step <= 3 else 2 * step - 3):
        train(both(tmp_path, corpus))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": step}
    train(both(tmp_path, corpus))
    assert_same_run(tmp_path, uninterrupted)


def test_a_crashed_run_continues_from_its_last_save(
    corpus: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    with crashing_at(8), pytest.raises(Crash):
        train(both(tmp_path, corpus, save_every=3))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 3}
    assert metrics(tmp_path)[-1]["step"] == 5
    train(both(tmp_path, corpus, save_every=3))
    assert_same_run(tmp_path, uninterrupted)


def test_a_finished_run_stays_as_it_is(corpus: Path, tmp_path: Path) -> None:
    first = train(options(tmp_path, corpus, steps=2))
    assert not (tmp_path / "model" / "discriminators").exists(), "there are no discriminators yet"
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix != ".json"}
    again = train(options(tmp_path, corpus, steps=2))
    assert_equal(again.state_dict(), first.state_dict())
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_the_model_is_the_average_of_the_weights(corpus: Path, tmp_path: Path) -> None:
    changes = {**ALONE, "steps": 2, "optimizer": {"ema": 0.75}}
    with terminated_at(1):
        first = train(options(tmp_path, corpus, **changes)).state_dict()
    result = train(options(tmp_path, corpus, **changes)).state_dict()
    state = saved_state(tmp_path)
    weights = {name.removeprefix("tokenizer."): value for name, value in state["weights"].items()}
    average = {name: 0.75 * first[name] + 0.25 * weight for name, weight in weights.items()}
    torch.testing.assert_close(dict(result), average)
    kept = {n.removeprefix("tokenizer."): value for n, value in state["average"]["weights"].items()}
    assert state["average"]["updates"] == 2
    assert_equal(kept, dict(result))
    assert_equal(AudioTokenizer.from_pretrained(tmp_path / "model").state_dict(), result)


def test_without_averaging_model_and_state_hold_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    result = train(options(tmp_path, corpus, steps=2, optimizer={"ema": 0.0}, **ALONE))
    assert not result.training
    state = {name.removeprefix("tokenizer."): w for name, w in saved_state(tmp_path)["weights"].items()}
    assert_equal(dict(sorted(state.items())), dict(sorted(result.state_dict().items())))


def test_the_discriminators_are_handed_out(uninterrupted: Path) -> None:
    unwrapped_discriminators = Discriminators.from_pretrained(uninterrupted / "model" / "discriminators")
    kept = saved_state(uninterrupted)["discriminators"]
    assert_equal(dict(sorted(unwrapped_discriminators.state_dict().items())), dict(sorted(kept.items())))


def test_metrics_name_the_losses_of_each_stage(uninterrupted: Path) -> None:
    lines = metrics(uninterrupted)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        named = {name.removeprefix("train/loss/") for name in line if name.startswith("train/loss/")}
        adversarial = {"adversarial", "feature", "discriminator"} if line["step"] > 3 else set()
        assert named - {"semantic"} == {"mel", "commitment", "codebook"} | adversarial
        assert line["train/skipped"] == 0 and line["train/grad_norm"] > 0
        assert ("train/latent_gradient/mel" in line) == (line["step"] % 2 == 0)
        for k in range(6):
            assert 1 <= line[f"train/perplexity/{k}"] <= 32 * line[f"train/usage/{k}"]
    spoken = [line for line in lines if "train/loss/semantic" in line]
    assert 1 < len(spoken) < 6
    for line in spoken:
        assert ("train/latent_gradient/semantic" in line) == (line["step"] % 2 == 0)


def test_the_learning_rates_follow_the_schedule(corpus: Path, tmp_path: Path) -> None:
    rates = {"warmup": 2, "decay": 0.5, "learning_rate": 1e-3, "discriminator_learning_rate": 4e-3}
    train(options(tmp_path, corpus, steps=4, adversarial_from=1, optimizer=rates, weights={"semantic": 0.0}))
    lines = metrics(tmp_path)
    assert [line["train/lr"] for line in lines] == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    observed = [line.get("train/discriminator_lr") for line in lines]
    assert observed[0] is None and observed[1:] == pytest.approx([2e-3, 4e-3, 2e-3])


def test_every_item_uses_a_prefix_of_the_codebooks_drawn_again(
    corpus: Path, codec: Path, tmp_path: Path
) -> None:
    before = AudioTokenizer.from_pretrained(codec).quantizer.layers
    depths = []
    for seed in range(8):
        changes = {**ALONE, "steps": 1, "init": codec, "seed": seed, "optimizer": {"weight_decay": 0.0}}
        batches = {"batch_seconds": 0.16}
        after = train(options(tmp_path / str(seed), corpus, batches=batches, **changes)).quantizer.layers
        pairs = zip(before, after, strict=True)
        trained = [not torch.equal(a.codebook.weight, b.codebook.weight) for a, b in pairs]
        depths.append(sum(trained))
        assert trained == [k < depths[-1] for k in range(6)]
    assert len(set(depths)) >= 4


def test_init_is_where_a_run_starts(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    folder = uninterrupted / "model"
    model = train(options(tmp_path, corpus, steps=1, init=folder, seed=1, optimizer={"learning_rate": 0.0}))
    assert_equal(model.state_dict(), AudioTokenizer.from_pretrained(folder).state_dict())
    heads = [SemanticHead.from_pretrained(one / "semantic") for one in (folder, tmp_path / "model")]
    assert_equal(heads[0].state_dict(), heads[1].state_dict())


@pytest.mark.parametrize(("trainable", "kept"), [("decoder", 0), ("partial", 2)])
def test_frozen_parts_keep_the_meaning_of_codes(
    corpus: Path, codec: Path, tmp_path: Path, trainable: str, kept: int
) -> None:
    changes = {"init": codec, "trainable": trainable, "adversarial_from": 2, "optimizer": {"ema": 0.0}}
    before = AudioTokenizer.from_pretrained(codec).state_dict()
    if kept:
        with terminated_at(kept):
            before = train(options(tmp_path, corpus, **changes)).state_dict()
    before = {name: weight.clone() for name, weight in before.items()}
    after = train(options(tmp_path, corpus, **changes)).state_dict()
    for name, weight in before.items():
        assert torch.equal(after[name], weight) != name.startswith("decoder."), name


def test_a_partial_run_trains_everything_before(corpus: Path, codec: Path, tmp_path: Path) -> None:
    changes = {"init": codec, "trainable": "partial", "adversarial_from": 2, "steps": 2}
    before = AudioTokenizer.from_pretrained(codec).state_dict()
    after = train(options(tmp_path, corpus, **changes)).state_dict()
    assert not torch.equal(after["encoder.0.layers.0.qkv.weight"], before["encoder.0.layers.0.qkv.weight"])


@pytest.mark.parametrize("hardware", [{"checkpointing": True}, {"workers": 1}])
def test_how_it_is_computed_changes_nothing(
    corpus: Path, uninterrupted: Path, tmp_path: Path, hardware: dict
) -> None:
    train(both(tmp_path, corpus, hardware=hardware))
    assert_same_run(tmp_path, uninterrupted)


def test_bf16_learns_too(corpus: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    reset = partial(AcceleratorState._reset_state, reset_partial_state=True)  # it holds one precision
    reset()
    request.addfinalizer(reset)
    model = train(both(tmp_path, corpus, hardware={"precision": "bf16"}))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    lines = metrics(tmp_path)
    assert lines[-1]["train/loss/mel"] < lines[0]["train/loss/mel"]


def test_another_seed_is_another_run(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    changes = {"init": uninterrupted / "model", "steps": 1, **ALONE}
    other = train(options(tmp_path / "1", corpus, seed=1, **changes)).state_dict()
    same = train(options(tmp_path / "0", corpus, seed=0, **changes)).state_dict()
    assert not torch.equal(other["decoder.0.layers.0.qkv.weight"], same["decoder.0.layers.0.qkv.weight"])


def test_clips_kept_out_are_scored_and_samples_written(corpus: Path, tmp_path: Path) -> None:
    monitor = {"validation": corpus, "validation_clips": 3, "samples_every": 2, "every": 100}
    train(options(tmp_path, corpus, steps=2, monitor=monitor))
    (line,) = metrics(tmp_path)
    assert line["step"] == 2 and 0 < line["validation/loss/mel"] < 20
    assert 4 < line["validation/loss/semantic"] < 7  # of 257 bytes, ln(257) = 5.5 untrained
    names = {path.name for path in (tmp_path / "samples" / "step_0000002").iterdir()}
    assert names == {f"{i}_depth_{depth}.wav" for i in (0, 1) for depth in (1, 2, 6)}


def test_a_loss_that_is_no_number_ends_the_run(corpus: Path, tmp_path: Path) -> None:
    wild = {"learning_rate": 1e30, "warmup": 0}
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan; lower the learning rate"):
        train(options(tmp_path, corpus, optimizer=wild, **ALONE))
    assert not (tmp_path / "state").exists()


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    written = capsys.readouterr().err.strip()
    (line,) = written.splitlines()
    assert line.startswith("error: ")
    return line


def test_mistakes_end_with_one_line(
    corpus: Path, codec: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    lacking, textless = tmp_path / "lacking.jsonl", tmp_path / "textless.jsonl"
    lacking.write_text('{"audio": "x.wav", "text": "a"}\n')
    write_manifest(textless, [replace(clip, text=None) for clip in read_manifest(corpus)])
    for arguments, complaint in (
        (["tiny", "--data", lacking, "--run", run], "lacking.jsonl:1 lacks duration, speaker"),
        (["tiny", "--data", tmp_path / "none.jsonl", "--run", run], "none.jsonl"),
        (["tiny", "--data", textless, "--run", run], "no clip has a text"),
        (["tiny", "--data", corpus, "--run", run, "--init", tmp_path], "config.json: missing"),
        (["mini", "--data", corpus, "--run", uninterrupted], "encoder.0.patch_size is 240, not 480"),
        (["tiny", "--data", corpus, "--run", uninterrupted, "--seed", 1], "seed is 0, not 1"),
    ):
        assert complaint in refused(capsys, *arguments)
    assert not run.exists()


def test_some_broken_files_are_counted(corpus: Path, tmp_path: Path) -> None:
    clips = read_manifest(corpus)
    broken = replace(clips[0], audio=tmp_path / "0.flac", duration=4.0)
    write_manifest(tmp_path / "most.jsonl", [*clips, broken])
    train(options(tmp_path / "run", tmp_path / "most.jsonl", batches={"batch_seconds": 1.28}, **ALONE))
    counts = [line["train/skipped"] for line in metrics(tmp_path / "run")]
    assert counts == sorted(counts) and 0 < counts[-1] <= 10
