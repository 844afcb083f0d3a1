"""A trained model whose deep tables and heads begin anew with what codes mean."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from cat_tts.model.code_embeddings import reinit_codebooks
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tests.training.test_train_tts import options
from tokenizer import AudioTokenizer
from training.train_tts import train

pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.fixture(scope="module")
def start(codes: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tts") / "run"
    train(options(run, codes, steps=2, optimizer={"ema": 0.0}))
    return run / "model"


def test_held_tables_stay_and_everything_else_is_trained(
    codes: Path, codec: Path, start: Path, tmp_path: Path
) -> None:
    made = options(
        tmp_path,
        codes,
        init=str(start),
        tokenizer=str(codec),
        reinit_codebooks_from=3,
        optimizer={"ema": 0.0},
    )
    model = train(replace(made, monitor=replace(made.monitor, samples_every=1000)))
    wanted, _ = CatTTS.from_pretrained(start)
    quantizer = AudioTokenizer.from_pretrained(codec, "decoder").quantizer
    reinit_codebooks(wanted.code_embeddings, wanted.depth.code_heads, quantizer, 3)
    begun = dict(wanted.named_parameters())
    held = {name for name, weight in model.named_parameters() if torch.equal(weight, begun[name])}
    assert held == {f"code_embeddings.{k}.weight" for k in range(6)}


def test_a_terminated_run_continues_as_if_nothing_had_been(
    codes: Path, codec: Path, start: Path, tmp_path: Path
) -> None:
    changes = {
        "init": str(start),
        "tokenizer": str(codec),
        "reinit_codebooks_from": 2,
        "monitor": {"samples_every": 99},
    }
    train(options(tmp_path / "whole", codes, **changes))
    with terminated_at(4):
        train(options(tmp_path / "halted", codes, **changes))
    train(options(tmp_path / "halted", codes, **changes))
    assert_equal(saved_state(tmp_path / "halted"), saved_state(tmp_path / "whole"))
    with pytest.raises(ValueError, match="reinit_codebooks_from is 2, not 3"):
        train(options(tmp_path / "whole", codes, **{**changes, "reinit_codebooks_from": 3}))


def test_code_embeddings_of_a_random_model_are_exact_and_not_trained(
    codes: Path, codec: Path, tmp_path: Path
) -> None:
    first, later = (
        train(
            options(
                tmp_path / str(steps),
                codes,
                steps=steps,
                tokenizer=str(codec),
                reinit_codebooks_from=1,
                optimizer={"ema": 0.0},
                monitor={"samples_every": 99},
            )
        )
        for steps in (1, 3)
    )
    for table, other in zip(first.code_embeddings, later.code_embeddings, strict=True):
        assert torch.equal(table.weight, other.weight)
    assert not torch.equal(first.text_embedding.weight, later.text_embedding.weight)


def test_a_tokenizer_is_required(codes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name it, with --tokenizer"):
        options(tmp_path, codes, init="somewhere", reinit_codebooks_from=2)
