"""The backends that the contract suite runs on. Another one joins by a branch here; no test changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durably.adapters.memory import MemoryBackend
from durably.adapters.sqlite import SqliteBackend
from tests.contract.aws import SqsSource, cloud
from tests.contract.harness import VISIBILITY_MS, Harness, ManualClock


@pytest.fixture(params=["memory", "sqlite", "aws"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    clock = ManualClock()
    if request.param == "memory":
        memory = MemoryBackend(clock, visibility_ms=VISIBILITY_MS)
        yield Harness(memory, memory, clock)
    elif request.param == "aws":
        with cloud(clock) as made:
            backend = made.backend()
            source = SqsSource(made, backend)
            yield Harness(backend, source, clock, drops_copies=False, knows_next_due=False, counts_released=True)
    else:
        path = tmp_path / "durably.db"
        with SqliteBackend(path, clock=clock, synchronous="OFF", visibility_ms=VISIBILITY_MS) as sqlite:
            yield Harness(sqlite, sqlite, clock)
