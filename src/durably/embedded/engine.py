"""The engine thread: it alone takes turns. What arrives while it commits is taken together in the next commit."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue

from durably.core.errors import ContendedError, StorageError
from durably.embedded.workers import Workers
from durably.ports.backend import MessageSource
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery, Errand, HeartbeatCheck
from durably.runtime.attempt import Answer
from durably.runtime.callbacks import callback_deadline
from durably.runtime.errands import run_errand
from durably.runtime.heartbeats import check_heartbeat
from durably.runtime.runtime import Runtime
from durably.runtime.turn import TurnsTaken, TurnTaker

_logger = logging.getLogger("durably.engine")

_POLL_S = 0.02  # how soon the work of other processes is seen; this process's own is seen at once
_LULL_S = 0.001
_RETRY_S = 1.0
_BATCH = 500
_RECEIVE = 1_000
_KEEP_BACKLOG = 1_000
LEASE_MS = 100 * 365 * 86_400_000  # for life: activities may take any time, and the dead are noticed


class Engine:
    """Feeds messages to turns and workers until it is stopped.

    A message is leased as long as this process lives; what it sends to itself it keeps without a detour through
    the file. When it dies, by whatever signal, the backend gives its leases to others.
    """

    def __init__(self, runtime: Runtime, source: MessageSource, *, threads: int) -> None:
        self._runtime = runtime
        self._source = source
        self._turns = TurnTaker(runtime)
        self._workers = Workers(
            runtime, answered=self._answered, settled=self.poke, failed=self._failed, threads=threads
        )
        self._inbox: SimpleQueue[Delivery | None] = SimpleQueue()
        self._later: list[tuple[float, Delivery]] = []
        self._later_lock = threading.Lock()
        self._stopping = False
        self._next_poll = 0.0
        self._unforeseen = False
        self._thread = threading.Thread(target=self._run, name="durably-engine", daemon=True)
        self._something_closed = threading.Condition()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, grace_s: float) -> bool:
        """Finish what runs, take the turns that its answers ask for, start nothing more.

        Returns:
            Whether everything ended within `grace_s` seconds; what did not will run again.
        """
        finished = self._workers.stop(grace_s)
        self._stopping = True
        self._inbox.put(None)
        self._thread.join()
        return finished

    def hand_over(self, deliveries: Sequence[Delivery]) -> None:
        """Take messages that are leased to this process already."""
        for delivery in deliveries:
            self._inbox.put(delivery)

    def poke(self) -> None:
        """Look for messages now."""
        self._next_poll = 0.0
        self._inbox.put(None)

    def wait_for_turns(self, seconds: float) -> None:
        """Wait until an execution has closed, or so many seconds."""
        with self._something_closed:
            self._something_closed.wait(seconds)

    # --- inside ----------------------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        self._inbox.put(answer.delivery)

    def _failed(self, delivery: Delivery) -> None:
        self._put_off([delivery.once_more])

    def _put_off(self, deliveries: Iterable[Delivery]) -> None:
        at = time.monotonic() + _RETRY_S
        with self._later_lock:
            self._later.extend((at, delivery) for delivery in deliveries)

    def _run(self) -> None:
        while True:
            deliveries = self._collect()
            if deliveries:
                self._handle(deliveries)
            elif self._stopping:
                break
        self._turns.clear()

    def _collect(self) -> list[Delivery]:
        """What is to be handled now: handed over, due again after a failure, or received from the backend."""
        inbox = self._inbox
        deliveries: list[Delivery] = []
        now = time.monotonic()
        wait = 0.0 if self._stopping else max(0.0, self._next_poll - now)
        lull = self._unforeseen and wait > _LULL_S
        try:
            first = inbox.get(timeout=_LULL_S if lull else wait) if wait else inbox.get_nowait()
            lull = False
            if first is not None:
                deliveries.append(first)
            while len(deliveries) < _BATCH:
                item = inbox.get_nowait()
                if item is not None:
                    deliveries.append(item)
        except Empty:
            if lull:
                self._foresee()
        now = time.monotonic()
        if now >= self._next_poll and not self._stopping:
            self._next_poll = now + _POLL_S
            deliveries.extend(self._due_again(now))
            deliveries.extend(self._receive())
        return deliveries

    def _due_again(self, now: float) -> list[Delivery]:
        with self._later_lock:
            due = [delivery for at, delivery in self._later if at <= now]
            if due:
                self._later = [(at, delivery) for at, delivery in self._later if at > now]
        return due

    def _receive(self) -> list[Delivery]:
        room = _KEEP_BACKLOG - self._workers.backlog
        source, now_ms = self._source, self._runtime.clock.now_ms()
        try:
            received = source.receive(
                now_ms=now_ms,
                limit=_RECEIVE if room <= 0 else min(room, _RECEIVE),
                visibility_ms=LEASE_MS,
                tasks=room > 0,
            )
        except Exception as error:
            self._complain("could not receive messages", error)
            self._next_poll = time.monotonic() + _RETRY_S
            return []
        if room > 0:  # or what is due may be a task, and is not received
            self._foresee()
        return received

    def _foresee(self) -> None:
        """A timer that is due before the next poll brings it forward."""
        self._unforeseen = False
        try:
            due_ms = self._source.next_due_ms()
        except StorageError:
            return  # the next poll tells
        if due_ms is not None:
            wait_s = max((due_ms - self._runtime.clock.now_ms()) / 1000, _LULL_S)
            self._next_poll = min(self._next_poll, time.monotonic() + wait_s)

    def _handle(self, deliveries: list[Delivery]) -> None:
        groups: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            message = delivery.message
            if isinstance(message, ActivityTask):
                self._submit(delivery)
            elif isinstance(message, CallbackDeadline):
                self._handle_beside_turns(delivery, callback_deadline, "a callback's deadline")
            elif isinstance(message, HeartbeatCheck):
                self._handle_beside_turns(delivery, check_heartbeat, "a heartbeat's deadline")
            elif isinstance(message, Errand):
                self._handle_beside_turns(delivery, run_errand, "an errand of one execution to another")
            else:
                groups.setdefault(message.run.execution_id, []).append(delivery)
        if not groups:
            return
        keep = not self._stopping and self._workers.backlog < _KEEP_BACKLOG
        taken = self._take(groups, keep=keep)
        self._workers.withdraw(taken.cancelled)
        for delivery in taken.kept:
            if isinstance(delivery.message, ActivityTask):
                self._submit(delivery)
            else:
                self._inbox.put(delivery)
        self._put_off(delivery for id_ in taken.returned for delivery in groups[id_])
        self._unforeseen = True
        if taken.closed:
            with self._something_closed:
                self._something_closed.notify_all()

    def _submit(self, delivery: Delivery) -> None:
        try:
            self._workers.submit(delivery)
        except Exception as error:
            self._complain(f"no thread runs {delivery.message.id}", error)
            self._failed(delivery)

    def _take(self, groups: dict[str, list[Delivery]], *, keep: bool) -> TurnsTaken:
        """Take the turns together; where the store refuses that, one by one, so that each is refused for itself."""
        try:
            return self._turns.take(groups, keep=keep)
        except Exception as error:
            if len(groups) == 1:
                self._complain(f"the turn of {next(iter(groups))} could not be stored", error)
                return TurnsTaken([], list(groups), closed=False)
        parts = [self._take({id_: group}, keep=keep) for id_, group in groups.items()]
        return TurnsTaken(
            [delivery for part in parts for delivery in part.kept],
            [id_ for part in parts for id_ in part.returned],
            any(part.closed for part in parts),
            [key for part in parts for key in part.cancelled],
        )

    def _handle_beside_turns(self, delivery: Delivery, handle: Callable[[Runtime, Delivery], None], what: str) -> None:
        try:
            handle(self._runtime, delivery)
            self._next_poll = 0.0
        except Exception as error:
            self._complain(f"{what} could not be handled", error)
            self._failed(delivery)

    @staticmethod
    def _complain(what: str, error: Exception) -> None:
        """What the store refuses is told in a line; anything else is a bug of ours, and must not end the thread."""
        if isinstance(error, StorageError | ContendedError):
            _logger.warning("%s, trying again: %s", what, error)
        else:
            _logger.error("%s, trying again", what, exc_info=error)
