"""`python -m training.prepare` as processes: killed, and several."""

import os
import random
import signal
import string
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.voxbox import Planted
from training.data.code_shards import read_codes
from training.data.manifest import read_manifest, write_manifest
from training.prepare import main

pytestmark = [pytest.mark.usefixtures("datasets_cache"), pytest.mark.slow]


def start(*command: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def test_kill_9_in_the_midst_of_a_shard_leaves_no_torn_shard(
    corpus: Path, codec: Path, tmp_path: Path
) -> None:
    draw, folder = random.Random(0), tmp_path / "codes"
    long = ["".join(draw.choices(string.ascii_letters, k=2**21)) for _ in range(16)]  # takes time to write
    clips = [replace(clip, text=text) for clip, text in zip(read_manifest(corpus), long, strict=False)]
    write_manifest(tmp_path / "long.jsonl", clips)
    options = ["--manifest", tmp_path / "long.jsonl", "--tokenizer", codec, "--clips-per-shard", 4]
    process = start("training.prepare", folder, *options)
    deadline, torn = time.monotonic() + 120, None
    while not (torn and torn.exists()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
        torn = next(folder.glob("*.tmp"), None)
        if torn:
            process.send_signal(signal.SIGSTOP)  # it may have been done with this shard; see while it stands
            os.waitpid(process.pid, os.WUNTRACED)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    before = files(folder)
    assert torn.name in before and torn.with_suffix(".parquet").name not in before
    with pytest.raises(ValueError, match=f"lacks {torn.stem}"):
        read_codes(folder)

    main([str(option) for option in [folder, *options]])
    main([str(option) for option in [tmp_path / "whole", *options]])
    after = files(folder)
    assert all(after[name] == kept for name, kept in before.items() if not name.endswith(".tmp"))
    assert {name: data for name, (_, data) in after.items()} == {
        name: data for name, (_, data) in files(tmp_path / "whole").items()
    }


def test_two_processes_share_the_shards_and_write_what_one_writes(
    imported: dict[str, tuple[Path, Planted]], codec: Path, tmp_path: Path
) -> None:
    manifest, _ = imported["tar"]
    options = ["--manifest", manifest, "--tokenizer", codec, "--clips-per-shard", 2]
    launch = ["accelerate.commands.launch", "--config_file", "training/accelerate/ddp.yaml", "-m"]
    process = start(*launch, "training.prepare", tmp_path / "two", *options)
    summary = process.communicate(timeout=300)[1]
    assert process.returncode == 0, summary
    assert summary.count("bits a code") >= 1  # by the last to finish
    main([str(option) for option in [tmp_path / "one", *options]])
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert {name: data for name, (_, data) in two.items()} == {name: data for name, (_, data) in one.items()}
    assert "skipped.jsonl" in one
