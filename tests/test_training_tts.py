import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from interruption import Crash, assert_equal, crashing_at, saved_state, terminated_at

from cat_tts import CatTTS
from training.codes import read_codes, read_info, write_shard
from training.tts import TTSTraining, train

pytestmark = pytest.mark.usefixtures("datasets_cache")


def options(run: Path, codes: Path, **changes) -> TTSTraining:
    """A short run of the tiny preset, fast enough to learn something."""
    quick = {"steps": 6, "rows_per_batch": 200, "validation": 8, "learning_rate": 1e-2, "warmup": 2}
    return TTSTraining(run=run, codes=codes, preset="tiny", **{**quick, "ema": 0.5, **changes})


def untrained(model: CatTTS, seed: int = 0) -> CatTTS:
    """The weights with which the run of `model` began."""
    torch.manual_seed(seed)
    return CatTTS(model.config)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def trained_heads(model: CatTTS) -> list[bool]:
    pairs = zip(untrained(model).depth.code_heads, model.depth.code_heads, strict=True)
    return [not torch.equal(before.weight, after.weight) for before, after in pairs]


@pytest.fixture(scope="module")
def uninterrupted(codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tts") / "run"
    train(options(run, codes))
    return run


def test_forty_steps_cut_the_losses_on_what_was_kept_out(codes: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, steps=40, rows_per_batch=400))
    logged, validated = metrics(tmp_path)
    assert validated["step"] == 40
    assert validated["validation/loss/codes"] < 0.75 * math.log(33)  # of 32 codes and the pad code
    assert validated["validation/loss/decision"] < 0.4 * math.log(2)
    assert logged["step"] == 25
    assert logged["train/loss/codes"] < 0.9 * math.log(33)


def test_metrics_are_numbers_by_codebook(codes: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, steps=25, dropout=0.0, max_depth=2))
    logged, validated = metrics(tmp_path)
    losses = ["train/loss/codes", "train/loss/decision"]
    # codebooks that no sample of the batch kept are not there, where nan would be no JSON
    assert list(logged) == ["step", *losses, "train/layer/0", "train/layer/1", "train/grad_norm"]
    layers = [validated[f"validation/layer/{k}"] for k in range(6)]
    assert sum(layers) / 6 == pytest.approx(validated["validation/loss/codes"])
    assert max(layers[:2]) < min(layers[2:])  # the untrained ones


@pytest.mark.parametrize("step", [1, 4])
def test_a_terminated_run_goes_on_as_if_nothing_had_been(
    codes: Path, uninterrupted: Path, tmp_path: Path, step: int
) -> None:
    with terminated_at(step):
        train(options(tmp_path, codes))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": step}
    train(options(tmp_path, codes))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))
    for name in ("model.safetensors", "config.json", "text.model"):
        assert (tmp_path / "model" / name).read_bytes() == (uninterrupted / "model" / name).read_bytes()
    assert metrics(tmp_path)[-1] == metrics(uninterrupted)[-1]


def test_a_crashed_run_goes_on_from_its_last_save(codes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    with crashing_at(6), pytest.raises(Crash):
        train(options(tmp_path, codes, save_every=2))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 4}
    train(options(tmp_path, codes, save_every=2))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))


def test_the_saved_model_is_the_returned_one(codes: Path, tmp_path: Path) -> None:
    trained = train(options(tmp_path, codes, steps=2, ema=0.0))
    loaded, text = CatTTS.from_pretrained(tmp_path / "model")
    assert loaded.config == trained.config and not trained.training
    assert (loaded.config.num_codebooks, loaded.config.codebook_size) == (6, 32)
    assert_equal(loaded.state_dict(), trained.state_dict())
    weights = saved_state(tmp_path)["weights"]  # ema=0: the average is the last step's weights
    assert_equal(dict(sorted(weights.items())), dict(sorted(trained.state_dict().items())))
    assert text.vocab_size == loaded.config.text_vocab_size == 300
    assert text.decode(text.encode("Amber brook.")) == "amber brook."


