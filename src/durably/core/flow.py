"""Shapes of waiting that asyncio lacks: many items, a few at a time; the first of several; to the end, come what may.

Plain asyncio on tasks, written so that every Python asks for the same things in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")


async def settle(tasks: Sequence[asyncio.Task[R]]) -> asyncio.CancelledError | None:
    """Wait until all tasks are done, also if whoever waits is cancelled meanwhile; that cancellation is returned."""
    cancelled: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def map_items(
    fn: Callable[[A], Awaitable[R]],
    items: Iterable[A],
    concurrency: int | None,
    tolerated: int | float,
    call: Callable[..., Awaitable[R]],
) -> list[R | Exception]:
    """`Context.map`; `call` calls `fn`."""
    waiting = list(items)
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}.")
    if not tolerated >= 0 or (isinstance(tolerated, float) and tolerated > 1):
        raise ValueError(f"tolerated_failures is a number of items, or a fraction from 0.0 to 1.0, got {tolerated}.")
    results: dict[int, R | Exception] = {}
    errors: list[Exception] = []
    stopped: list[bool] = []
    workers: list[asyncio.Task[None]] = []
    indexed = iter(enumerate(waiting))

    def too_many() -> bool:
        failed = len(errors)
        return (failed if isinstance(tolerated, int) else failed / len(waiting)) > tolerated

    async def work() -> None:
        for index, item in indexed:
            try:
                results[index] = await call(fn, item)
            except Exception as error:
                results[index] = error
                errors.append(error)
                if not stopped and too_many():
                    stopped.append(True)
                    _cancel(worker for worker in workers if worker is not asyncio.current_task())
            if stopped:
                return

    workers.extend(asyncio.create_task(work()) for _ in range(min(concurrency or len(waiting), len(waiting))))
    await _through(workers)
    if stopped:
        if tolerated == 0:
            raise errors[0]
        raise ExceptionGroup(f"{len(errors)} of {len(waiting)} items failed; {tolerated} are tolerated", errors)
    for worker in workers:
        worker.result()
    return [results[index] for index in range(len(waiting))]


async def race(contenders: Sequence[Awaitable[R]]) -> R:
    """`Context.race`."""
    if not contenders:
        raise ValueError("A race needs somebody to run it.")
    tasks = [one if isinstance(one, asyncio.Task) else asyncio.create_task(_awaited(one)) for one in contenders]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winner = next(task for task in tasks if task.done())
    except asyncio.CancelledError:
        _cancel(tasks)
        await settle(tasks)
        _forget(tasks)
        raise
    losers = [task for task in tasks if task is not winner]
    _cancel(losers)
    cancelled = await settle(losers)
    _forget(losers)
    if cancelled is not None:
        _forget([winner])
        raise cancelled
    return winner.result()


async def _through(workers: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all workers; cancelling that cancels them."""
    if not workers:
        return
    try:
        await asyncio.wait(workers)
    except asyncio.CancelledError:
        _cancel(workers)
        await settle(workers)
        raise


def _cancel(tasks: Iterable[asyncio.Task[R]]) -> None:
    for task in tasks:
        task.cancel()


def _forget(tasks: Iterable[asyncio.Task[R]]) -> None:
    """What losers raise is nobody's failure."""
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _awaited(awaitable: Awaitable[R]) -> R:
    return await awaitable
