"""Waiting for something that happens to an execution: its record, read again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from durably.core.errors import ResultTimeoutError
from durably.ports.backend import Backend
from durably.ports.records import Record
from durably.runtime.start import existing_record

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


def watched(
    backend: Backend, execution_id: str, timeout: float | None, *, wanted: str, pause: Callable[[float], object]
) -> Iterator[Record]:
    """The record of an execution, now and after ever longer pauses; it does not end by itself.

    Args:
        backend: where it is.
        execution_id: whose.
        timeout: seconds after which it is given up; for ever by default.
        wanted: what the execution should do meanwhile, for the error.
        pause: waits so many seconds.

    Raises:
        ResultTimeoutError: `timeout` seconds have passed.
        ExecutionNotFoundError: there is no such execution.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    length = _FIRST_PAUSE_S
    while True:
        record = existing_record(backend, execution_id)
        yield record
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            state = f" It is stalled: {record.failure}" if record.status == "stalled" else ""
            raise ResultTimeoutError(f"execution {execution_id} did not {wanted} within {timeout} s.{state}")
        pause(length if left is None else min(length, left))
        length = min(length * 1.5, _LONGEST_PAUSE_S)
