"""Time and chance as arguments: the only places that may ask the machine for either are adapters."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall-clock time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...


class Entropy(Protocol):
    """Randomness."""

    def ulid(self, now_ms: int) -> str:
        """A new ULID: 26 characters that sort by time."""
        ...

    def nonce(self) -> str:
        """A short string that nobody else draws."""
        ...

    def seed(self) -> int:
        """A seed of 63 bits."""
        ...

    def draw(self) -> float:
        """A number from [0, 1)."""
        ...
