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
    assert all(all(transcript.values()) for transcript in LABELS.values())


def test_every_label_stands_somewhere() -> None:
    sources = [ROOT / "app.py", *(ROOT / "inference").rglob("*.py")]
    text = "".join(path.read_text() for path in sources)
    assert [key for key in LABELS["en"] if f'"{key}"' not in text and f"'{key}'" not in text] == []


def test_gradio_takes_the_appearance() -> None:
    for function in (gr.Blocks.launch, gr.mount_gradio_app):
        assert app.APPEARANCE.keys() <= inspect.signature(function).parameters.keys()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "no/such/model folder"], "no/such/model folder"),
        (["--slots", "0"], "slots=0"),
        (["--port", "70000"], "choose 1 to 65535"),
    ],
)
def test_mistakes_at_the_start_end_in_a_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        app.main(["--port", "0", *argv])
    label = capsys.readouterr()
    assert caught.value.code == 2 and label.out == "" and label.err.count("\n") == 1
    assert label.err.startswith("app.py: ") and message in label.err


def test_a_port_in_use_is_reported_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        app.main(["--port", str(taken.getsockname()[1])])
    label = capsys.readouterr()
    assert caught.value.code == 2 and label.out == "" and label.err.count("\n") == 1
    assert "cannot be listened on" in label.err
