"""Options under the names that they had in earlier versions: they work for this version, and say so."""

import sys
from collections.abc import Mapping, Sequence

TOKENIZER_OPTIONS = {"--revive": "--reset-dead-codes"}
"""Options of `training.train_tokenizer`."""
TTS_OPTIONS = {
    "--meant-from": "--reinit-codebooks-from",
    "--dropout.untold": "--dropout.text-dropout",
    "--dropout.unheard": "--dropout.frame-dropout",
    "--optimizer.tables": "--optimizer.embedding-learning-rate-scale",
}
"""Options of `training.train_tts` and `training.preflight`."""
ASR_OPTIONS = {
    "--rows-per-batch": "--batches.rows",
    "--max-frames": "--batches.max-frames",
    "--short-first": "--batches.length-warmup",
    "--text-noise": "--batches.text-noise",
    "--frame-noise": "--batches.frame-noise",
    "--depth-dropout": "--dropout.p",
    "--ctc": "--weights.ctc",
    "--learning-rate": "--optimizer.learning-rate",
    "--muon": "--optimizer.muon",
    "--weight-decay": "--optimizer.weight-decay",
    "--warmup": "--optimizer.warmup",
    "--decay": "--optimizer.decay",
    "--clip": "--optimizer.clip",
    "--ema": "--optimizer.ema",
    "--precision": "--hardware.precision",
    "--precision=no": "--hardware.precision=fp32",
}
"""Options of `training.train_asr`."""
BUNDLE_OPTIONS = {"--judge": "--discriminators"}
"""Options of `training.bundle`."""


def rename_options(arguments: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """Replace old options of a command line by new ones, with a line on stderr for each that was there.

    Args:
        arguments: The command line without the name of the program.
        renamed: New options by old ones, such as `{"--judge": "--discriminators"}`. Of a switch it stands for
            `--no-...` too; `{"--precision=no": "--hardware.precision=fp32"}` renames one value.

    Returns:
        The command line that today's options say the same with.
    """
    result: list[str] = []
    values = dict(old.split("=") for old in renamed if "=" in old)
    for argument in arguments:
        before = result[-1] if result else ""
        option, equals, value = argument.partition("=")
        old = option.replace("_", "-")
        for name, old_value in values.items():  # of `--old VALUE`: the option has its new name by now
            if argument == old_value and before == renamed.get(name):
                argument = renamed[f"{name}={old_value}"].partition("=")[2]
        new = renamed.get(old) or _negated(old, renamed)
        if option.startswith("--") and new is not None:
            print(f"{option} is now {new}; the old name goes with the next version", file=sys.stderr)
            whole = renamed.get(f"{old}={value}")
            argument = whole or f"{new}{equals}{value}"
        result.append(argument)
    return result


def _negated(option: str, renamed: Mapping[str, str]) -> str | None:
    """Return the new name of a switch that is turned off: `--no-muon` becomes `--optimizer.no-muon`."""
    group, _, name = option.removeprefix("--").rpartition(".")
    prefix = f"--{group}." if group else "--"
    new = renamed.get(prefix + name.removeprefix("no-")) if name.startswith("no-") else None
    if new is None:
        return None
    group, _, name = new.removeprefix("--").rpartition(".")
    return f"--{group}.no-{name}" if group else f"--no-{name}"
