from dataclasses import replace
from pathlib import Path

import pytest
import torch
import tyro

from cat_tts import CatTTS
from cat_tts import config as tts_models
from tokenizer import AudioTokenizer
from tokenizer import config as tokenizers
from training.audio_tokenizer import recipes
from training.audio_tokenizer.recipes import PRESETS, TokenizerTraining


def parsed(*arguments: str) -> TokenizerTraining:
    presets = {name: (name, preset()) for name, preset in PRESETS.items()}
    return tyro.extras.overridable_config_cli(presets, args=list(arguments))


@pytest.mark.parametrize(("hidden", "millions"), [(256, 319), (384, 505), (512, 710), (768, 1169)])
def test_the_scaling_family_has_the_sizes_of_figure_5(hidden: int, millions: int) -> None:
    recipe = PRESETS[f"scaled-{hidden}"]()
    with torch.device("meta"):
        model = AudioTokenizer(recipe.shape.model)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def test_the_parts_of_every_preset_fit_together() -> None:
    for preset in PRESETS.values():
        recipe = preset()
        assert recipe.shape.semantic.latent_dim == recipe.shape.model.code_dim
        assert recipe.adversarial_from is not None and 0 < recipe.adversarial_from < recipe.steps


def test_the_small_models_fit_into_the_repository() -> None:
    """About 120 MB of weights in half precision, no file beyond 95 MB."""
    with torch.device("meta"):
        models = [AudioTokenizer(tokenizers.small()), CatTTS(tts_models.small())]
    sizes = [2 * sum(weight.numel() for weight in model.parameters()) for model in models]
    assert sum(sizes) < 121e6 and max(sizes) < 70e6
    (codec, tts) = (model.config for model in models)
    assert (codec.num_codebooks, codec.codebook_size) == (tts.num_codebooks, tts.codebook_size)


def test_the_paper_recipe_has_the_papers_numbers() -> None:
    recipe = recipes.paper()
    assert (recipe.steps, recipe.adversarial_from) == (1_020_000, 520_000)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (1e-4, 0.01)
    weights = recipe.weights
    assert (weights.semantic, weights.mel, weights.commitment) == (20, 15, 0.25)
    assert (weights.codebook, weights.adversarial, weights.feature) == (1, 1, 2)


def test_everything_but_the_shape_can_be_overridden() -> None:
    changed = parsed("mini", "--data", "m.jsonl", "--weights.semantic", "0", "--adversarial-from", "None")
    mini = recipes.mini()
    weights = replace(mini.weights, semantic=0)
    assert changed == replace(mini, data=Path("m.jsonl"), weights=weights, adversarial_from=None)
    with pytest.raises(SystemExit):
        parsed("mini", "--data", "m.jsonl", "--shape.model.code-dim", "3")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"steps": 0}, "steps=0"),
        ({"save_every": 0}, "save_every=0"),
        ({"trainable": "partial", "adversarial_from": None}, "partial freezes from adversarial_from on"),
        ({"trainable": "encoder"}, "trainable=encoder makes no audio"),
        ({"trainable": "encoder", "adversarial_from": None}, "weights.spectral to learn from"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(recipes.tiny(), **changes)
