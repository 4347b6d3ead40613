"""`durably lint`: what it says, what it lets through, how it exits; and docs/lint.md says the same as the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from durably.cli import main
from durably.lint.rules import RULES
from tests.unit.lint.programs import program

ROOT = Path(__file__).parents[3]
BAD = program("time.time()\nrandom.random()", "import random, time")
LINES = [number for number, line in enumerate(BAD.splitlines(), start=1) if line.startswith("    ")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "orchestrators").mkdir()
    (tmp_path / "orchestrators" / "flows.py").write_text(BAD)
    return tmp_path


def test_findings_are_lines_that_editors_understand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint"]) == 1
    said = capsys.readouterr()
    clock, chance = LINES
    assert said.out == (
        f"orchestrators/flows.py:{clock}:5: DUR001 time.time reads the clock, which says something else at the next "
        "replay. Use ctx.now().\n"
        f"orchestrators/flows.py:{chance}:5: DUR002 random.random is random, and another value at the next replay. "
        "Use ctx.random or ctx.uuid4().\n"
    )
    assert said.err == ""


def test_findings_are_json_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", "--format", "json", "orchestrators/flows.py"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first.pop("message").startswith("time.time reads the clock")
    assert first == {"file": "orchestrators/flows.py", "line": LINES[0], "column": 5, "code": "DUR001"}
    assert second["code"] == "DUR002"
    assert main(["lint", "--format", "json", "--ignore", "DUR"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_findings_are_annotations_for_github(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "orchestrators" / "a,b.py").write_text(program("f'{1}%' + open('x')"))
    assert main(["lint", "--format", "github"]) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert re.match(r"::error file=orchestrators/a%2Cb\.py,line=\d+,col=\d+,title=DUR004::open touches files", first)
    assert second.startswith(f"::error file=orchestrators/flows.py,line={LINES[0]},col=5,title=DUR001::time.time reads")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--select", "DUR001"], ["DUR001"]),
        (["--select", "dur001, DUR002"], ["DUR001", "DUR002"]),
        (["--select", "DUR00"], ["DUR001", "DUR002"]),
        (["--ignore", "DUR001"], ["DUR002"]),
        (["--select", "DUR", "--ignore", "DUR002"], ["DUR001"]),
        (["--select", "DUR01"], []),
    ],
)
def test_codes_are_selected_and_ignored(
    options: list[str], left: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", *options]) == (1 if left else 0)
    assert re.findall(r": (DUR\d+) ", capsys.readouterr().out) == left


@pytest.mark.parametrize(
    ("comment", "left"),
    [
        ("# noqa", 0),
        ("# NOQA: DUR001", 0),
        ("#noqa:DUR002,DUR001", 0),
        ("# the start is what matters  # noqa: E501, DUR001", 0),
        ("# noqa: DUR002", 1),
        ("# noqa: E501", 1),
        ("# no, qa", 1),
    ],
)
def test_a_comment_lets_its_line_through(
    comment: str, left: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = program(f"time.time()  {comment}\ntext = '# noqa'", "import time")
    (folder / "orchestrators" / "flows.py").write_text(text)
    assert main(["lint"]) == left


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["notes.txt"], "notes.txt is neither a folder nor a Python file"),
        (["--select", "DUR001,DUR9"], "No rule has the code DUR9. There are DUR000 to DUR"),
    ],
)
def test_what_cannot_be_looked_for_exits_with_2(
    arguments: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes.txt").touch()
    assert main(["lint", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"durably: {says}")


def test_a_folder_without_orchestrators_is_not_passed_over_in_silence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "plain.py").write_text("import time\ntime.time()\n")
    assert main(["lint", "other"]) == 0
    assert "there is no orchestrator" in capsys.readouterr().err
    (folder / "orchestrators" / "flows.py").unlink()
    (folder / "orchestrators").rmdir()
    assert main(["lint"]) == 2
    assert "There is no orchestrators/ here" in capsys.readouterr().err


def test_the_orchestrators_of_this_project_are_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["lint", "orchestrators"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_page_lists_each_rule_as_the_code_has_it() -> None:
    page = (ROOT / "docs" / "lint.md").read_text()
    rows = re.findall(r"^\| (DUR\d+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert [(code, problem) for code, problem, _ in rows] == [(rule.code, rule.problem) for rule in RULES]
    assert [remedy for *_, remedy in rows] == [rule.remedy for rule in RULES]
