"""The ablations of the tokenizer as commands."""

import json
from pathlib import Path

import pytest

from eval.ablations import tokenizer as ablation
from eval.ablations.variants import SCALES, parameters, size, small
from tokenizer import AudioTokenizer, load_audio
from tokenizer.io.checkpoint import WEIGHTS

pytest.importorskip("matplotlib")
pytest.importorskip("pesq")


RUNS = ("stage-1", "end-to-end", "partial")


def command(figure: str, corpus: Path, prompt: Path, out: Path) -> list[str]:
    options = {"--data": corpus, "--test": prompt.parent, "--out": out, "--scale": "tiny", "--depths": 2}
    return [figure, *(str(word) for pair in options.items() for word in pair)]


def test_sizes_are_those_of_the_paper() -> None:
    names = [variant.name for variant in size(SCALES["paper"]())]
    assert names == ["319M", "505M", "708M", "1168M"]
    assert parameters(small(64)) < parameters(small(192)) / 6


def test_stage_2_is_drawn_end_to_end_and_partial_from_one_stage_1(
    corpus: Path, prompt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command("end-to-end", corpus, prompt_file, tmp_path)
    assert ablation.main(words) == 0
    (table,) = json.loads((tmp_path / "end-to-end.json").read_text())["tables"]
    names = [row[table["head"].index("variant")] for row in table["rows"]]
    assert names == ["stage 1", "stage 2, end-to-end", "stage 2, partial"]
    assert (tmp_path / "end-to-end.png").read_bytes().startswith(b"\x89PNG")
    common, *later = ((tmp_path / name / "metrics.jsonl").read_text() for name in RUNS)
    assert all(text.startswith(common) for text in later) and later[0] != later[1]

    before = (tmp_path / "partial" / "model" / WEIGHTS).stat().st_mtime_ns
    monkeypatch.setattr(ablation, "train", None)  # nothing is trained twice
    assert ablation.main(words) == 0
    assert (tmp_path / "partial" / "model" / WEIGHTS).stat().st_mtime_ns == before


def test_numbers_are_those_of_the_metrics(codec: Path, prompt_file: Path) -> None:
    model = AudioTokenizer.from_pretrained(codec).eval()
    (row,) = ablation.measure(model, [prompt_file], (3,))
    audio = load_audio(prompt_file, 24_000)
    rebuilt = model.decode(model.encode(audio[None], 3))[0, : len(audio)].detach().numpy()
    assert row["mel_distance"] == pytest.approx(ablation.mel_distance(audio.numpy(), rebuilt, 24_000))
    assert (row["depth"], row["bitrate"], row["files"]) == (3, 3 * 12.5 * 5, 1)


def test_mistakes_end_with_one_line(
    corpus: Path, prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command("size", corpus, prompt_file, tmp_path / "out")
    assert ablation.main([*words, "--depths", "1", "9"]) == 2
    assert "depths (1, 9): this scale has depths 1 to 6" in capsys.readouterr().err
    assert ablation.main([*words, "--test", str(tmp_path)]) == 2
    assert "eval.ablations.tokenizer:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
