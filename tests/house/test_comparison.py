"""The comparison with others names the test that proves each feature of ours; a test that is named must exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLUMNS = 8


def rows() -> Iterator[list[str]]:
    """The cells of each row that is about a feature."""
    for line in (ROOT / "docs/comparison.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] not in {"feature", "---"}:
            yield cells


def named(cells: list[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", cells[-1])


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / "tests" / file
    return path.is_file() and f"\ndef {name}(" in path.read_text(encoding="utf-8")


def test_every_row_has_a_cell_for_everybody() -> None:
    found = list(rows())
    assert len(found) > 30
    assert [cells[0] for cells in found if len(cells) != COLUMNS or not all(cells[:-1])] == []


def test_every_test_that_is_named_exists() -> None:
    assert [test for cells in rows() for test in named(cells) if not exists(test)] == []
    assert sum(bool(named(cells)) for cells in rows()) > 25


def test_a_test_that_does_not_exist_would_be_found() -> None:
    assert not exists("house/test_comparison.py::test_that_does_not_exist")
    assert not exists("house/test_nothing.py::test_every_row_has_a_cell_for_everybody")
