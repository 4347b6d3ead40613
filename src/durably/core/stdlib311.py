"""One `asyncio.wait_for` for all Pythons: what Python 3.12 made of it, for our loops, on 3.11.

Until 3.11 `wait_for` ran its awaitable in a task of its own, so that `gather(wait_for(a), wait_for(b))` asked for
timers and activities in another order than on 3.12 and later, and a history recorded on one Python did not replay
on the other (ADR 0003). The code object is replaced rather than the name, because users import the name.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Awaitable
from typing import Any

_durable_loops: set[type] = set()
_original: list[Any] = []


def unify_wait_for(loop_type: type) -> None:
    """Make `asyncio.wait_for` behave as on Python 3.12 in loops of `loop_type`; elsewhere it stays as it was."""
    if sys.version_info >= (3, 12) or loop_type in _durable_loops:
        return
    _durable_loops.add(loop_type)
    if not _original:
        function: Any = asyncio.wait_for
        _original.append(types.FunctionType(function.__code__, function.__globals__, "wait_for"))
        function.__code__ = _dispatching.__code__


async def _dispatching(fut: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # the stdlib's signature
    from durably.core.stdlib311 import wait_for  # this code runs with the globals of asyncio.tasks

    return await wait_for(fut, timeout)


async def wait_for(fut: Awaitable[Any], timeout: float | None) -> Any:  # noqa: ASYNC109
    """`asyncio.wait_for`."""
    if type(asyncio.get_running_loop()) not in _durable_loops:
        return await _original[0](fut, timeout)
    if timeout is not None and timeout <= 0:
        task = asyncio.ensure_future(fut)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait([task])
        try:
            return task.result()
        except asyncio.CancelledError as error:
            raise TimeoutError from error
    async with asyncio.timeout(timeout):
        return await fut
