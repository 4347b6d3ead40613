"""Histories as they were recorded still replay: running executions survive the upgrade to this version."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.story import STORIES
from durably.codec.exports import decode_export
from durably.core.history import read_history
from durably.testing import outline, replay
from tests.golden.record import HERE, TOLD, file_of, orchestrators, paths, recorded


@pytest.mark.parametrize("file", sorted(HERE.glob("*.json")), ids=lambda file: file.stem)
def test_a_golden_history_replays(file: Path) -> None:
    *over, current = decode_export(file.read_text(encoding="utf-8")).runs
    applied = sum(run.turns[-1].applied_through for run in over)
    assert replay(file, orchestrators()).events == applied + sum(len(turn.inbound) for turn in current.turns)


@pytest.mark.parametrize("name", paths())
def test_every_path_has_a_golden_history_that_tells_what_happens_today(name: str) -> None:
    kept, today = file_of(name).read_text(encoding="utf-8"), recorded(paths()[name])
    assert _outlines(kept) == _outlines(today)


@pytest.mark.parametrize("story", STORIES)
def test_every_story_has_golden_histories(story: str) -> None:
    assert story in TOLD, f"write tests/golden/{story}.py with its PATHS, and record them"
    assert any(name.startswith(f"{story}_") for name in paths())


def _outlines(text: str) -> list[list[str]]:
    return [outline(read_history(run.turns)) for run in decode_export(text).runs]
