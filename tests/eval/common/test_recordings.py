"""Folders and manifests of audio."""

from pathlib import Path

import pytest

from eval.common.recordings import Recording, chosen, recordings


def test_a_folder_and_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.wav", "sub/a.FLAC", "notes.txt"):
        (tmp_path / name).touch()
    assert [(r.name, r.kind) for r in recordings(tmp_path, "music")] == [
        ("b.wav", "music"),
        ("sub/a.FLAC", "music"),
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"audio": "sub/a.FLAC", "kind": "sound"}\n\n{"audio": "b.wav"}\n')
    first, second = recordings(manifest)
    assert first == Recording(path=tmp_path / "sub/a.FLAC", name="sub/a.FLAC", kind="sound")
    assert second.kind == "speech"


@pytest.mark.parametrize("line", ['{"path": "a.wav"}', "[]", "nothing", '"audio"'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(f'{{"audio": "a.wav"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"manifest.jsonl:2 .*audio"):
        recordings(tmp_path / "manifest.jsonl")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names no audio"):
        recordings(tmp_path)


def test_kinds_are_chosen_and_spread() -> None:
    kinds = ["speech"] * 10 + ["sound"] * 3
    found = [Recording(path=Path(str(n)), name=str(n), kind=kind) for n, kind in enumerate(kinds)]
    assert [r.name for r in chosen(found, ["sound", "speech"], 4)] == [
        *("10", "11", "12"),
        *("0", "2", "5", "7"),
    ]
    assert len(chosen(found, ["speech"], None)) == 10
    with pytest.raises(ValueError, match=r"kind music; there are: sound, speech"):
        chosen(found, ["music"], None)
