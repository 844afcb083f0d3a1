"""What a killed process leaves behind."""

from pathlib import Path

import pytest

from eval.common.journal import Journal


def test_work_is_found_again_and_a_torn_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    journal = Journal(path, {"command": "a", "pair": (1, 2)})
    journal.append("first", {"value": 1, "text": "\u00e9"})
    with path.open("a") as file:
        file.write('{"key": "second", "rec')
    again = Journal(path, {"command": "a", "pair": (1, 2)})
    assert again.done == {"first": {"value": 1, "text": "\u00e9"}}
    again.append("second", {"value": 2})
    assert Journal(path, {"command": "a", "pair": (1, 2)}).done["second"] == {"value": 2}
    again.finish()
    assert not path.exists()


def test_a_process_killed_before_its_first_line_left_nothing(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    path.write_text('{"comma')
    Journal(path, {"command": "a"}).append("first", {})
    assert Journal(path, {"command": "a"}).done == {"first": {}}


def test_the_work_of_another_command_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    Journal(path, {"command": "a"}).append("first", {})
    with pytest.raises(ValueError, match=r"work.jsonl: holds what another command began"):
        Journal(path, {"command": "b"})
    assert Journal(path, {"command": "a"}).done == {"first": {}}


def test_without_a_file_it_is_kept_in_memory() -> None:
    journal = Journal(None, {})
    journal.append("first", {"value": 1})
    assert journal.done == {"first": {"value": 1}}
    journal.finish()
