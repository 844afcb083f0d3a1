"""`python -m training.prepare` as processes: killed, and several."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from voxbox import Planted

from training.codes import read_codes
from training.prepare import main

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.usefixtures("datasets_cache"), pytest.mark.slow]


def start(*command: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def rows_of(folder: Path) -> list[dict]:
    return [{**row, "codes": row["codes"].tolist()} for row in read_codes(folder)]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def test_kill_9_in_the_midst_of_a_shard_leaves_no_torn_shard(
    corpus: Path, codec: Path, codes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    torn = folder / "codes-00001.tmp"
    os.mkfifo(torn)  # a disk that takes 4096 bytes of the second shard and then no more
    reader = os.open(torn, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    options = [folder, "--manifest", corpus, "--tokenizer", codec, "--clips-per-shard", 20]
    process = start("training.prepare", *options)
    deadline, taken = time.monotonic() + 120, array.array("i", [0])
    while taken[0] < 4096:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        fcntl.ioctl(reader, termios.FIONREAD, taken)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    written = os.read(reader, 4096)
    os.close(reader)
    torn.unlink()
    torn.write_bytes(written)
    assert written.startswith(b"PAR1") and not written.endswith(b"PAR1")
    before = files(folder)
    assert sorted(before) == ["codes-00000.parquet", "codes-00001.tmp", "codes.json"]

    main([str(option) for option in options])
    after = files(folder)
    assert after["codes-00000.parquet"] == before["codes-00000.parquet"]
    assert [name for name in after if name.endswith(".tmp")] == []
    assert rows_of(folder) == rows_of(codes)


def test_two_processes_share_the_shards_and_write_what_one_writes(
    imported: dict[str, tuple[Path, Planted]], codec: Path, tmp_path: Path
) -> None:
    manifest, _ = imported["tar"]
    options = ["--manifest", manifest, "--tokenizer", codec, "--clips-per-shard", 2]
    launch = ["accelerate.commands.launch", "--config_file", "training/accelerate/ddp.yaml", "-m"]
    process = start(*launch, "training.prepare", tmp_path / "two", *options)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert said.count("bits a code") >= 1  # by the last to finish
    main([str(option) for option in [tmp_path / "one", *options]])
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {name: data for name, (_, data) in two.items()} == {name: data for name, (_, data) in one.items()}
    assert "skipped.jsonl" in one
