"""What a contract test holds in its hands: a backend, the receiving end of its queues, and a clock.

Written for queues as they are on AWS too: they deliver at least once, later, in another order, and `keep` may keep
nothing. So tests ask for what must arrive (`drain(until=...)`) and look at what was not kept either.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from durably.ports.backend import Backend, MessageSource
from durably.ports.messages import Delivery, Message

VISIBILITY_MS = 60_000
START_MS = 1_700_000_000_000


class ManualClock:
    """A clock that a test moves."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def advance(self, ms: int) -> None:
        self.ms += ms


@dataclass
class Harness:
    """A backend under test.

    Attributes:
        patience_s: how long a message may take on its way; a queue in the same process takes no time.
        drops_copies: whether what is queued already is not queued again; a standard SQS queue does not notice.
        knows_next_due: whether the source can tell when the next message is due.
        counts_released: whether a delivery counts although the message was given back, as SQS has it.
    """

    backend: Backend
    source: MessageSource
    clock: ManualClock = field(default_factory=ManualClock)
    patience_s: float = 0.0
    drops_copies: bool = True
    knows_next_due: bool = True
    counts_released: bool = False

    def advance(self, ms: int) -> None:
        self.clock.advance(ms)

    def receive(
        self, *, until: Iterable[str] = (), visibility_ms: int = VISIBILITY_MS, limit: int = 10
    ) -> list[Delivery]:
        """Lease what is due, until all ids of `until` came, or nothing more comes within the patience."""
        missing = set(until)
        received: list[Delivery] = []
        deadline = time.monotonic() + self.patience_s
        while True:
            batch = self.source.receive(now_ms=self.clock.now_ms(), limit=limit, visibility_ms=visibility_ms)
            received += batch
            missing -= {delivery.message.id for delivery in batch}
            if until and not missing:
                return received
            if not batch and time.monotonic() >= deadline:
                return received
            if not batch:
                time.sleep(0.02)

    def drain(self, *, until: Iterable[str] = ()) -> dict[str, Message]:
        """Receive and acknowledge what is due; messages by id, so that duplicates do not count."""
        received = self.receive(until=until)
        self.backend.acknowledge([delivery.receipt for delivery in received])
        return {delivery.message.id: delivery.message for delivery in received}

    def one(self, message_id: str, *, visibility_ms: int = VISIBILITY_MS) -> Delivery:
        """Lease the message with this id, which must be due."""
        found = [
            delivery
            for delivery in self.receive(until=[message_id], visibility_ms=visibility_ms)
            if delivery.message.id == message_id
        ]
        assert found, f"{message_id} was not delivered"
        return found[-1]
