"""Results written by an evaluation come out again on the page."""

import json
import re
from pathlib import Path

import pytest

from eval.common.results import Table, write_results
from eval.report import main

TABLE = Table(title="By depth", head=["depth", "wer", "lost"], rows=[[4, 0.25, None], [8, 0.125, 1]])


def test_a_page_of_two_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("docs/results/sub", "docs/figures"):
        (tmp_path / folder).mkdir(parents=True)
    figure = Path("docs/figures/curve.png")
    figure.write_bytes(b"picture")
    write_results(Path("docs/results/b_second.json"), "python -m two", [TABLE], [figure], {"files": [1]})
    write_results(Path("docs/results/sub/a-first.json"), "python -m one --x 'a b'", [])
    assert json.loads(Path("docs/results/b_second.json").read_text()) == {
        "command": "python -m two",
        "tables": [
            {
                "title": "By depth",
                "head": ["depth", "wer", "lost"],
                "rows": [[4, 0.25, None], [8, 0.125, 1]],
            }
        ],
        "figures": ["../figures/curve.png"],
        "files": [1],
    }
    assert main(["docs/results", "-o", "docs/report.md"]) == 0
    assert (
        Path("docs/report.md").read_text()
        == """# Results

Collected by `python -m eval.report docs/results -o docs/report.md`; each section ends with the command that made it.

## b second

### By depth

| depth | wer | lost |
| --- | --- | --- |
| 4 | 0.250 | - |
| 8 | 0.125 | 1 |

![curve](figures/curve.png)

```
python -m two
```

## a first

```
python -m one --x 'a b'
```
"""  # noqa: E501
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no results"),
        ("[]", "not results"),
        ("{", "not results"),
        ('{"command": "a"}', "not results.*tables"),
        ('{"command": "a", "tables": [{"title": "t"}]}', "not results"),
        ('{"command": "a", "tables": [{"title": "t", "head": ["a"], "rows": [[1, 2]]}]}', "a row of 2 cells"),
        ('{"command": "run me", "tables": [], "figures": ["x.png"]}', "x.png is missing.*run me"),
    ],
)
def test_what_cannot_be_collected_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    page = tmp_path / "report.md"
    assert main([str(tmp_path), "-o", str(page)]) == 2
    assert not page.exists()
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(f"eval.report: {tmp_path}.*{message}", error), error


def test_a_page_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "no" / "report.md")]) == 2
    assert "there is no folder" in capsys.readouterr().err
