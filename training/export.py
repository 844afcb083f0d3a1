"""Export a trained TTS model for other programs: `python -m training.export RUN OUT --layout published`.

RUN is a run of the TTS training, or any folder or hub id of a CAT-TTS model. The published layout is that of
MOSS-TTS-Local-Transformer v1.0, which other tools load. With `--adapter`, LoRA weights are added to those
of RUN first.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from cat_tts import CatTTS
from cat_tts.model.moss_checkpoint import config_to_published, state_to_published
from cat_tts.text.tokenizers import TextTokenizer
from tokenizer.io.checkpoint import CONFIG, INDEX, write_text
from training.tts.lora import add_adapter

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Which model to export, into which folder, in which form."""

    model: Annotated[str, tyro.conf.Positional]
    """A run, whose RUN/model is taken, or a folder or hub id of a model."""
    out: Annotated[Path, tyro.conf.Positional]
    """A folder that does not exist yet, or is empty."""
    layout: Literal["own", "published"] = "own"
    adapter: Path | None = None
    """Folder of LoRA weights, such as RUN/adapter, to be added to the model's."""
    precision: Precision | None = None
    """Data type of the stored weights; None leaves it as it is."""
    shard_size: str = "5GB"
    """Largest file of weights in the published layout."""


def export(options: Export) -> None:
    """Write the model to OUT.

    Raises:
        ValueError: OUT is not empty, or the layout cannot hold the model.
    """
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(f"{options.out} is not empty: choose another place")
    run = Path(options.model) / "model"
    model, text_tokenizer = CatTTS.from_pretrained(run if (run / CONFIG).is_file() else options.model)
    if options.adapter is not None:
        model = add_adapter(model, options.adapter)
    if options.precision is not None:
        model = model.to(getattr(torch, options.precision))
    if options.layout == "published":
        save_published(options.out, model, text_tokenizer, options.shard_size)
    else:
        model.save_pretrained(options.out, text_tokenizer)


def save_published(
    folder: Path, model: CatTTS, text_tokenizer: TextTokenizer, shard_size: str = "5GB"
) -> None:
    """Write the published layout of MOSS-TTS-Local-Transformer v1.0, its config.json last.

    Args:
        folder: where to write; weights of more than one file get an index.
        model: the model.
        text_tokenizer: the model's text tokenizer.
        shard_size: size of the largest file of weights, such as 5GB.

    Raises:
        ValueError: the layout cannot hold the model.
    """
    precision = str(next(model.parameters()).dtype).removeprefix("torch.")
    config = {**config_to_published(model.config), "dtype": precision}
    generation = {"pad_token_id": model.config.tokens.pad}
    state = state_to_published(model.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    _save_shards(folder, state, shard_size)
    text_tokenizer.save(folder)
    write_text(folder / "generation_config.json", json.dumps(generation, indent=2) + "\n")
    write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _save_shards(folder: Path, state: Mapping[str, Tensor], shard_size: str) -> None:
    split = split_torch_state_dict_into_shards(dict(state), max_shard_size=shard_size)
    for name, keys in split.filename_to_tensors.items():
        temporary = folder / f"{name}.tmp"
        save_file({key: state[key].contiguous() for key in keys}, temporary, {"format": "pt"})
        os.replace(temporary, folder / name)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_text(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user error ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        export(tyro.cli(Export, args=argv, description=__doc__))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
