"""Group commit: the writes of all threads that wait at the same time become one transaction, and one fsync.

There is no thread of its own. The first to come leads: it runs every queued job in one transaction and hands
each its result; who came meanwhile waits, and the first of them leads next.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar, cast

from durably.adapters.sqlite.errors import storage_error
from durably.core.errors import StorageError

T = TypeVar("T")


class _Job:
    """A write. It may run twice, the first run being rolled back."""

    __slots__ = ("done", "error", "leads", "result", "wake", "write")

    def __init__(self, write: Callable[[sqlite3.Connection], Any]) -> None:
        self.write = write
        self.wake: Lock | None = None
        self.leads = False
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


class Committer:
    """Owns the writing connection.

    Attributes:
        connection: to be used by a write that `run` was given, or by who holds `connection_lock`.
        connection_lock: held while a transaction runs.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self.connection = connection
        self.connection_lock = Lock()
        self._path = path
        self._mutex = Lock()
        self._queue: list[_Job] = []
        self._led = False

    def run(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Run `write` in a transaction and return its result once that is on disk.

        Raises:
            StorageError: nothing was written; or, after an interruption, nothing or all of it.
        """
        job = _Job(write)
        with self._mutex:
            if self._led:
                job.wake = Lock()
                job.wake.acquire()
            else:
                self._led = job.leads = True
            self._queue.append(job)
        try:
            if job.wake is not None:
                job.wake.acquire()
            if job.leads:
                self._lead()
        except BaseException:  # an interrupt, before the job was begun
            self._withdraw(job)
            raise
        if job.error is not None:
            if isinstance(job.error, sqlite3.Error):
                raise storage_error(self._path, job.error) from job.error
            raise job.error
        return cast(T, job.result)

    def _lead(self) -> None:
        with self._mutex:
            batch, self._queue = self._queue, []
        try:
            with self.connection_lock:
                self._transact(batch)
        finally:
            for job in batch:
                if not job.done:
                    job.error = self._interrupted()
            with self._mutex:
                self._hand_over()
            for job in batch:
                if job.wake is not None and not job.leads:
                    job.wake.release()

    def _transact(self, batch: list[_Job]) -> None:
        """All jobs in one transaction; if that fails, each in its own, so that none spoils the others."""
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.result = job.write(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):  # closed; or rolled back by SQLite itself, as after some errors
                connection.execute("ROLLBACK")
            if not isinstance(error, Exception):
                raise
            if len(batch) > 1:
                for job in batch:
                    self._transact([job])
                return
            batch[0].error = error
        for job in batch:
            job.done = True

    def _withdraw(self, job: _Job) -> None:
        with self._mutex:
            if job in self._queue:
                self._queue.remove(job)
                if job.leads:
                    self._hand_over()

    def _hand_over(self) -> None:
        """Under the mutex: let the first who waits lead, if anybody waits."""
        for job in self._queue:
            if job.wake is not None:
                job.leads = True
                job.wake.release()
                return
        self._led = False

    def _interrupted(self) -> StorageError:
        return StorageError(f"{self._path}: a write was interrupted; it was stored entirely or not at all. Repeat it.")