def test_the_model_is_the_average_of_the_weights(codes: Path, tmp_path: Path) -> None:
    with terminated_at(1):
        first = train(options(tmp_path, codes, steps=2, ema=0.75)).state_dict()
    result = train(options(tmp_path, codes, steps=2, ema=0.75)).state_dict()
    state = saved_state(tmp_path)
    average = {name: 0.75 * first[name] + 0.25 * weight for name, weight in state["weights"].items()}
    torch.testing.assert_close(result, average)
    assert_equal(CatTTS.from_pretrained(tmp_path / "model")[0].state_dict(), result)


def test_the_learning_rate_follows_the_trapezoid_and_gains_do_not_decay(codes: Path, tmp_path: Path) -> None:
    rates = []
    for step in (1, 2, 3, 4):
        with terminated_at(step - len(rates)):
            train(options(tmp_path, codes, steps=4, warmup=2, decay=0.5, learning_rate=1e-3))
        groups = saved_state(tmp_path)["optimizer"]["param_groups"]
        assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
        rates.append(groups[1]["lr"])
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


@pytest.mark.parametrize(
    ("dropout", "reach_last", "max_depth", "heads"),
    [
        (1.0, True, None, 6),
        (1.0, False, None, 5),
        (0.0, False, None, 6),
        (1.0, True, 2, 2),
        (0.0, True, 4, 4),
    ],
)
def test_progressive_sequence_dropout_decides_what_is_trained(
    codes: Path, tmp_path: Path, dropout: float, reach_last: bool, max_depth: int | None, heads: int
) -> None:
    chosen = {"dropout": dropout, "reach_last": reach_last, "max_depth": max_depth}
    model = train(options(tmp_path, codes, **chosen))
    assert trained_heads(model) == [k < heads for k in range(6)]


def test_a_curriculum_goes_on_with_all_codebooks(codes: Path, tmp_path: Path) -> None:
    with terminated_at(3):
        first = train(options(tmp_path, codes, max_depth=2))
    assert sum(trained_heads(first)) == 2
    assert all(trained_heads(train(options(tmp_path, codes))))


@pytest.mark.parametrize("pair", [0.0, 1.0])
def test_what_is_kept_out_is_never_read(codes: Path, tmp_path: Path, pair: float) -> None:
    texts = read_codes(codes)["text"][:20]
    rows = [  # utterance i has the code i only
        {"text": text, "speaker": "a", "language": "en", "source": "b", "frames": 8, "codes": [[i] * 6] * 8}
        for i, text in enumerate(texts)
    ]
    marked = tmp_path / "codes"
    marked.mkdir()
    info = replace(read_info(codes), clips=20, num_shards=1)
    (marked / "codes.json").write_text(json.dumps(asdict(info)))
    write_shard(marked / info.shards[0], rows, info)

    model = train(options(tmp_path / "run", marked, steps=12, pair=pair, validation=5, weight_decay=0.0))
    before, after = (one.code_embeddings[0].weight[:20] for one in (untrained(model), model))
    unread = (before == after).all(1)
    assert int(unread.sum()) == 5
    assert int((before == after).any(1).sum()) == 5


def test_another_seed_is_another_run(codes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, seed=1))
    mine, theirs = (saved_state(run)["weights"] for run in (tmp_path, uninterrupted))
    assert not torch.equal(mine["text_embedding.weight"], theirs["text_embedding.weight"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"preset": "huge"}, "preset 'huge': choose one of mini, tiny"),
        ({"validation": 0}, "validation=0 of 48 utterances"),
        ({"validation": 48}, "validation=48 of 48 utterances"),
        ({"max_depth": 0}, "max_depth=0 but the codes have 6 codebooks"),
        ({"max_depth": 7}, "max_depth=7 but the codes have 6 codebooks"),
    ],
)
def test_bad_options_are_refused_at_the_door(
    codes: Path, tmp_path: Path, changes: dict, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        train(replace(options(tmp_path / "run", codes), **changes))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run(codes: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan; lower the learning rate"):
        train(options(tmp_path, codes, learning_rate=1e30, warmup=0))
    assert not (tmp_path / "state").exists()
