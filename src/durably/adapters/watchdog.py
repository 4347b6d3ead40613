"""A time budget for code that never yields: a watchdog raises `TurnTimeoutError` in the thread that overran."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from durably.core.errors import TurnTimeoutError

_TICK_S = 0.1


class Turn:
    """A budget as entered."""

    __slots__ = ("deadline", "exceeded", "thread")

    def __init__(self, thread: int, deadline: float) -> None:
        self.thread = thread
        self.deadline = deadline
        self.exceeded = False


class Watchdog:
    """Interrupts turns that run too long. One thread at a time is watched.

    Args:
        seconds: a turn's budget of wall-clock time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._current: Turn | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="durably-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    @contextmanager
    def budget(self) -> Generator[Turn, None, None]:
        """Watch the calling thread until the block ends."""
        turn = Turn(threading.get_ident(), time.monotonic() + self._seconds)
        self._current = turn
        try:
            yield turn
        finally:
            with self._lock:
                self._current = None
                if turn.exceeded:  # an exception may be on its way that nobody has seen yet: take it back
                    _raise_in(turn.thread, None)

    def _watch(self) -> None:
        while not self._stopped.wait(_TICK_S):
            turn = self._current
            if turn is None or time.monotonic() < turn.deadline:
                continue
            with self._lock:
                if self._current is turn:
                    turn.exceeded = True
                    _raise_in(turn.thread, TurnTimeoutError)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )
