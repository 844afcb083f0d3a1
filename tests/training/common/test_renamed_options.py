"""Options under the names of earlier versions."""

import pytest

from training.common.renamed_options import (
    ASR_OPTIONS,
    BUNDLE_OPTIONS,
    TOKENIZER_OPTIONS,
    TTS_OPTIONS,
    rename_options,
)


@pytest.mark.parametrize(
    ("old", "new", "renamed"),
    [
        (["--judge", "x"], ["--discriminators", "x"], BUNDLE_OPTIONS),
        (["--no-revive"], ["--no-reset-dead-codes"], TOKENIZER_OPTIONS),
        (["--dropout.untold=0.1"], ["--dropout.text-dropout=0.1"], TTS_OPTIONS),
        (["--dropout.unheard", "0.2"], ["--dropout.frame-dropout", "0.2"], TTS_OPTIONS),
        (["--meant_from", "5"], ["--reinit-codebooks-from", "5"], TTS_OPTIONS),
        (["--optimizer.tables", "1"], ["--optimizer.embedding-learning-rate-scale", "1"], TTS_OPTIONS),
        (["--muon"], ["--optimizer.muon"], ASR_OPTIONS),
        (["--no-muon"], ["--optimizer.no-muon"], ASR_OPTIONS),
        (["--precision", "no"], ["--hardware.precision", "fp32"], ASR_OPTIONS),
        (["--precision=no"], ["--hardware.precision=fp32"], ASR_OPTIONS),
        (["--precision", "bf16"], ["--hardware.precision", "bf16"], ASR_OPTIONS),
    ],
)
def test_old_options_become_new_ones(
    old: list[str], new: list[str], renamed: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rename_options(["mini", *old, "--seed", "3"], renamed) == ["mini", *new, "--seed", "3"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(old[0].partition("=")[0]) and new[0].partition("=")[0] in line


def test_other_arguments_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mini", "--run", "judge", "--seed=3", "--optimizer.no-muon", "no"]
    assert rename_options(arguments, ASR_OPTIONS) == arguments
    assert not capsys.readouterr().err
