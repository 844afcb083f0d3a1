"""How the page is worded and started."""

import inspect
import json
import socket

import pytest

from tests.helpers.paths import ROOT

gr = pytest.importorskip("gradio")

import app  # noqa: E402

LABELS = json.loads((ROOT / "inference" / "demo" / "labels.json").read_text("utf-8"))


def test_labels_are_the_same_in_every_language() -> None:
    assert LABELS["en"].keys() == LABELS["zh"].keys()
    assert all(all(words.values()) for words in LABELS.values())


def test_every_label_stands_somewhere() -> None:
    sources = [ROOT / "app.py", *(ROOT / "inference").rglob("*.py")]
    text = "".join(path.read_text() for path in sources)
    assert [key for key in LABELS["en"] if f'"{key}"' not in text and f"'{key}'" not in text] == []


def test_gradio_takes_the_look() -> None:
    for function in (gr.Blocks.launch, gr.mount_gradio_app):
        assert app.LOOK.keys() <= inspect.signature(function).parameters.keys()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--model", "no/such/model folder"], "no/such/model folder"),
        (["--slots", "0"], "slots=0"),
        (["--port", "70000"], "choose 1 to 65535"),
    ],
)
def test_mistakes_at_the_start_end_in_a_line(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        app.main(["--port", "0", *argv])
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("app.py: ") and told in said.err


def test_a_port_in_use_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        app.main(["--port", str(taken.getsockname()[1])])
    said = capsys.readouterr()
    assert caught.value.code == 2 and said.out == "" and said.err.count("\n") == 1
    assert "cannot be listened on" in said.err
