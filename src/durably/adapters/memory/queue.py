"""A queue in memory that behaves as a cloud's does: leases, receive counts, receipts that go stale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from durably.codec import wire
from durably.ports.messages import ActivityTask, Delivery, Message, Outgoing


@dataclass(slots=True)
class _Queued:
    position: int
    id: str
    body: bytes
    visible_at_ms: int
    receives: int = 0
    leases: int = 0


class MessageQueue:
    """Messages by id. Not thread-safe: the backend holds its lock around each call."""

    def __init__(self) -> None:
        self._by_id: dict[str, _Queued] = {}
        self._by_receipt: dict[str, _Queued] = {}
        self._last_position = 0

    def put(self, messages: Iterable[Outgoing], *, now_ms: int, lease_ms: int, keep: bool) -> tuple[Delivery, ...]:
        """Queue what is not queued yet; what is due is leased at once and returned, if `keep`."""
        kept: list[Delivery] = []
        for outgoing in messages:
            message = outgoing.message
            if message.id in self._by_id:
                continue
            self._last_position += 1
            due_ms = max(outgoing.due_ms, now_ms)
            queued = _Queued(self._last_position, message.id, wire.encode_message(message), due_ms)
            self._by_id[queued.id] = queued
            if keep and due_ms <= now_ms:
                kept.append(Delivery(message, self._lease(queued, now_ms + lease_ms), queued.receives))
        return tuple(kept)

    def receive(self, *, now_ms: int, limit: int, visibility_ms: int, tasks: bool = True) -> list[Delivery]:
        """Lease the messages that are due, longest first."""
        due = [queued for queued in self._by_id.values() if queued.visible_at_ms <= now_ms]
        if not tasks:
            due = [queued for queued in due if not isinstance(wire.decode_message(queued.body), ActivityTask)]
        due.sort(key=lambda queued: (queued.visible_at_ms, queued.position))
        return [
            Delivery(wire.decode_message(queued.body), self._lease(queued, now_ms + visibility_ms), queued.receives)
            for queued in due[:limit]
        ]

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete; stale receipts change nothing."""
        for receipt in receipts:
            queued = self._by_receipt.pop(receipt, None)
            if queued is not None:
                del self._by_id[queued.id]

    def release(self, receipt: str, *, due_ms: int) -> None:
        """End a lease, as if the message had not been received; a stale receipt changes nothing."""
        queued = self._by_receipt.pop(receipt, None)
        if queued is not None:
            queued.receives -= 1
            queued.visible_at_ms = due_ms

    def next_due_ms(self) -> int | None:
        """When the next message may be received."""
        return min((queued.visible_at_ms for queued in self._by_id.values()), default=None)

    def messages(self) -> list[tuple[Message, int]]:
        """All messages, leased ones too, with the instant at which they may be received."""
        return [(wire.decode_message(queued.body), queued.visible_at_ms) for queued in self._by_id.values()]

    def _lease(self, queued: _Queued, until_ms: int) -> str:
        self._by_receipt.pop(_receipt(queued), None)
        queued.receives += 1
        queued.leases += 1
        queued.visible_at_ms = until_ms
        receipt = _receipt(queued)
        self._by_receipt[receipt] = queued
        return receipt


def _receipt(queued: _Queued) -> str:
    return f"{queued.position}:{queued.leases}"
