"""Looking again and again until there is something to see."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE_S = 0.001
_SHORT_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_LATE = 0.01  # of the time waited: whoever waits for hours asks once a second


def poll(look: Callable[[], T | None], timeout: float | None, pause: Callable[[float], object]) -> T | None:
    """What `look` sees, after ever longer pauses, at most for so many seconds; None if it sees nothing."""
    began = time.monotonic()
    deadline = math.inf if timeout is None else began + timeout
    length = _FIRST_PAUSE_S
    while (seen := look()) is None and (left := deadline - time.monotonic()) > 0:
        pause(min(length, left))
        waited = time.monotonic() - began
        length = min(length * 1.5, max(waited * _LATE, _SHORT_PAUSE_S), _LONGEST_PAUSE_S)
    return seen
