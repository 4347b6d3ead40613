"""Runs activities: `def` in threads, `async def` on one event loop of its own, each within its timeout."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from durably.api.attempt import current_attempt
from durably.core.errors import ContendedError, StorageError
from durably.core.failures import message_of
from durably.core.keys import ActivityKey
from durably.embedded.loop import LoopThread
from durably.ports.messages import ActivityTask, Delivery
from durably.runtime.attempt import (
    Answer,
    Attempt,
    attempt_raised,
    attempt_returned,
    attempt_timed_out,
    open_attempt,
)
from durably.runtime.runtime import Runtime

_logger = logging.getLogger("durably.activity")
_RETRY_S = 1.0

_End: TypeAlias = Callable[[], Answer | None]  # what is to be done about an attempt's end


class _Running:
    """An attempt under way. Whoever ends it first, the function or the clock, decides how it ends."""

    __slots__ = ("_ended", "_lock", "attempt")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._lock = threading.Lock()
        self._ended = False

    def end(self) -> bool:
        """True for the first caller only."""
        with self._lock:
            first = not self._ended
            self._ended = True
            return first


class Workers:
    """Runs the tasks of one process.

    Args:
        runtime: the surroundings.
        answered: takes answers; called from worker threads.
        settled: hears that an attempt ended without an answer, as one that is retried does.
        failed: takes a delivery whose handling failed for a reason of ours or of the store's; it is to be tried again.
        threads: how many sync activities run at a time.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        answered: Callable[[Answer], None],
        settled: Callable[[], None],
        failed: Callable[[Delivery], None],
        threads: int,
    ) -> None:
        self._runtime = runtime
        self._answered = answered
        self._settled = settled
        self._failed = failed
        self._limit = threads
        self._queue: SimpleQueue[Delivery | None] = SimpleQueue()
        self._withdrawn: set[ActivityKey] = set()
        self._lock = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._waiting = 0
        self._busy = 0
        self._stopping = False
        self._abandoned = False
        self._alarms = _Alarms()
        self._loop = LoopThread()

    @property
    def backlog(self) -> int:
        """Tasks waiting for a thread."""
        return self._queue.qsize()

    def submit(self, delivery: Delivery) -> None:
        """Run a task as soon as a thread is free.

        Raises:
            RuntimeError: there is no thread, and the system starts none.
        """
        with self._lock:  # a thread that has just taken a task still idles
            wanted = self._idle <= self._waiting and self._threads < self._limit and not self._stopping
        if wanted:
            try:
                self._spawn()
            except RuntimeError as error:
                if not self._threads:
                    raise
                _logger.warning("%d threads go on without another one: %s", self._threads, error)
        with self._lock:
            self._waiting += 1
        self._queue.put(delivery)

    def withdraw(self, keys: Iterable[ActivityKey]) -> None:
        """Do not begin these activities, whose items are cancelled. What has begun goes on."""
        if self.backlog:
            self._withdrawn.update(keys)
        else:
            self._withdrawn.clear()

    def stop(self, grace_s: float) -> bool:
        """Start nothing more, wait for what runs; whether all of it ended within `grace_s` seconds.

        What did not is given up: whatever comes of it is not stored, and it runs again elsewhere.
        """
        with self._lock:
            self._stopping = True
            threads = self._threads
        for _ in range(threads):
            self._queue.put(None)
        deadline = time.monotonic() + grace_s
        with self._lock:
            while self._busy:
                left = deadline - time.monotonic()
                if left <= 0 or not self._lock.wait(left):
                    break
            finished = not self._busy
            self._abandoned = True
        self._alarms.stop()
        self._loop.stop()
        return finished

    # --- threads ---------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        with self._lock:
            self._threads += 1
            number = self._threads
        try:
            threading.Thread(target=self._work, name=f"durably-activity-{number}", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
            raise

    def _replace(self) -> None:
        """Put a thread in the place of one that is lost; later, while the system starts none."""
        if self._stopping:
            return
        try:
            self._spawn()
        except RuntimeError as error:
            _logger.warning("no thread takes the place of one that overran, trying again: %s", error)
            self._alarms.add(_RETRY_S, self._replace)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            delivery = self._queue.get()
            with self._lock:
                self._idle -= 1
                self._waiting -= delivery is not None
                if delivery is None or self._stopping:
                    return
                self._busy += 1
            replaced = False
            try:
                replaced = self._handle(delivery)
            finally:
                if not replaced:
                    self._done()
            if replaced:
                return

    def _done(self) -> None:
        with self._lock:
            self._busy -= 1
            if not self._busy:
                self._lock.notify_all()

    def _handle(self, delivery: Delivery) -> bool:
        """Run one task; True if the attempt was given up meanwhile and another thread has taken this one's place."""
        try:
            if self._withdrawn and _task_of(delivery).key in self._withdrawn:
                self._runtime.backend.acknowledge([delivery.receipt])
                return False
            opened = open_attempt(self._runtime, delivery)
            if isinstance(opened, Attempt):
                running = _Running(opened)
                if opened.is_async:
                    self._start_async(running)
                    return False
                if opened.timeout_ms is not None:
                    self._alarms.add(opened.timeout_ms / 1000, partial(self._time_out, running))
                end = self._run_sync(running)
                if end is None:
                    return True
                self._settle(delivery, end)
            elif opened is None:
                self._settled()
            else:
                self._answered(opened)
        except Exception as error:
            self._report(delivery, error)
        return False

    def _run_sync(self, running: _Running) -> _End | None:
        """Call the function in a context of its own; what is to be done about its end, None if it came too late."""
        attempt = running.attempt
        context = contextvars.copy_context()
        context.run(current_attempt.set, attempt.info)
        try:
            value = context.run(attempt.call)
            if inspect.isawaitable(value):
                value = context.run(_await_elsewhere, value)
        except BaseException as error:  # a user's SystemExit must not end the worker either
            failure = error
            return (lambda: self._raised(attempt, failure)) if running.end() else None
        return (lambda: attempt_returned(self._runtime, attempt, value)) if running.end() else None

    def _settle(self, delivery: Delivery, end: _End) -> None:
        """Do what is to be done about an attempt's end; later, if the store refuses. The attempt is not made again."""
        if self._abandoned:
            return
        try:
            answer = end()
        except StorageError as error:
            _logger.warning("could not settle %s, trying again: %s", delivery.message.id, error)
            with self._lock:
                self._busy += 1
            self._alarms.add(_RETRY_S, partial(self._settle_again, delivery, end))
        except Exception as error:
            self._report(delivery, error)
        else:
            if answer is None:
                self._settled()
            else:
                self._answered(answer)

    def _settle_again(self, delivery: Delivery, end: _End) -> None:
        try:
            self._settle(delivery, end)
        finally:
            self._done()

    def _time_out(self, running: _Running) -> None:
        """A sync attempt overran. Its thread cannot be interrupted: another one takes its place in the pool."""
        if not running.end():
            return
        with self._lock:
            self._threads -= 1
        self._replace()
        try:
            self._settle(running.attempt.delivery, lambda: self._timed_out(running.attempt))
        finally:
            self._done()

    def _raised(self, attempt: Attempt, error: BaseException) -> Answer | None:
        _log(attempt, f"failed: {type(error).__name__}: {message_of(error)}")
        return attempt_raised(self._runtime, attempt, error)

    def _timed_out(self, attempt: Attempt) -> Answer | None:
        _log(attempt, "overran its timeout" + ("" if attempt.is_async else "; its thread goes on unheeded"))
        return attempt_timed_out(self._runtime, attempt)

    def _report(self, delivery: Delivery, error: Exception) -> None:
        if isinstance(error, StorageError | ContendedError):
            _logger.warning("could not settle %s, trying again: %s", delivery.message.id, error)
        else:
            _logger.error("could not handle %s, trying again", delivery.message.id, exc_info=error)
        self._failed(delivery)

    # --- the event loop -----------------------------------------------------------------------------------------

    def _start_async(self, running: _Running) -> None:
        with self._lock:
            self._busy += 1
        try:
            self._loop.run(lambda: self._run_async(running))
        except RuntimeError:
            self._done()
            raise

    async def _run_async(self, running: _Running) -> None:
        attempt = running.attempt
        current_attempt.set(attempt.info)
        end: _End
        timeout = asyncio.timeout(None if attempt.timeout_ms is None else attempt.timeout_ms / 1000)
        try:
            try:
                async with timeout:
                    value = await attempt.call()
            except BaseException as error:
                failure = error
                if timeout.expired() and isinstance(error, TimeoutError):
                    end = lambda: self._timed_out(attempt)  # noqa: E731
                else:
                    end = lambda: self._raised(attempt, failure)  # noqa: E731
            else:
                end = lambda: attempt_returned(self._runtime, attempt, value)  # noqa: E731
            self._settle(attempt.delivery, end)
        finally:
            self._done()


class _Alarms:
    """Calls back later: about attempts that overran, or could not be settled. Its thread starts with the first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, seconds: float, action: Callable[[], None]) -> None:
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="durably-alarms", daemon=True)
                thread.start()
                self._thread = thread
            self._count += 1
            heapq.heappush(self._heap, (time.monotonic() + seconds, self._count, action))
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, action = heapq.heappop(self._heap)
            action()


def _task_of(delivery: Delivery) -> ActivityTask:
    assert isinstance(delivery.message, ActivityTask)
    return delivery.message


def _log(attempt: Attempt, what: str) -> None:
    task = attempt.task
    extra = {"execution_id": task.run.execution_id}
    _logger.warning("attempt %d of %s %s", task.attempt, task.name, what, extra=extra)


def _await_elsewhere(value: Any) -> Any:
    """A `def` that returned an awaitable (a partial of an async function, say): run it to its end here."""

    async def main() -> Any:
        return await value

    return asyncio.run(main())
