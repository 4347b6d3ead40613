"""Wall-clock limits for code that may never yield: an interval timer interrupts the main thread, where Lambda runs
its handlers. In another thread a limit only notices afterwards that it was exceeded.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

_AGAIN_S = 0.1


class TimeLimitError(BaseException):
    """The code took longer than it may. Not an `Exception`, so that a broad `except` does not swallow it."""


class TimeLimit:
    """A block of code that is interrupted once it has taken `seconds`, and every 0.1 s from then on until it ends.

    Args:
        seconds: the most that the block may take.
        error: raised in it.

    Attributes:
        exceeded: whether the block took longer, even if it swallowed the error.
    """

    def __init__(self, seconds: float, error: type[BaseException] = TimeLimitError) -> None:
        self.exceeded = False
        self._seconds = max(seconds, 0.001)
        self._error = error
        self._ended = False

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        if self._in_main_thread:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds, _AGAIN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if self._in_main_thread:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        self.exceeded = self.exceeded or time.monotonic() - self._started > self._seconds

    def _ring(self, _signal: int, frame: FrameType | None) -> None:
        if self._ended:
            return
        self.exceeded = True
        if frame is None or frame.f_code not in _AROUND:  # else it rings before the block, and will again, or after it
            raise self._error


_AROUND = (TimeLimit.__enter__.__code__, TimeLimit.__exit__.__code__)
