"""What others sent to an execution: signals until somebody receives them, updates until they are answered."""

from __future__ import annotations

import asyncio
from collections import deque

from durably.core.events import SignalReceived, UpdateAccepted
from durably.core.loop import OrchestratorLoop

_KEPT_MS = 24 * 3600 * 1000
KEPT_IDS = 1_000


class Inbox:
    """The signals and updates of one run, in the order of their arrival."""

    def __init__(self, loop: OrchestratorLoop) -> None:
        self._loop = loop
        self._open: dict[str, SignalReceived | UpdateAccepted] = {}
        self._unread: dict[str, deque[SignalReceived]] = {}
        self._waiters: dict[str, deque[asyncio.Future[SignalReceived]]] = {}
        self._ids: dict[str, int] = {}

    def know(self, ids: tuple[str, ...], at_ms: int) -> None:
        """Remember the ids of what earlier runs got."""
        self._ids.update(dict.fromkeys(ids, at_ms))

    def put(self, signal: SignalReceived) -> None:
        """Hand a signal to the first who waits for its name, or keep it for the next."""
        self._arrived(signal)
        waiters = self._waiters.get(signal.name)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(signal)
                return
        self._unread.setdefault(signal.name, deque()).append(signal)

    async def receive(self, name: str) -> SignalReceived:
        """The oldest unread signal of a name."""
        unread = self._unread.get(name)
        if unread:
            signal = unread.popleft()
        else:
            waiter = asyncio.Future[SignalReceived](loop=self._loop)
            self._waiters.setdefault(name, deque()).append(waiter)
            try:
                signal = await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._give_back(waiter.result())
                raise
        self._open.pop(signal.request_id, None)
        return signal

    def accept(self, update: UpdateAccepted) -> None:
        """Keep an update until it is answered."""
        self._arrived(update)

    def answered(self, request_id: str) -> None:
        """An update is answered."""
        self._open.pop(request_id, None)

    @property
    def awaited(self) -> list[str]:
        """Names of the signals that somebody waits for."""
        return [name for name, waiters in self._waiters.items() if not all(waiter.done() for waiter in waiters)]

    @property
    def unanswered(self) -> list[UpdateAccepted]:
        """The updates that are not answered."""
        return [request for request in self._open.values() if isinstance(request, UpdateAccepted)]

    @property
    def carried(self) -> tuple[SignalReceived | UpdateAccepted, ...]:
        """What the next run must get, in the order of its arrival."""
        return tuple(self._open.values())

    def seen(self, now_ms: int) -> tuple[str, ...]:
        """Ids of the last day, at most `KEPT_IDS`, the oldest first."""
        recent = [id_ for id_, at_ms in self._ids.items() if at_ms >= now_ms - _KEPT_MS and id_ not in self._open]
        return tuple(recent[-KEPT_IDS:])

    def _arrived(self, request: SignalReceived | UpdateAccepted) -> None:
        self._ids[request.request_id] = request.at_ms
        self._open[request.request_id] = request

    def _give_back(self, signal: SignalReceived) -> None:
        """Its receiver was cancelled before it could run: it is the next one's."""
        for waiter in self._waiters.get(signal.name, ()):
            if not waiter.done():
                waiter.set_result(signal)
                return
        self._unread.setdefault(signal.name, deque()).appendleft(signal)
