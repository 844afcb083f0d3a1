"""Lines that outlive the process that wrote them; the whole folder is tested with the program."""

from pathlib import Path

from eval.seed_tts import run_folder


def test_a_torn_line_is_not_read_and_can_be_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    for number in range(3):
        run_folder.append(path, {"number": number, "text": "\u00e9\u2028"})
    whole = path.read_bytes()
    for end in range(len(whole) * 2 // 3 + 1, len(whole)):
        path.write_bytes(whole[:end])
        assert [record["number"] for record in run_folder.records(path)] == [0, 1]
    run_folder.mend(path)
    run_folder.append(path, {"number": 3})
    assert [record["number"] for record in run_folder.records(path)] == [0, 1, 3]
    run_folder.mend(path)
    assert path.read_bytes().count(b"\n") == 3
    path.write_bytes(b'{"numb')
    run_folder.mend(path)
    assert path.read_bytes() == b""
