"""Options under their old names: replaced by the new ones, with a line that says so."""

import pytest

from inference.cli.renamed_options import current_options

RENAMED = {
    "--tune": "--adapt-steps",
    "--normalise": "--normalize",
    "--adapt-steps None": "--no-adapt-decoder",
}
VALUE = "--adapt-steps None is now --no-adapt-decoder"


@pytest.mark.parametrize(
    ("argv", "current", "line"),
    [
        (["a.wav", "--tune", "5"], ["a.wav", "--adapt-steps", "5"], "--tune is now --adapt-steps"),
        (["--tune=5"], ["--adapt-steps=5"], "--tune is now --adapt-steps"),
        (["--normalise"], ["--normalize"], "--normalise is now --normalize"),
        (["--no-normalise"], ["--no-normalize"], "--no-normalise is now --no-normalize"),
        (["--no_normalise"], ["--no-normalize"], "--no-normalise is now --no-normalize"),
        (["--adapt-steps", "None", "-o"], ["--no-adapt-decoder", "-o"], VALUE),
        (["a.wav", "--adapt-steps=None"], ["a.wav", "--no-adapt-decoder"], VALUE),
        (["--adapt_steps", "None"], ["--no-adapt-decoder"], VALUE),
    ],
)
def test_an_old_option_is_replaced(
    argv: list[str], current: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert current_options(argv, RENAMED) == current
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == f"{line}; the old name goes with the next version\n"


def test_other_arguments_stay(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "clone",
        "tune",
        "--text",
        "I --tune it.",
        "--adapt-steps",
        "5",
        "None",
        "--text_file=a_b",
        "--tuned",
        "-o",
        "--adapt-steps",
    ]
    assert current_options(argv, RENAMED) == argv
    assert capsys.readouterr().err == ""


def test_the_arguments_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["cat-tts", "--tune", "5"])
    assert current_options(None, RENAMED) == ["--adapt-steps", "5"]


def test_a_renamed_option_may_have_a_value_with_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert current_options(["--tune", "None", "--depth", "1"], RENAMED) == [
        "--no-adapt-decoder",
        "--depth",
        "1",
    ]
    assert [line.split(" is now ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "--tune",
        "--adapt-steps None",
    ]
