"""What happens to each packet, decided by the seed alone: no call order, no clock, no memory.

So a run in which the runtime is killed meets the same network errors and the same late acknowledgements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

PROVIDERS = ("RouteA", "RouteB", "RouteC", "RouteD", "RouteE")

# An acknowledgement due just before or just after its deadline would be in time by one clock and late by another,
# and one due while the runtime is dead has to be repeated once it is back. So those in time come within the first
# quarter of the deadline, which leaves three quarters for a restart, and those that are late are so by at least a
# quarter. How many are late does not change.
IN_TIME = 0.25
LATE = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """The chances of one run of the demo.

    Attributes:
        error_chance: of a network error each time a route is asked for.
        callback_chance: that a transmission is ever acknowledged.
        max_delay: seconds until the latest acknowledgement.
        deadline: seconds after which nobody waits for one.
    """

    seed: int
    error_chance: float = 0.1
    callback_chance: float = 0.9
    max_delay: float = 1.5
    deadline: float = 1.0

    def network_fails(self, packet_id: str, failed: Sequence[str], attempt: int) -> bool:
        """Whether asking for the next route meets a network error at this attempt."""
        return self._draw("route", packet_id, *failed, attempt).random() < self.error_chance

    def acknowledged_after(self, packet_id: str, provider: str) -> float | None:
        """Seconds from submission to acknowledgement, or None for never."""
        draw = self._draw("transmit", packet_id, provider)
        acknowledges = draw.random() < self.callback_chance
        delay = draw.random() * self.max_delay
        if not acknowledges:
            return None
        return delay * IN_TIME if delay < self.deadline else max(delay, LATE * self.deadline)

    def _draw(self, *what: object) -> Random:
        return Random("/".join(map(str, (self.seed, *what))))


def next_provider(failed: Sequence[str]) -> str | None:
    """The first provider that has not failed, None if all have."""
    return next((provider for provider in PROVIDERS if provider not in failed), None)
