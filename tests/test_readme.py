"""What the README shows a newcomer runs as it stands there."""

import re
from pathlib import Path

import pytest
import soundfile

from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like the checkout to relative paths, and takes what is written."""
    (tmp_path / "cat_tts").symlink_to(ROOT / "cat_tts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_first_block_clones_in_five_lines(checkout: Path) -> None:
    names: dict = {}
    exec(BLOCKS[0], names)
    assert len([line for line in BLOCKS[0].splitlines() if line]) == 5
    assert names["sample_rate"] == 24_000 and len(names["wav"]) % 1920 == 0 and abs(names["wav"]).max() > 0.01


def test_second_block_streams_and_extends(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict = {}
    exec(BLOCKS[0] + BLOCKS[1], names)
    printed_values, *frames = capsys.readouterr().out.splitlines()
    spoken, result, extended = names["result"], names["stream"].result, names["extended"]
    assert printed_values == f"{spoken.seconds} {spoken.stop_reason} {spoken.attempts} {spoken.acceptable}"
    assert [part.request.text for part in spoken.segments] == ["It is five o'clock.", "Good morning."]
    assert frames == ["1920 samples"] * len(result.codes)
    assert (result.depth, extended.depth) == (4, names["synthesizer"].max_depth)
    assert (extended.codes[:, :4] == result.codes).all()


def test_third_block_codes_and_streams(checkout: Path) -> None:
    names: dict = {}
    exec(BLOCKS[2], names)
    assert soundfile.info("coarse.wav").samplerate == 24_000
    assert sum(frame.shape[1] for frame in names["frames"]) == names["codes"].shape[1] * 1920


def test_the_tree_names_every_package() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests"}
    assert folders <= set(re.findall(r"^(\w+)/", tree, re.MULTILINE))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
