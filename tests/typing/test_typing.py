"""What types promise a user: right programs check cleanly, misuse is an error, under mypy and pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACCEPTS = HERE / "accepts.py"
REJECTS = HERE / "rejects.py"

Errors = dict[tuple[str, int], list[str]]
"""File name and line to the messages there."""


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    # 1 is "I found errors", which is what rejects.py is for; anything above is the checker's own failure
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@cache
def mypy() -> Errors:
    errors: Errors = {}
    output = run("mypy", "--no-error-summary", "--output=json", str(ACCEPTS), str(REJECTS))
    for line in output.splitlines():
        found = json.loads(line)
        if found["severity"] == "error":
            errors.setdefault((Path(found["file"]).name, found["line"]), []).append(found["message"])
    return errors


@cache
def pyright() -> Errors:
    errors: Errors = {}
    # a project of its own: the project-wide configuration leaves rejects.py out
    report = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(HERE)))
    assert report["summary"]["filesAnalyzed"] == 2, report["summary"]
    for found in report["generalDiagnostics"]:
        if found["severity"] == "error":
            place = (Path(found["file"]).name, found["range"]["start"]["line"] + 1)
            errors.setdefault(place, []).append(found["message"])
    return errors


def marked_lines() -> set[int]:
    lines = REJECTS.read_text().splitlines()
    return {number for number, line in enumerate(lines, start=1) if re.search(r"  # E: ", line)}


both_checkers = pytest.mark.parametrize("checker", [mypy, pyright])


@pytest.mark.slow
@both_checkers
def test_a_right_program_has_no_type_error(checker: Callable[[], Errors]) -> None:
    unexpected = {place: said for place, said in checker().items() if place[0] != REJECTS.name}
    assert not unexpected


@pytest.mark.slow
@both_checkers
def test_each_marked_misuse_and_nothing_else_is_a_type_error(checker: Callable[[], Errors]) -> None:
    found = {line: said for (file, line), said in checker().items() if file == REJECTS.name}
    missed = sorted(marked_lines() - found.keys())
    surprises = {line: said for line, said in found.items() if line not in marked_lines()}
    assert not missed, f"misuse that type-checks, in lines {missed} of {REJECTS.name}"
    assert not surprises


def test_there_is_misuse_to_reject() -> None:
    assert len(marked_lines()) >= 50
