"""The watchdog: code that never yields is interrupted, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from durably.adapters.watchdog import Watchdog
from durably.core.errors import TurnTimeoutError

SOON_S = 10.0


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog(0.05)
    watchdog.start()
    yield watchdog
    watchdog.stop()


def spin(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def test_a_turn_within_its_budget_is_left_alone(watchdog: Watchdog) -> None:
    with watchdog.budget() as turn:
        pass
    assert not turn.exceeded


def test_an_endless_turn_is_interrupted(watchdog: Watchdog) -> None:
    with pytest.raises(TurnTimeoutError), watchdog.budget():
        spin(SOON_S)


def test_a_turn_that_swallows_the_interruption_is_known_to_have_overrun(watchdog: Watchdog) -> None:
    with watchdog.budget() as turn, suppress(BaseException):
        spin(SOON_S)
    assert turn.exceeded


def test_what_follows_a_turn_is_not_interrupted(watchdog: Watchdog) -> None:
    with watchdog.budget():
        pass
    spin(0.3)
    with watchdog.budget() as turn:
        pass
    assert not turn.exceeded
