import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.model.code_embeddings import init_code_embeddings
from tests.helpers.interruption import Crash, assert_equal, crashing_at, saved_state, terminated_at
from tokenizer import AudioTokenizer
from training.data.code_shards import read_codes, read_info, write_shard
from training.train_tts import main, train
from training.tts.recipes import TTSTraining, tiny
from training.tts.setup import starting_model

pytestmark = pytest.mark.usefixtures("datasets_cache")


def options(run: Path, codes: Path, **changes) -> TTSTraining:
    """A short run of the tiny preset; a dict of changes changes the fields of that part."""
    made = replace(tiny(), run=run, codes=codes)
    for name, value in changes.items():
        value = replace(getattr(made, name), **value) if isinstance(value, dict) else value
        made = replace(made, **{name: value})
    return made


def untrained(model: CatTTS, seed: int = 0) -> CatTTS:
    """The weights with which the run of `model` began."""
    torch.manual_seed(seed)
    return CatTTS(model.config)


def metrics(run: Path) -> list[dict[str, float]]:
    """Without how fast it was."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in line if "per_second" not in name} for line in lines]


def trained_heads(model: CatTTS) -> list[bool]:
    pairs = zip(untrained(model).depth.code_heads, model.depth.code_heads, strict=True)
    return [not torch.equal(before.weight, after.weight) for before, after in pairs]


@pytest.fixture(scope="module")
def uninterrupted(codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tts") / "run"
    train(options(run, codes))
    return run


def test_random_weights_begin_with_what_codes_mean(codes: Path, codec: Path, tmp_path: Path) -> None:
    made = options(tmp_path, codes, tokenizer=str(codec))
    spoken = AudioTokenizer.from_pretrained(codec, "decoder")
    model, _ = starting_model(made, read_codes(codes), read_info(codes), spoken)
    wanted = CatTTS(model.config)
    init_code_embeddings(wanted.code_embeddings, spoken.quantizer)
    for found, table in zip(model.code_embeddings, wanted.code_embeddings, strict=True):
        assert torch.equal(found.weight, table.weight)
    assert model.depth.code_heads[0].weight[:32].std() > 3 * model.depth.code_heads[0].weight[32:].std()
    assert model.text_embedding.weight.std().item() == pytest.approx(0.3, rel=0.05)


def test_forty_steps_cut_the_losses_on_what_was_kept_out(codes: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, steps=40, batches={"rows": 400}, monitor={"every": 40}))
    logged, validated = metrics(tmp_path)
    assert validated["step"] == 40
    assert validated["validation/loss/codes"] < 0.9 * math.log(33)  # of 32 codes and the pad code
    assert validated["validation/loss/decision"] < 0.4 * math.log(2)
    assert logged["step"] == 40
    assert logged["train/loss/codes"] < 0.95 * math.log(33)


def test_metrics_are_numbers_by_codebook(codes: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, steps=25, dropout={"p": 0.0, "max_depth": 2}, monitor={"every": 25}))
    logged, validated = metrics(tmp_path)
    losses = ["train/loss/codes", "train/loss/decision", "train/layer/0", "train/layer/1"]
    # codebooks that no sample of the steps kept are not there, where nan would be no JSON
    assert list(logged) == ["step", *losses, "train/lr", "train/grad_norm"]
    layers = [validated[f"validation/layer/{k}"] for k in range(6)]
    assert sum(layers) / 6 == pytest.approx(validated["validation/loss/codes"])
    assert max(layers[:2]) < min(layers[2:])  # the untrained ones


@pytest.mark.parametrize("step", [1, 4])
def test_a_terminated_run_continues_as_if_nothing_had_been(
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


def test_a_crashed_run_continues_from_its_last_save(codes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    with crashing_at(6), pytest.raises(Crash):
        train(options(tmp_path, codes, save_every=2))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 4}
    train(options(tmp_path, codes, save_every=2))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))


def test_the_saved_model_is_the_returned_one(codes: Path, tmp_path: Path) -> None:
    trained = train(options(tmp_path, codes, steps=2, optimizer={"ema": 0.0}))
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
        first = train(options(tmp_path, codes, steps=2, optimizer={"ema": 0.75})).state_dict()
    result = train(options(tmp_path, codes, steps=2, optimizer={"ema": 0.75})).state_dict()
    state = saved_state(tmp_path)
    average = {name: 0.75 * first[name] + 0.25 * weight for name, weight in state["weights"].items()}
    torch.testing.assert_close(result, average)
    assert_equal(CatTTS.from_pretrained(tmp_path / "model")[0].state_dict(), result)


def test_the_learning_rate_follows_the_schedule_and_gains_do_not_decay(codes: Path, tmp_path: Path) -> None:
    rates = []
    for step in (1, 2, 3, 4):
        with terminated_at(step - len(rates)):
            train(options(tmp_path, codes, steps=4, optimizer={"decay": 0.5, "learning_rate": 1e-3}))
        groups = saved_state(tmp_path)["optimizer"]["param_groups"]
        assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
        rates.append(groups[1]["lr"])
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


@pytest.mark.parametrize(
    ("dropout", "heads"),
    [
        ({}, 6),
        ({"highest": 5}, 5),
        ({"p": 0.0, "highest": 5}, 6),
        ({"lowest": 3, "highest": 3}, 3),
        ({"max_depth": 2}, 2),
        ({"p": 0.0, "max_depth": 4, "deep_part": 0.25}, 4),
    ],
)
def test_progressive_sequence_dropout_decides_what_is_trained(
    codes: Path, tmp_path: Path, dropout: dict, heads: int
) -> None:
    model = train(options(tmp_path, codes, dropout=dropout))
    assert trained_heads(model) == [k < heads for k in range(6)]


def test_a_curriculum_continues_with_all_codebooks(codes: Path, tmp_path: Path) -> None:
    with terminated_at(3):
        first = train(options(tmp_path, codes, dropout={"max_depth": 2}))
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

    parts = {"batches": {"pair": pair}, "validation": 5, "optimizer": {"weight_decay": 0.0}}
    model = train(options(tmp_path / "run", marked, steps=12, **parts))
    before, after = (one.code_embeddings[0].weight[:20] for one in (untrained(model), model))
    unread = (before == after).all(1)
    assert int(unread.sum()) == 5
    assert int((before == after).any(1).sum()) == 5


def test_another_seed_is_another_run(codes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, seed=1))
    mine, theirs = (saved_state(run)["weights"] for run in (tmp_path, uninterrupted))
    assert not torch.equal(mine["text_embedding.weight"], theirs["text_embedding.weight"])


def test_mistakes_end_with_one_line(
    codes: Path, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    for where, arguments, complaint in (
        (tmp_path, [], f"{tmp_path} holds no codes.json"),
        (codes, ["--validation", 0], "validation=0 of 48 utterances"),
        (codes, ["--validation", 48], "validation=48 of 48 utterances"),
        (codes, ["--dropout.max-depth", 0], "max_depth=0 but the codes have 6 codebooks"),
        (codes, ["--dropout.max-depth", 7], "max_depth=7 but the codes have 6 codebooks"),
        (codes, ["--dropout.p", 1.5], "p=1.5 is no probability"),
        (codes, ["--dropout.highest", 7], "depths from 1 to 7: give a range within 1 .. 6"),
        (codes, ["--batches.max-frames", 3], "no utterance has at most 3 frames"),
        (codes, ["--run", uninterrupted, "--seed", 1], "seed is 0, not 1"),
        (codes, ["--run", uninterrupted, "--batches.rows", 100], "batches.rows is 200, not 100"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(part) for part in ["tiny", "--codes", where, "--run", run, *arguments]])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and complaint in line
    assert not run.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"save_every": 0},
        {"dropout": {"deep_part": 0.0}},
        {"dropout": {"speaker_dropout": 1.0}},
        {"batches": {"pair": 2.0}},
        {"batches": {"rows": 0}},
        {"monitor": {"every": 0}},
    ],
)
def test_impossible_numbers_are_refused(codes: Path, tmp_path: Path, changes: dict) -> None:
    name = str(next(iter(changes.values()))).strip("{}").split("'")[1:2] or list(changes)
    with pytest.raises(ValueError, match=f"{name[0]}=.*: give "):
        options(tmp_path, codes, **changes)


def test_a_loss_that_is_no_number_ends_the_run(codes: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan; lower the learning rate"):
        train(options(tmp_path, codes, optimizer={"learning_rate": 1e30, "warmup": 0}))
    assert not (tmp_path / "state").exists()
