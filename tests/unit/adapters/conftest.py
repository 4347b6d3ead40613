"""Fixtures of the adapters' tests. The contract suite's builders and clock serve here too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from durably.adapters.sqlite import SqliteBackend
from tests.contract.harness import ManualClock

Open = Callable[..., SqliteBackend]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durably.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def opened(path: Path, clock: ManualClock) -> Iterator[Open]:
    """Opens backends on `path` and closes them in the end."""
    with ExitStack() as stack:

        def open_backend(**options: Any) -> SqliteBackend:
            settings: dict[str, Any] = {"clock": clock, "synchronous": "OFF"} | options
            return stack.enter_context(SqliteBackend(path, **settings))

        yield open_backend
