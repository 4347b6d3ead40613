"""What asyncio itself does differently from replay to replay, mended for our loops; other loops notice nothing.

`wait_for`: until Python 3.11 it ran its awaitable in a task of its own, so that `gather(wait_for(a), wait_for(b))`
asked for timers and activities in another order than on 3.12 and later, and a history recorded on one Python did not
replay on the other (ADR 0003). The code object is replaced rather than the name, because users import the name.

`gather`: what it returns is made by asyncio and hashed by address, so that the sets in `asyncio.wait` iterated over
gatherings in another order each time. Tasks and futures of our loops are hashed by number; a gathering by its first.
Our loops also know their gatherings: a task that failed inside one is looked after.

`TaskGroup`: until Python 3.12 a group that failed while its task waited for it left the task with `cancelling() == 1`,
and swallowed a cancellation that came from outside meanwhile. What is here is the method of 3.13.
"""

from __future__ import annotations

import asyncio
import sys
import types
from asyncio import tasks as asyncio_tasks
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

_durable_loops: set[type] = set()
_original: list[Any] = []


def mend_asyncio(loop_type: type) -> None:
    """Make `wait_for` and `gather` the same at every replay and on every Python in loops of `loop_type`."""
    if not _durable_loops:
        gathering: Any = getattr(asyncio_tasks, "_GatheringFuture")  # noqa: B009  # private, and there since 3.4
        gathering.__hash__ = _hash_of_gathering
        gathering.__init__ = _noting(gathering.__init__)
        if sys.version_info < (3, 12):
            function: Any = asyncio.wait_for
            _original.append(types.FunctionType(function.__code__, function.__globals__, "wait_for"))
            function.__code__ = _dispatching.__code__
        if sys.version_info < (3, 13):
            group: Any = asyncio.TaskGroup
            group.__aexit__ = _exiting(group.__aexit__)
    _durable_loops.add(loop_type)


def _hash_of_gathering(gathering: Any) -> int:
    if type(gathering.get_loop()) in _durable_loops:
        return hash(gathering._children[0])
    return object.__hash__(gathering)


def _noting(init: Callable[..., None]) -> Callable[..., None]:
    def noted(gathering: Any, children: Sequence[Any], *, loop: Any) -> None:
        init(gathering, children, loop=loop)
        if type(loop) in _durable_loops:
            loop.keep_gathering(gathering)

    return noted


def _exiting(aexit: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    def exiting(group: Any, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> Any:
        durable = type(group._loop) in _durable_loops
        return exit_group(group, error) if durable else aexit(group, kind, error, trace)

    return exiting


async def exit_group(group: Any, error: BaseException | None) -> None:
    """`TaskGroup.__aexit__`."""
    group._exiting = True
    if error is not None and group._is_base_error(error) and group._base_error is None:
        group._base_error = error
    cancelled = error if isinstance(error, asyncio.CancelledError) else None
    if error is not None and not group._aborting:
        group._abort()
    while group._tasks:
        if group._on_completed_fut is None:
            group._on_completed_fut = group._loop.create_future()
        try:
            await group._on_completed_fut
        except asyncio.CancelledError as requested:
            if not group._aborting:
                cancelled = requested
                group._abort()
        group._on_completed_fut = None
    if group._base_error is not None:
        raise group._base_error
    task = group._parent_task
    if group._parent_cancel_requested and task.uncancel() == 0:
        cancelled = None
    if cancelled is not None and not group._errors:
        raise cancelled
    errors, group._errors = group._errors, None
    if error is not None and not isinstance(error, asyncio.CancelledError):
        errors.append(error)
    if errors:
        if task.cancelling():  # from outside: the task is cancelled at its next `await`
            task.uncancel()
            task.cancel()
        raise BaseExceptionGroup("unhandled errors in a TaskGroup", errors) from None


async def _dispatching(fut: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # the stdlib's signature
    from durably.core.stdlib import wait_for  # this code runs with the globals of asyncio.tasks

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
