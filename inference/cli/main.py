"""The `cat-tts` command."""

import logging
import sys

import tyro

from inference.cli.clone import Clone, clone
from inference.cli.codec import DecodeCommand, EncodeCommand, decode, encode
from inference.cli.doctor import Doctor, doctor
from inference.cli.renamed_options import current_options
from inference.cli.serve import Serve, serve
from inference.cli.voice import VoiceFiles, voice

COMMANDS = {
    "clone": (Clone, clone),
    "encode": (EncodeCommand, encode),
    "decode": (DecodeCommand, decode),
    "voice": (VoiceFiles, voice),
    "doctor": (Doctor, doctor),
    "serve": (Serve, serve),
}
"""The options of each subcommand, and the function that runs it."""
RENAMED = {
    "--piece-seconds": "--segment-seconds",
    "--tune": "--adapt-steps",
    "--normalise": "--normalize",
    "--work": "--cache",
    "--adapt-steps None": "--no-adapt-decoder",
}
"""New options by old ones, which still work in this version."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = current_options(argv, RENAMED)
    kinds = {name: kind for name, (kind, _) in COMMANDS.items()}
    options = tyro.extras.subcommand_cli_from_dict(kinds, prog="cat-tts", args=arguments)
    try:
        dict(COMMANDS.values())[type(options)](options)
    except ValueError as error:
        print("cat-tts: " + " ".join(str(error).splitlines()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("cat-tts: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
