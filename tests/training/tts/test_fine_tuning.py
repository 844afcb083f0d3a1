"""The TTS training from a model that exists: what it takes, adapters, and samples that can be heard."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cat_tts import CatTTS
from tests.helpers.interruption import assert_equal, saved_state, terminated_at
from tokenizer import AudioTokenizer, load_audio
from training.train_tts import train
from training.tts.lora import LoraOptions, add_adapter
from training.tts.recipes import TTSMonitorConfig, TTSOptimizerConfig, TTSTraining, tiny

pytestmark = pytest.mark.usefixtures("datasets_cache")
LORA = LoraOptions(rank=4, dropout=0.1, depth=True)


def options(run: Path, codes: Path, base: Path, **changes) -> TTSTraining:
    return replace(tiny(), run=run, codes=codes, init=str(base / "tts"), **{"steps": 3, **changes})


@pytest.fixture(scope="module")
def adapted(
    codes: Path, bundle: Path, datasets_cache: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("lora") / "run"
    train(options(run, codes, bundle, lora=LORA))
    return run


def test_a_terminated_lora_run_continues_as_if_nothing_had_been(
    codes: Path, bundle: Path, adapted: Path, tmp_path: Path
) -> None:
    with terminated_at(2):
        train(options(tmp_path, codes, bundle, lora=LORA))
    assert json.loads((tmp_path / "state" / "step.json").read_text()) == {"step": 2}
    train(options(tmp_path, codes, bundle, lora=LORA))
    assert_equal(saved_state(tmp_path), saved_state(adapted))
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors", "model/text.model"):
        assert (tmp_path / name).read_bytes() == (adapted / name).read_bytes()


def test_the_model_of_a_lora_run_is_its_base_and_its_adapter(bundle: Path, adapted: Path) -> None:
    base = CatTTS.from_pretrained(bundle / "tts")[0]
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    assert_equal(add_adapter(base, adapted / "adapter").state_dict(), model(adapted).state_dict())
    changed = {
        name for name, weight in model(adapted).state_dict().items() if not torch.equal(weight, before[name])
    }
    assert len(changed) == 2 * 2 * 7  # the linear layers of two temporal and two depth layers
    weights = saved_state(adapted)["weights"]
    frozen = {name: weight for name, weight in weights.items() if "lora_" not in name}
    plain = {name.replace(".base_layer", ""): weight for name, weight in frozen.items()}
    assert_equal(dict(sorted(plain.items())), dict(sorted(before.items())))
    assert len(weights) - len(frozen) == 2 * len(changed)
    config = json.loads((adapted / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(bundle / "tts")


def test_all_weights_begin_where_the_given_model_stands(codes: Path, bundle: Path, tmp_path: Path) -> None:
    still = TTSOptimizerConfig(learning_rate=0.0)
    found = train(options(tmp_path, codes, bundle, steps=1, optimizer=still))
    assert_equal(found.state_dict(), CatTTS.from_pretrained(bundle / "tts")[0].state_dict())
    assert (tmp_path / "model" / "text.model").read_bytes() == (bundle / "tts" / "text.model").read_bytes()
    assert not (tmp_path / "adapter").exists()


def test_samples_are_spoken_in_the_midst_of_it(codes: Path, codec: Path, tmp_path: Path) -> None:
    monitor = TTSMonitorConfig(every=2, samples_every=2, tensorboard=True)
    train(replace(tiny(), run=tmp_path, codes=codes, steps=4, tokenizer=str(codec), monitor=monitor))
    folders = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert folders == ["step_0000000", "step_0000002", "step_0000004"]
    observed = {path.name for folder in folders[1:] for path in (tmp_path / "samples" / folder).iterdir()}
    assert observed <= {f"{i}_depth_{depth}.wav" for i in range(2) for depth in (1, 6)} and observed
    assert len(load_audio(tmp_path / "samples" / "step_0000000" / "1_prompt.wav")) % 1920 == 0


def test_another_tokenizer_is_refused_before_anything_is_written(
    codes: Path, codec: Path, tmp_path: Path
) -> None:
    other = AudioTokenizer.from_pretrained(codec)
    with torch.no_grad():
        other.quantizer.layers[0].codebook.weight[0, 0] += 1
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="give the one that made them"):
        train(replace(tiny(), run=tmp_path / "run", codes=codes, tokenizer=str(tmp_path / "other")))
    assert not (tmp_path / "run").exists()


def test_adapters_need_a_model_and_runs_keep_theirs(
    codes: Path, bundle: Path, adapted: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"lora\.rank=4 adapts a trained model: name it with --init"):
        replace(tiny(), run=tmp_path, codes=codes, lora=LORA)
    with pytest.raises(ValueError, match=r"other settings: lora\.rank is 4, not 8"):
        train(options(adapted, codes, bundle, lora=replace(LORA, rank=8)))


def model(run: Path) -> CatTTS:
    return CatTTS.from_pretrained(run / "model")[0]
