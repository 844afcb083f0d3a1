"""Validation, statistics, selection: of the VoxBox fixture by the command, of more by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.voxbox import Planted, index_of
from training.corpora import main, table
from training.data.languages import guess_language, han_share
from training.data.licenses import allows_commercial_use, license_of
from training.data.manifest import Clip, iterate_manifest, read_manifest, write_manifest
from training.data.mixture import Mixture, read_mixture
from training.data.validate import Selection, select, stats, validate

Imported = dict[str, tuple[Path, Planted]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command: its exit code, what it printed on stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def indices(manifest: Path) -> list[str]:
    return [index_of(clip) for clip in read_manifest(manifest)]


@pytest.mark.parametrize("layout", ["tar", "files"])
def test_exactly_what_was_planted_is_found_and_cleaned_away(
    imported: Imported, tmp_path: Path, run: Callable, layout: str
) -> None:
    manifest, planted = imported[layout]
    clean, report = tmp_path / "clean.jsonl", tmp_path / "report.json"
    code, printed, _ = run("validate", manifest, "--clean", clean, "--report", report)
    assert code == 1
    found = json.loads(report.read_text())
    assert {fault["fault"]: Path(fault["clip"]).stem for fault in found["faults"]} == planted.faults
    assert (found["clips"], found["faulty"]) == (20, 7)
    assert found["corpora"]["casia"]["sample_rates"] == {"16000": 9}
    assert (found["corpora"]["casia"]["narrow"], found["corpora"]["vctk"]["narrow"]) == (9, 0)
    assert printed.splitlines()[-1] == "20 clips, 7 with faults"
    assert sorted(indices(clean)) == sorted(planted.usable)
    assert len({clip.text for clip in read_manifest(clean)}) == 13
    code, printed, _ = run("validate", clean)
    assert code == 0 and printed.splitlines()[-1] == "13 clips, 0 with faults"


def test_a_corpus_is_imported_by_the_command(imported: Imported, tmp_path: Path, run: Callable) -> None:
    root = imported["files"][0].parent
    code, _, _ = run("import", "voxbox", root, "-o", tmp_path / "m.jsonl", "--corpora", "casia", "meld")
    assert code == 0
    clips = read_manifest(tmp_path / "m.jsonl")
    assert clips == [clip for clip in read_manifest(imported["files"][0]) if clip.source == "casia"]
    assert clips[0].audio.is_absolute() and clips[0].audio.exists()
    code, _, _ = run("import", "jsonl", tmp_path / "m.jsonl", "-o", tmp_path / "n.jsonl", "--license", "mine")
    assert {clip.license for clip in read_manifest(tmp_path / "n.jsonl")} == {"mine"}
    code, _, stderr = run("import", "csv", tmp_path / "gone.csv", "-o", tmp_path / "n.jsonl")
    assert (code, stderr) == (2, f"error: {tmp_path}/gone.csv: no such file or folder; check the spelling\n")


def test_faults_can_be_ignored_and_workers_find_the_same(imported: Imported, tmp_path: Path) -> None:
    manifest, planted = imported["files"]
    ignored = validate(manifest, ignore=["clipping", "language"])
    assert {fault["fault"] for fault in ignored.faults} == planted.faults.keys() - {"clipping", "language"}
    with pytest.raises(ValueError, match="no fault is called nonsense: choose of missing audio, "):
        validate(manifest, ignore=["nonsense"])


@pytest.mark.slow
def test_more_workers_find_the_same(imported: Imported) -> None:
    manifest, _ = imported["tar"]
    assert validate(manifest, workers=2) == validate(manifest)


def test_statistics_by_corpus(imported: Imported, tmp_path: Path, run: Callable) -> None:
    manifest, planted = imported["tar"]
    code, printed, _ = run("stats", manifest, "--json", tmp_path / "stats.json")
    assert code == 0 and printed.splitlines()[0].startswith("corpus  clips  hours")
    found = json.loads((tmp_path / "stats.json").read_text())
    assert found == stats(manifest)
    vctk, casia = found["vctk"], found["casia"]
    assert (vctk["clips"], vctk["speakers"], vctk["languages"]) == (10, 2, {"en": 10})
    assert (casia["clips"], casia["speakers"], casia["languages"]) == (10, 0, {"zh": 9, "en": 1})
    assert vctk["longest"] == 9.5 and casia["shortest"] == 1.2
    seconds = sum(clip.duration for clip in read_manifest(manifest) if clip.source == "casia")
    assert casia["hours"] == pytest.approx(seconds / 3600)
    spoken = [text for index, text in planted.texts.items() if index.startswith("CASIA")]
    characters = sum(map(len, spoken)) - len(planted.texts[planted.faults["no text"]])
    assert casia["characters_per_second"] == pytest.approx(characters / seconds)


@pytest.mark.parametrize(
    ("chosen", "kept"),
    [
        ({}, ["en1", "en2", "zh1", "zh2"]),
        ({"languages": ("zh",)}, ["zh1", "zh2"]),
        ({"corpora": ("b",)}, ["zh2"]),
        ({"min_seconds": 1.5, "max_seconds": 3.0}, ["en2", "zh1"]),
        ({"licenses": ("CC-BY-4.0",)}, ["en1"]),
        ({"commercial": True}, ["en1", "zh1"]),
        ({"commercial": True, "licenses": ("CC-BY-NC-4.0",)}, []),
    ],
)
def test_selection(tmp_path: Path, chosen: dict, kept: list[str]) -> None:
    rows = [
        *[("en1", "en", 1.0, "CC-BY-4.0", "a"), ("en2", "en", 2.0, "CC-BY-NC-4.0", "a")],
        *[("zh1", "zh", 3.0, "Apache-2.0", "a"), ("zh2", "zh", 4.0, "unknown", "b")],
    ]
    write_manifest(
        tmp_path / "all.jsonl",
        [
            Clip(
                audio=tmp_path / name,
                text="a",
                speaker="",
                language=language,
                duration=seconds,
                source=source,
                license=license,
            )
            for name, language, seconds, license, source in rows
        ],
    )
    counts = select(tmp_path / "all.jsonl", tmp_path / "some.jsonl", Selection(**chosen))
    assert [clip.audio.name for clip in read_manifest(tmp_path / "some.jsonl")] == kept
    assert counts["kept"] == len(kept) and counts.total() == 4


def test_selection_by_the_command(imported: Imported, tmp_path: Path, run: Callable) -> None:
    arguments = ["--languages", "en", "zh", "--max-seconds", "5", "--commercial"]
    code, _, _ = run("select", imported["tar"][0], "-o", tmp_path / "some.jsonl", *arguments)
    assert code == 0
    clips = read_manifest(tmp_path / "some.jsonl")
    assert len(clips) == 9 and {clip.source for clip in clips} == {"vctk"}


def test_a_mixture_is_shown_and_stored(
    codes: Path, tmp_path: Path, run: Callable, datasets_cache: None
) -> None:
    folder = tmp_path / "codes"
    folder.mkdir()
    for path in codes.iterdir():
        (folder / path.name).symlink_to(path)
    code, printed, _ = run("mixture", folder, "--weights", "synthetic", "2", "--temperature", "3")
    assert code == 0
    assert [line.split() for line in printed.splitlines()] == [
        ["corpus", "hours", "share", "times", "an", "epoch"],
        ["synthetic", "0.02", "1.00", "1.00"],
    ]
    assert read_mixture(folder) == Mixture(weights={"synthetic": 2.0}, temperature=3.0)
    code, _, stderr = run("mixture", folder, "--weights", "other", "2")
    assert code == 2 and stderr == "error: weights for other: the corpora are synthetic\n"


def test_a_manifest_is_read_from_any_line_on(imported: Imported) -> None:
    manifest, _ = imported["tar"]
    numbered = list(iterate_manifest(manifest))
    assert [clip for _, clip in numbered] == read_manifest(manifest)
    offset, clip = numbered[7]
    assert next(iterate_manifest(manifest, offset)) == (offset, clip)
    assert [one for _, one in iterate_manifest(manifest, offset)] == [one for _, one in numbered[7:]]


def test_members_come_back_and_names_outlive_a_move(tmp_path: Path) -> None:
    loose = Clip(
        audio=tmp_path / "x.wav", text=None, speaker="", language="en", duration=1.0, source="s", license="l"
    )
    packed = replace(loose, audio=tmp_path / "a.tar.gz", member="in/x.wav")
    write_manifest(tmp_path / "m.jsonl", [loose, packed])
    assert read_manifest(tmp_path / "m.jsonl") == [loose, packed]
    assert (loose.name, packed.name) == ("x.wav", "a.tar.gz:in/x.wav")


def test_scripts_tell_languages() -> None:
    assert (han_share("今天 a1b"), han_share("12!"), han_share("")) == (0.5, 0.0, 0.0)
    assert [guess_language(text) for text in ("今天天气", "Hello", "OK 今天", "")] == ["zh", "en", "zh", "en"]


@pytest.mark.parametrize(
    ("corpus", "license", "commercial"),
    [
        ("LibriTTS-R", "CC-BY-4.0", True),
        ("aishell-3", "Apache-2.0", True),
        ("commonvoice_cn", "CC0-1.0", True),
        ("Emilia_EN", "CC-BY-NC-4.0", False),
        ("tess", "CC-BY-NC-ND-4.0", False),
        ("ljspeech", "public domain", True),
        ("IEMOCAP", "research only", False),
        ("my own", "unknown", False),
    ],
)
def test_licenses(corpus: str, license: str, commercial: bool) -> None:
    assert license_of(corpus) == license
    assert allows_commercial_use(license) == commercial
    assert allows_commercial_use(license.replace("-", " ")) == commercial


def test_a_table_is_aligned() -> None:
    rows = {"a": {"clips": 3, "hours": 1.234}, "longer": {"clips": 10, "faults": {"x": 1}}}
    assert table(rows).splitlines() == [
        "corpus  clips  hours  faults",
        "a       3      1.23   None",
        "longer  10     None   x 1",
    ]
