"""Options under the names that they had before; for this version both work."""

import sys
from collections.abc import Mapping, Sequence


def current_options(argv: Sequence[str] | None, renamed: Mapping[str, str]) -> list[str]:
    """Replace options that were renamed, and print a line on stderr for each that is found.

    `--old value`, `--old=value`, `--no-old` and underscores instead of hyphens are all recognized. An entry
    such as "--old None" stands for an option with that value.

    Args:
        argv: The arguments of a command; those of this process if None.
        renamed: The new option for each old one, both with their leading hyphens.

    Returns:
        The arguments under the new names.
    """
    current = []
    for argument in sys.argv[1:] if argv is None else argv:
        option, equals, value = argument.partition("=")
        option = option.replace("_", "-")
        positive = "--" + option.removeprefix("--no-") if option.startswith("--no-") else option
        if option not in renamed and positive not in renamed:
            current.append(argument)
            continue
        new = renamed.get(option) or "--no-" + renamed[positive].removeprefix("--")
        print(f"{option} is now {new}; the old name goes with the next version", file=sys.stderr)
        current.append(new + equals + value)
    for old, new in renamed.items():
        option, space, value = old.partition(" ")
        for i in range(len(current) if space else 0):
            for given in ([option, value], [f"{option}={value}"]):
                if [word.replace("_", "-") for word in current[i : i + len(given)]] == given:
                    print(f"{old} is now {new}; the old name goes with the next version", file=sys.stderr)
                    current[i : i + len(given)] = [new]
    return current
