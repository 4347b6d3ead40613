"""Virtual time and seeded chance: what makes a test take no time and come out the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar

from durably.client import Client
from durably.core.channels import Query
from durably.core.context import instant
from durably.core.errors import ConfigurationError
from durably.runtime.runtime import Runtime

R = TypeVar("R")
T = TypeVar("T")

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class VirtualClock:
    """Stands still until it is moved. Implements `Clock`."""

    def __init__(self, start_at: datetime) -> None:
        if start_at.tzinfo is None:
            raise ConfigurationError(
                f"Virtual time must start at an instant, and {start_at} names no time zone: datetime(..., tzinfo=UTC)."
            )
        self._now_ms = round((start_at - instant(0)) / timedelta(milliseconds=1))

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self._now_ms

    def move_to(self, at_ms: int) -> None:
        """Let time pass; it never goes back."""
        self._now_ms = max(self._now_ms, at_ms)


class SeededEntropy:
    """Draws the same at every run. What is drawn for one purpose does not shift another. Implements `Entropy`."""

    def __init__(self, seed: int) -> None:
        self._ids, self._nonces, self._seeds, self._draws = (
            Random(f"{seed} {purpose}") for purpose in ("ids", "nonces", "seeds", "draws")
        )

    def ulid(self, now_ms: int) -> str:
        """26 characters that sort by time."""
        number = now_ms << 80 | self._ids.getrandbits(80)
        return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))

    def nonce(self) -> str:
        """16 characters."""
        return f"{self._nonces.getrandbits(64):016x}"

    def seed(self) -> int:
        """63 bits."""
        return self._seeds.getrandbits(63)

    def draw(self) -> float:
        """A number from [0, 1)."""
        return self._draws.random()


class VirtualClient(Client):
    """A client whose waiting takes virtual time.

    Args:
        wait: lets something happen, until that instant at the latest; False if it is reached and nothing is left.
    """

    def __init__(self, runtime: Runtime, *, wait: Callable[[float], bool]) -> None:
        super().__init__(runtime.backend, runtime.registry, runtime.clock, runtime.entropy)
        self._wait = wait
        self._budget = runtime.budget

    def query(self, execution_id: str, query: Query[R], /) -> R:
        """As `Client.query`, within the time budget of a turn."""
        with self._budget():
            return super().query(execution_id, query)

    def query_by_name(self, execution_id: str, name: str) -> str:
        """As `Client.query_by_name`, within the time budget of a turn."""
        with self._budget():
            return super().query_by_name(execution_id, name)

    def _until(self, look: Callable[[], T | None], timeout: float | None) -> T | None:
        until_ms = math.inf if timeout is None else self._clock.now_ms() + 1000 * timeout
        while (seen := look()) is None and self._wait(until_ms):
            pass
        return seen


def milliseconds(duration: object) -> int:
    """A duration as durably counts it.

    Raises:
        ConfigurationError: it is none, or negative.
    """
    if not isinstance(duration, timedelta) or duration < timedelta(0):
        raise ConfigurationError(f"Virtual time passes by a timedelta that is not negative, got {duration!r}.")
    return round(duration / timedelta(milliseconds=1))
