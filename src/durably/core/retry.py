"""Retry policies and the arithmetic of back-off. Randomness comes in as an argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from durably.core.errors import DefinitionError
from durably.core.failures import Failure

LONGEST = timedelta(days=36_500)  # that anything waits, so that what is due is always a date


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a failing activity is tried again.

    Attempt n+1 starts after a delay drawn evenly from (0, cap], "full jitter", where
    cap = min(initial_interval * coefficient ** (n - 1), maximum_interval). `jitter=False` waits for the cap.

    Args:
        initial_interval: cap of the first delay.
        coefficient: growth of the cap per attempt, at least 1.
        maximum_interval: largest cap; 100 times the initial one unless given.
        max_attempts: attempts in all, the first included; 0 means no bound.
        non_retryable: error types, as classes or names (bare or qualified), that are never retried.
        jitter: draw the delay at random, so that many failures do not return at once.

    Raises:
        DefinitionError: when a number is out of range.
    """

    initial_interval: timedelta = timedelta(seconds=1)
    coefficient: float = 2.0
    maximum_interval: timedelta | None = None
    max_attempts: int = 3
    non_retryable: Sequence[str | type[BaseException]] = ()
    jitter: bool = True

    def __post_init__(self) -> None:
        for name, interval in (("initial", self.initial_interval), ("maximum", self.maximum_interval)):
            if interval is not None and not isinstance(interval, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise DefinitionError(f"RetryPolicy.{name}_interval must be a timedelta, got {interval!r}.")
            if interval is not None and interval > LONGEST:
                raise DefinitionError(f"RetryPolicy.{name}_interval is at most {LONGEST.days} days, got {interval}.")
        if self.initial_interval < timedelta(0):
            raise DefinitionError(f"RetryPolicy.initial_interval must not be negative, got {self.initial_interval}.")
        if not 1 <= self.coefficient < math.inf:
            raise DefinitionError(f"RetryPolicy.coefficient must be at least 1 and finite, got {self.coefficient}.")
        if self.maximum_interval is not None and self.maximum_interval < self.initial_interval:
            raise DefinitionError(
                f"RetryPolicy.maximum_interval ({self.maximum_interval}) must not be shorter than "
                f"initial_interval ({self.initial_interval})."
            )
        if self.max_attempts < 0:
            raise DefinitionError(
                f"RetryPolicy.max_attempts must be 0 (no bound) or positive, got {self.max_attempts}."
            )
        if isinstance(self.non_retryable, str):
            raise DefinitionError(
                f"RetryPolicy.non_retryable must be a sequence of types or names, got {self.non_retryable!r}."
            )
        object.__setattr__(self, "non_retryable", tuple(_type_name(entry) for entry in self.non_retryable))

    def allows(self, failure: Failure, attempt: int) -> bool:
        """Whether attempt `attempt` (1-based), having failed with `failure`, may be followed by another."""
        if failure.non_retryable or (self.max_attempts and attempt >= self.max_attempts):
            return False
        return not any(failure.matches(name) for name in self.non_retryable if isinstance(name, str))

    def delay_ms(self, attempt: int, draw: float) -> int:
        """Milliseconds between the failure of attempt `attempt` (1-based) and the next one.

        Args:
            attempt: the attempt that failed.
            draw: a number from [0, 1) drawn by the caller.
        """
        initial = self.initial_interval.total_seconds() * 1000
        ceiling = 100 * initial if self.maximum_interval is None else self.maximum_interval.total_seconds() * 1000
        try:
            cap = min(initial * self.coefficient ** (attempt - 1), ceiling)
        except OverflowError:
            cap = ceiling
        return round(cap * (1 - draw)) if self.jitter else round(cap)


def _type_name(entry: str | type[BaseException]) -> str:
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, type):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"RetryPolicy.non_retryable takes types and names, got {entry!r}.")
    return f"{entry.__module__}.{entry.__qualname__}"
