"""The heart of an attempt: what its heartbeats store, how often, and how it learns that nobody waits for it."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

from durably.core.errors import ActivityCancelledError, PayloadError, StorageError
from durably.core.options import DEFAULT_OPTIONS
from durably.ports.backend import Settlement
from durably.ports.messages import ActivityTask
from durably.ports.records import ActivityItem
from durably.runtime.fence import MAX_CONFLICTS, current
from durably.runtime.runtime import Essentials

_logger = logging.getLogger("durably.activity")
_PAUSE_MS = 5_000
_OVER = "This attempt is over: it overran its time, or has been answered. What it still does has no effect."


class Heart:
    """Beats for one attempt, from any of its threads.

    A heartbeat is stored if the last one stored is older than a quarter of the heartbeat timeout, or 5 s; the details
    of others are kept in memory until the next, or until the attempt fails, and are then stored with its failure.

    Args:
        runtime: the surroundings.
        task: of the attempt.
        item: as it is stored now.
    """

    def __init__(self, runtime: Essentials, task: ActivityTask, item: ActivityItem | None) -> None:
        self._runtime = runtime
        self._task = task
        self._item = item
        self._before = None if item is None else item.details
        self._details = self._before
        self._stored_ms: int | None = None
        self._lock = threading.Lock()
        self._over: str | None = None
        self.lost = False
        options = task.options or DEFAULT_OPTIONS
        self._pause_ms = _PAUSE_MS if options.heartbeat_ms is None else min(_PAUSE_MS, options.heartbeat_ms // 4)
        self._local = options.mode == "local"

    def stop(self) -> ActivityItem | None:
        """The attempt is over: beat no more. Its item as last seen, with the last details."""
        with self._lock:
            self._over = self._over or _OVER
            return self._latest()

    def seen(self, item: ActivityItem | None) -> ActivityItem | None:
        """Somebody else changed the item; what the attempt's end is to change now."""
        with self._lock:
            self._item = item
            return self._latest()

    def beat(self, details: object, details_type: Any) -> None:
        """Say that the attempt is alive, and how far it got; None leaves the details as they are.

        Raises:
            ActivityCancelledError: nobody waits for it any more.
            PayloadError: the details cannot be stored.
        """
        text = None if details is None else self._encoded(details, details_type)
        with self._lock:
            if text is not None:
                self._details = text
            now_ms = self._runtime.clock.now_ms()
            if self._over is None and self._due(now_ms):
                try:
                    self._over = self._store(now_ms)
                    self.lost = self._over is not None
                except StorageError as error:
                    _logger.warning("a heartbeat of %s could not be stored: %s", self._task.name, error)
            if self._over is not None:
                raise ActivityCancelledError(self._over)

    def last(self, details_type: Any) -> Any:
        """The details that an earlier attempt left, or an earlier delivery of this one; None for none.

        Raises:
            PayloadError: they do not fit the type.
        """
        return None if self._before is None else self._runtime.registry.codec.value(details_type).decode(self._before)

    # --- inside ----------------------------------------------------------------------------------------------

    def _encoded(self, details: object, details_type: Any) -> str:
        kind = type(details) if details_type is None else details_type
        text = self._runtime.registry.codec.value(kind).encode(details)
        check_details(self._runtime, text)
        return text

    def _due(self, now_ms: int) -> bool:
        return self._stored_ms is None or not 0 <= now_ms - self._stored_ms < self._pause_ms

    def _store(self, now_ms: int) -> str | None:
        """Store the heartbeat; why it is no longer wanted, or None."""
        task, backend = self._task, self._runtime.backend
        record = backend.read_record(task.run.execution_id)
        if record is None or record.gen != task.run.gen or record.closed:
            return f"Execution {task.run.execution_id} has ended."
        if record.run > task.run.run:
            return f"Execution {task.run.execution_id} went on without this activity, in run {record.run}."
        for _ in range(MAX_CONFLICTS):
            if self._local:  # its turn alone brings it back after a crash, if it has no item
                found, written = backend.read_item(task.key), True
            else:
                beaten = self._beaten(now_ms)
                outcome = backend.settle(Settlement(item=beaten))
                found, written = (beaten if outcome.written else outcome.found), outcome.written
            self._item = found
            if found is not None and not current(found, task):
                return _why(task, found)
            if written:
                self._stored_ms = now_ms
                return None
        raise StorageError("others kept changing its item")

    def _beaten(self, now_ms: int) -> ActivityItem:
        item = self._latest()
        if item is None:
            return ActivityItem(
                key=self._task.key,
                state="running",
                attempt=self._task.attempt,
                version=1,
                last_failure=self._task.last_failure,
                beat_at_ms=now_ms,
                details=self._details,
            )
        state = "running" if item.state == "retrying" else item.state
        return replace(item, state=state, version=item.version + 1, beat_at_ms=now_ms)

    def _latest(self) -> ActivityItem | None:
        return None if self._item is None else replace(self._item, details=self._details)


def check_details(runtime: Essentials, text: str) -> None:
    """Refuse details that are too large.

    Raises:
        PayloadError: they are.
    """
    size, limit = len(text.encode()), runtime.limits.heartbeat_bytes
    if size > limit:
        raise PayloadError(
            f"The details of a heartbeat have {size} bytes, more than {limit}. Store them elsewhere and say where."
        )


def _why(task: ActivityTask, item: ActivityItem) -> str:
    if item.state == "cancelled":
        return f"{task.name} was cancelled."
    if item.attempt > task.attempt:
        return f"Attempt {task.attempt} of {task.name} was given up; attempt {item.attempt} takes its place."
    return f"{task.name} has been answered already."
