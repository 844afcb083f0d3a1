"""Make the default voice from a payload in a given time: corpus, codes' encoder, decoder, TTS model, bundle.

    python -m training.default_voice OUT --payload FOLDER --budget-seconds 1500 --device cuda

PAYLOAD is what `training.payload` made, or the pieces of it. The same command goes on where the last one
stopped: after --command-seconds, SIGTERM, Ctrl-C, or a crash. OUT/bundle is what `cat-tts --model` takes;
OUT/pieces/encoder, codec and tts hold the models in pieces that can be carried away one by one. Each stage
is a public command, which OUT/log.txt shows with all it says.
"""

import argparse
import fcntl
import json
import logging
import os
import sys
import time
from pathlib import Path

from training import budget, payload, pieces, stages
from training.chain import STAGE, Chain, OutOfTime
from training.run import StopRequest
from training.stages import Setting

logger = logging.getLogger(__name__)

LOCK = "lock"


def main(argv: list[str] | None = None) -> None:
    """Command line. Exit code 0 when all is done or the command's time is over, 2 on a mistake."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--payload", type=Path, required=True, help="training.payload's folder, or its pieces"
    )
    parser.add_argument("--budget-seconds", type=float, required=True, help="for all commands together")
    parser.add_argument("--command-seconds", type=float, default=float("inf"), help="for this command")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("small", "mini", "tiny"), default="small")
    parser.add_argument("--workers", type=int, default=8, help="processes that speak, or read audio")
    parser.add_argument("--save-every", type=int, default=500, help="steps between two saves of a training")
    parser.add_argument("--batch-seconds", type=float, default=64.0, help="audio of a step of the tokenizer")
    parser.add_argument("--rows", type=int, default=8192, help="rows of a step of the TTS model")
    parser.add_argument("--codec", type=Path, help="pieces of a tokenizer to go on from")
    parser.add_argument("--tts", type=Path, help="pieces of a TTS model to go on from")
    for stage, share in budget.SHARES.items():
        parser.add_argument(f"--share-{stage}", type=float, default=share, help="part of the budget")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    shares = {stage: getattr(options, f"share_{stage}") for stage in budget.STAGES}
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        budget.check_shares(shares)
        with (options.out / LOCK).open("w") as lock, StopRequest() as stop:
            os.set_inheritable(lock.fileno(), True)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(
                    f"another command is at work in {options.out}: wait for it, or end it"
                ) from None
            setting = Setting(
                out=options.out,
                payload=unpacked(options.payload, options.out / "payload"),
                device=options.device,
                size=options.size,
                workers=options.workers,
                save_every=options.save_every,
                batch_seconds=options.batch_seconds,
                rows=options.rows,
                codec=stages.brought(options.codec, options.out / "start") if options.codec else None,
                tts=pieces.join(options.tts, options.out / "start-tts") if options.tts else None,
            )
            chain = Chain(
                setting,
                seconds=options.budget_seconds,
                shares=shares,
                until=started + options.command_seconds,
                stop=stop,
            )
            if setting.codec:
                arrived = json.loads((setting.codec / STAGE).read_text())
                chain.skip(arrived["stage"], finished=arrived["finished"])
            try:
                logger.info("the default voice is in %s", chain.run())
            except OutOfTime as reason:
                logger.info("stopped in %s; the same command goes on from here", reason)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def unpacked(folder: Path, target: Path) -> Path:
    """The payload itself, put together at `target` where `folder` holds its pieces."""
    if not (folder / pieces.INDEX).exists():
        payload.read(folder)
        return folder
    return target if (target / payload.INFO).exists() else pieces.join(folder, target)


if __name__ == "__main__":
    main()
