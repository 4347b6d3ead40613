"""Histories as they were recorded still replay: running executions survive the upgrade to this version."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.codec.exports import decode_export
from durably.core.history import read_history
from durably.testing import outline, replay
from tests.golden.record import HERE, ORCHESTRATORS, PATHS, file_of, recorded


@pytest.mark.parametrize("file", sorted(HERE.glob("*.json")), ids=lambda file: file.stem)
def test_a_golden_history_replays(file: Path) -> None:
    replayed = replay(file, ORCHESTRATORS)
    assert replayed.events == sum(len(turn.inbound) for turn in decode_export(file.read_text()).turns)


@pytest.mark.parametrize("name", PATHS)
def test_every_path_has_a_golden_history_that_tells_what_happens_today(name: str) -> None:
    kept, today = (decode_export(text) for text in (file_of(name).read_text(encoding="utf-8"), recorded(name)))
    assert outline(read_history(kept.turns)) == outline(read_history(today.turns))
