"""CAT-ASR's evaluation; Whisper's part runs where CAT_TTS_EVAL_ASSETS names a folder."""

import json
import re
from pathlib import Path

import pytest
import torch

from cat_tts.asr.config import tiny
from cat_tts.asr.model import CatASR
from cat_tts.text.tokenizers import SentencePieceText
from eval import assets
from eval.asr import main
from eval.metrics.audio import WordErrors
from eval.metrics.transcripts import TranscriptErrors, count_errors, rate
from eval.metrics.word_errors import normalize_chinese
from training.data.manifest import read_manifest, write_manifest

pytestmark = pytest.mark.usefixtures("datasets_cache")
FOLDER = assets.default_folder()


@pytest.fixture(scope="module")
def asr(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model."""
    torch.manual_seed(0)
    folder, model = tmp_path_factory.mktemp("asr"), CatASR(tiny())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder, SentencePieceText(bundle / "tts" / "text.model"))
    return folder


def test_errors_by_hand() -> None:
    words, lower = WordErrors(errors=1, words=4), WordErrors(errors=2, words=3)
    assert count_errors("Don't stop, Anna.", "do not stop anna", "en") == TranscriptErrors(
        words=WordErrors(errors=0, words=4), lower_case=WordErrors(errors=4, words=3)
    )
    assert count_errors("Don't stop, Anna.", "don't stop, hanna.", "en") == TranscriptErrors(
        words=words, lower_case=WordErrors(errors=1, words=3)
    )
    found = count_errors("\u6211\u67093\u500b\uff0c\u597d\uff01", "\u6211\u6709\u4e09\u4e2a", "zh")
    assert found == TranscriptErrors(characters=WordErrors(errors=1, words=5))
    assert rate([found, TranscriptErrors(words=words, lower_case=lower)], "characters") == pytest.approx(
        1 / 5
    )
    assert rate(
        [TranscriptErrors(words=words)] * 2 + [TranscriptErrors(words=lower)], "words"
    ) == pytest.approx(4 / 11)
    assert rate([TranscriptErrors(words=words)], "characters") is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "\u6211\u57282024\u5e74\u8cb7\u4e86\uff13\u500b\u860b\u679c\uff01",
            "\u6211\u5728\u4e8c\u96f6\u4e8c\u56db\u5e74\u4e70\u4e86\u4e09\u4e2a\u82f9\u679c",
        ),
        ("\uff28ello, \u4e16\u754c\u3002", "hello\u4e16\u754c"),
        (" ... ", ""),
    ],
)
def test_chinese_is_compared_as_it_is_spoken(text: str, wanted: str) -> None:
    assert normalize_chinese(text) == wanted


@pytest.mark.parametrize(("language", "what"), [("en", "no word"), ("zh", "no character")])
def test_a_reference_without_content_is_refused(language: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        count_errors("...", "something", language)


def test_scores_on_audio_and_on_its_codes_are_equal(
    asr: Path, corpus: Path, codec: Path, codes: Path, tmp_path: Path
) -> None:
    options = ["--model", str(asr), "--depths", "1,6", "--limit", "6"]
    audio = ["--manifest", str(corpus), "--tokenizer", str(codec), "--no-whisper"]
    for name, source in {"audio": audio, "codes": ["--codes", str(codes)]}.items():
        assert main([*options, *source, "--title", "Tiny", "--out", str(tmp_path / f"{name}.json")]) == 0
    one, other = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("audio", "codes"))
    assert one["tables"] == other["tables"]
    (table,) = one["tables"]
    assert table["title"] == "Tiny"
    assert [row[:5] for row in table["rows"]] == [
        ["CAT-ASR, greedy", "codes", depth, 6, 0] for depth in (1, 6)
    ]
    assert one["command"].startswith("python -m eval.asr --model ")
    lines = [json.loads(line) for line in (tmp_path / "audio.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    full = [line["errors"]["words"] for line in lines if line["depth"] == 6]
    wer = sum(found["errors"] for found in full) / sum(found["words"] for found in full)
    assert table["rows"][1][table["head"].index("wer")] == pytest.approx(wer)
    assert {line["transcript"] for line in lines if line["depth"] == 1} != {
        line["transcript"] for line in lines if line["depth"] == 6
    }


def test_the_prompts_of_a_list_are_heard(
    asr: Path, codec: Path, prompt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meta.lst").write_text(f"one|What it says.|{prompt_file}|Something else.\n")
    source = ["--meta", str(tmp_path / "meta.lst"), "--tokenizer", str(codec), "--no-whisper"]
    assert main(["--model", str(asr), *source, "--depths", "6", "--out", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == "What it says."


def test_a_clip_that_cannot_be_read_counts_as_deleted(
    asr: Path, corpus: Path, codec: Path, tmp_path: Path
) -> None:
    clips = read_manifest(corpus)[:1]
    (tmp_path / "broken.flac").write_bytes(b"no audio")
    broken = type(clips[0])(
        **{**vars(clips[0]), "audio": tmp_path / "broken.flac", "text": "four words are here"}
    )
    write_manifest(tmp_path / "clips.jsonl", [broken])
    source = ["--manifest", str(tmp_path / "clips.jsonl"), "--tokenizer", str(codec), "--no-whisper"]
    assert main(["--model", str(asr), *source, "--depths", "6", "--out", str(tmp_path / "out.json")]) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())["tables"][0]["rows"]
    assert row[3:6] == [1, 1, 1.0]
    (line,) = (json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines())
    assert line["errors"]["words"] == {"errors": 4, "words": 4} and "broken.flac" in line["error"]


@pytest.mark.skipif(FOLDER is None, reason="CAT_TTS_EVAL_ASSETS names no folder")
def test_whisper_hears_the_original_and_each_reconstruction(
    corpus: Path, codec: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faster_whisper")
    out = tmp_path / "out.json"
    source = ["--manifest", str(corpus), "--tokenizer", str(codec), "--limit", "1"]
    assert main([*source, "--depths", "1,6", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["tables"][0]["rows"]
    wanted = [("original", None), ("reconstruction", 1), ("reconstruction", 6)]
    assert [tuple(row[:3]) for row in rows] == [("Whisper base", *one) for one in wanted]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--depths", "7"], r"--depths \(7,\): choose 1 to 6"),
        (["--depths", "1", "--out", "/nowhere/out.json"], "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    asr: Path, codes: Path, capsys: pytest.CaptureFixture[str], options: list[str], complaint: str
) -> None:
    assert main(["--model", str(asr), "--codes", str(codes), *options]) == 2
    complained = capsys.readouterr().err
    assert re.search(complaint, complained) and complained.count("\n") == 1


def test_nothing_to_measure_is_refused(codes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--codes", str(codes), "--depths", "1"]) == 2
    assert "nothing to measure" in capsys.readouterr().err
