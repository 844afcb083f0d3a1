"""The `cat-tts` command."""

import logging
import sys

import tyro

from inference.cli.clone import Clone, clone
from inference.cli.codec import Decode, Encode, decode, encode
from inference.cli.doctor import Doctor, doctor
from inference.cli.serve import Serve, serve
from inference.cli.voice import VoiceFiles, voice

COMMANDS = {
    "clone": (Clone, clone),
    "encode": (Encode, encode),
    "decode": (Decode, decode),
    "voice": (VoiceFiles, voice),
    "doctor": (Doctor, doctor),
    "serve": (Serve, serve),
}
"""The options of each command, and what runs it."""


def main(argv: list[str] | None = None) -> None:
    """Entry point: a mistake of the user ends with one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    kinds = {name: kind for name, (kind, _) in COMMANDS.items()}
    options = tyro.extras.subcommand_cli_from_dict(kinds, prog="cat-tts", args=argv)
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
