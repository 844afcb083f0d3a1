"""Models on disk: a folder with `config.json` and `model.safetensors`. No pickle is ever loaded."""

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
    """A model folder cannot be loaded; the message says why."""


def local_folder(model: str | Path) -> Path:
    """Return a model's folder; that of a hub id is downloaded when it is not cached yet.

    Args:
        model: A folder, or a hub id: a name of the form owner/name, where no such folder exists.

    Returns:
        The local folder.

    Raises:
        CheckpointError: If there is no such folder, or the hub cannot provide it.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    name = str(model)
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise CheckpointError(f"{model}: no such model folder; give a folder or a hub id such as owner/name")
    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{model}: no such folder, and the hub could not give it: {reason}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        CheckpointError: If the file is missing, or is not a JSON object.
    """
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
    """Read a JSON file as a dataclass.

    Args:
        kind: The dataclass.
        path: The file.

    Returns:
        The config.

    Raises:
        CheckpointError: For unknown or missing keys, and for wrong values.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise CheckpointError(f"{path}: {where}: {first['msg']}") from None


def read_weights(folder: Path, without: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a folder, from one file or from the shards that an index names.

    Args:
        folder: A model's folder.
        without: A prefix; tensors whose names begin with it are not read into memory.

    Returns:
        The tensors by name.

    Raises:
        CheckpointError: If a file is missing or not a safetensors file.
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
                keys = [key for key in file.keys() if not without or not key.startswith(without)]  # noqa: SIM118
                state.update({key: file.get_tensor(key) for key in keys})
        except Exception as error:
            raise CheckpointError(f"{folder / name}: not a safetensors file ({error})") from error
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Assign weights to a module; all must be there, of the right shape, and no others.

    Args:
        module: The module, which may be on the meta device.
        state: The weights by name.
        folder: Where they came from, for messages.

    Raises:
        CheckpointError: If they do not fit.
    """
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()[:200]
        raise CheckpointError(f"{folder}: the weights do not fit {CONFIG}: {first}") from None


def save(folder: str | Path, config: Any, state: Mapping[str, Tensor]) -> None:
    """Write config and weights, each to a temporary file that is then renamed.

    Args:
        folder: The model's folder; it is created where it does not exist.
        config: A dataclass.
        state: The weights by name.
    """
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
    """Write a UTF-8 text file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
