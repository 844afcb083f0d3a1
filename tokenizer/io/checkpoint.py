"""A model on disk is a folder: `config.json` and `model.safetensors`. No pickle is ever loaded."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import snapshot_download
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Config = TypeVar("Config")

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


class CheckpointError(ValueError):
    """A model folder that cannot be loaded, and why."""


def local_folder(model: str | Path) -> Path:
    """The folder itself, or that of a hub id, fetched when it is not cached yet.

    A name is a hub id when it has the form owner/name and no such folder exists.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    name = str(model)
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise CheckpointError(f"{model}: no such model folder; give a folder or a hub id such as owner/name")
    try:
        wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{model}: no such folder, and the hub could not give it: {reason}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or a CheckpointError that says what is wrong with the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; this folder does not hold a model") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds {type(value).__name__}, not an object")
    return value


def read_config(kind: type[Config], path: Path) -> Config:
    """A JSON file as the dataclass `kind`; unknown or missing keys and wrong values are refused."""
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise CheckpointError(f"{path}: {where}: {first['msg']}") from None


def read_weights(folder: Path, without: str | None = None) -> dict[str, Tensor]:
    """All tensors of a folder, from one file or from the shards that an index names.

    Those whose names begin with `without` are not read into memory.
    """
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    else:
        names = [WEIGHTS]
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name or not (folder / name).exists():
            raise CheckpointError(f"{folder / name}: weights are missing")
        try:
            with safe_open(folder / name, "pt") as file:
                wanted = [key for key in file.keys() if not without or not key.startswith(without)]  # noqa: SIM118
                state.update({key: file.get_tensor(key) for key in wanted})
        except Exception as error:
            raise CheckpointError(f"{folder / name}: not a safetensors file ({error})") from error
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Make `state` the weights of `module`; all must be there, of the right shape, and no others."""
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()[:200]
        raise CheckpointError(f"{folder}: the weights do not fit {CONFIG}: {first}") from None


def save(folder: str | Path, config: Any, state: Mapping[str, Tensor]) -> None:
    """Write config and weights, each to a temporary file that is then renamed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / CONFIG, config)
    temporary = folder / f"{WEIGHTS}.tmp"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary, {"format": "pt"})
    os.replace(temporary, folder / WEIGHTS)


def write_config(path: Path, config: Any) -> None:
    """Write a dataclass as JSON, to be read by `read_config`."""
    write_text(path, TypeAdapter(type(config)).dump_json(config, indent=2).decode() + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
