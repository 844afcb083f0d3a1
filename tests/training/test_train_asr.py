import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts.asr.model import CatASR
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.helpers.qwen3 import write_qwen3
from training.asr.recipe import ASRLossWeights, ASRTraining, tiny
from training.common.settings import HardwareConfig
from training.train_asr import current_arguments, main, train

pytestmark = pytest.mark.usefixtures("datasets_cache")


def options(run: Path, codes: Path, **changes) -> ASRTraining:
    """A short run of the tiny preset."""
    batches = replace(tiny().batches, **{"rows": 200, "length_warmup": 2, **changes.pop("batches", {})})
    rates = {"learning_rate": 1e-2, "warmup": 2, "ema": 0.5, **changes.pop("optimizer", {})}
    base = replace(tiny(), batches=batches, optimizer=replace(tiny().optimizer, **rates), text_pieces=300)
    return replace(base, run=run, codes=codes, **{"steps": 4, "validation": 6, **changes})


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("asr") / "run"
    train(options(run, codes))
    return run


def test_training_cuts_the_losses_on_what_was_kept_out(codes: Path, tmp_path: Path) -> None:
    train(options(tmp_path, codes, steps=25, batches={"rows": 400}))
    logged, validated = metrics(tmp_path)
    assert list(logged) == ["step", "train/loss/text", "train/loss/ctc", "train/grad_norm"]
    assert list(validated) == [
        "step",
        *(f"validation/loss/{name}" for name in ("text", "ctc", "mismatched")),
        "validation/wer",
    ]
    assert validated["validation/loss/text"] < 5.0 < 5.7  # log 300
    assert validated["validation/wer"] > 0


def test_a_terminated_run_continues_as_if_nothing_had_been(
    codes: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    with terminated_at(3):
        train(options(tmp_path, codes))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 3}
    train(options(tmp_path, codes))
    assert_equal(saved_state(tmp_path), saved_state(uninterrupted))
    for name in ("model.safetensors", "config.json", "text.model"):
        assert (tmp_path / "model" / name).read_bytes() == (uninterrupted / "model" / name).read_bytes()
    assert metrics(tmp_path)[-1] == metrics(uninterrupted)[-1]


def test_the_saved_model_is_of_the_codes(uninterrupted: Path) -> None:
    model, text = CatASR.from_pretrained(uninterrupted / "model")
    assert (model.config.num_codebooks, model.config.codebook_size) == (6, 32)
    assert model.config.bidirectional and text.vocab_size == model.config.text_vocab_size == 300


def test_weights_of_nought_train_nothing_of_the_second_head(codes: Path, tmp_path: Path) -> None:
    rates, weights = {"weight_decay": 0.0, "ema": 0.0}, ASRLossWeights(ctc=0.0)
    model = train(options(tmp_path, codes, causal=True, steps=2, weights=weights, optimizer=rates))
    assert not model.config.bidirectional
    torch.manual_seed(0)
    before = CatASR(model.config)
    assert model.ctc is not None and before.ctc is not None
    assert_equal(model.ctc.state_dict(), before.ctc.state_dict())
    assert not torch.equal(model.text_embedding.weight, before.text_embedding.weight)


def test_the_tokenizers_vectors_are_where_the_tables_begin(codes: Path, codec: Path, tmp_path: Path) -> None:
    chosen = {"steps": 1, "optimizer": {"warmup": 1000, "ema": 0.0}}
    plain = train(options(tmp_path / "plain", codes, **chosen))
    read = train(options(tmp_path / "read", codes, tokenizer=str(codec), **chosen))
    assert read.code_embeddings[0].weight.std() > 10 * plain.code_embeddings[0].weight.std()


def test_the_mini_recipe_trains_a_second_head_on_phonemes(codes: Path, tmp_path: Path) -> None:
    recipe = {"phonemes": True, "optimizer": {"muon": True}, "batches": {"frame_noise": 0.15}}
    hardware = HardwareConfig(precision="bf16")
    model = train(options(tmp_path, codes, steps=2, hardware=hardware, **recipe))
    loaded, _ = CatASR.from_pretrained(tmp_path / "model")
    assert "n" in loaded.config.phonemes and loaded.config == model.config
    assert all(weight.dtype == torch.float32 for weight in loaded.parameters())


def test_a_run_begins_with_a_qwen3(codes: Path, tmp_path: Path) -> None:
    llm = write_qwen3(tmp_path, tied=True)
    still = {"warmup": 10**6, "ema": 0.0}
    model = train(options(tmp_path / "run", codes, init=str(tmp_path), steps=1, optimizer=still))
    assert (model.config.num_codebooks, model.config.text_vocab_size, model.ctc) == (6, 40, None)
    torch.testing.assert_close(model.llm.norm.weight, llm.model.norm.weight)
    torch.testing.assert_close(model.text_embedding.weight, llm.model.embed_tokens.weight, atol=1e-5, rtol=0)
    assert (tmp_path / "run" / "model" / "tokenizer.json").exists()


def test_a_run_begins_with_an_earlier_ones_model(codes: Path, uninterrupted: Path, tmp_path: Path) -> None:
    earlier, text = CatASR.from_pretrained(uninterrupted / "model")
    chosen = {"init": str(uninterrupted / "model"), "steps": 1, "optimizer": {"warmup": 10**6, "ema": 0.0}}
    model = train(options(tmp_path, codes, **chosen))
    assert model.config == earlier.config
    torch.testing.assert_close(model.state_dict(), earlier.state_dict(), atol=1e-5, rtol=0)
    loaded, reader = CatASR.from_pretrained(tmp_path / "model")
    assert reader.encode("amber brook") == text.encode("amber brook")
    assert loaded.config.ctc_layer == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"validation": 0}, "validation=0 of 48 utterances"),
        ({"validation": 48}, "validation=48 of 48 utterances"),
    ],
)
def test_bad_options_are_refused_at_the_door(
    codes: Path, tmp_path: Path, changes: dict, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        train(replace(options(tmp_path / "run", codes), **changes))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run(codes: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="the loss is nan; lower the learning rate"):
        train(options(tmp_path, codes, optimizer={"learning_rate": 1e30, "warmup": 0}))
    assert not (tmp_path / "state").exists()


def test_options_of_earlier_versions_still_work(
    codes: Path, uninterrupted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    old = "--preset tiny --rows-per-batch 200 --learning-rate=1e-2 --warmup 2 --ema 0.5 --short-first 2"
    same = "--precision no --no-muon --steps 4 --validation 6 --text-pieces 300"
    main([str(tmp_path / "run"), "--codes", str(codes), *old.split(), *same.split()])
    assert_equal(saved_state(tmp_path / "run"), saved_state(uninterrupted))
    warned = capfd.readouterr().err
    assert "--rows-per-batch is now --batches.rows" in warned
    assert "--no-muon is now --optimizer.no-muon" in warned
    assert current_arguments(["mini", "--run", "x"]) == ["mini", "--run", "x"]
    assert current_arguments(["x", "--steps", "3"]) == ["mini", "--run", "x", "--steps", "3"]
