"""Every run that a test starts is replayed at each prefix when the test ends, and must leave no noise behind."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.core.harness import Run

Start = Callable[..., Run]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a run. At the end each run is replayed at every prefix and closed."""
    runs: list[Run] = []

    def started(*args: Any, **options: Any) -> Run:
        run = Run(*args, **options)
        runs.append(run)
        return run

    yield started
    for run in runs:
        run.check()
        run.execution.close()
    runs.clear()


@pytest.fixture(scope="session", autouse=True)
def _what_was_imported_is_not_searched_for_garbage() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _asyncio_says_nothing(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    gc.collect()
    noise = [record for when in ("call", "teardown") for record in caplog.get_records(when)]
    assert not [record.getMessage() for record in noise if record.name == "asyncio" and record.levelno > logging.DEBUG]
