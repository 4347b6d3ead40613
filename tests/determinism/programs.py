"""Orchestrators that between them use all of asyncio that an orchestrator may use. Standard library and core only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from durably.core.context import Context
from durably.core.errors import ActivityError

PROGRAMS: dict[str, Callable[[Context], Coroutine[Any, Any, Any]]] = {}


def program(
    orchestrate: Callable[[Context], Coroutine[Any, Any, Any]],
) -> Callable[[Context], Coroutine[Any, Any, Any]]:
    PROGRAMS[orchestrate.__name__] = orchestrate
    return orchestrate


def ask(ctx: Context, name: str, **arguments: Any) -> Coroutine[Any, Any, Any]:
    return ctx.call(name, returns=object, **arguments)


async def tried(ctx: Context, name: str, **arguments: Any) -> Any:
    """The result of an activity, or the type of its failure."""
    try:
        return await ask(ctx, name, **arguments)
    except ActivityError as error:
        return error.type


@program
async def sequence(ctx: Context) -> Any:
    values = [await tried(ctx, "step", n=number) for number in range(4)]
    return [values, ctx.random.random(), str(ctx.uuid4()), ctx.now().isoformat()]


@program
async def gathers(ctx: Context) -> Any:
    async def pair(name: str) -> Any:
        return await asyncio.gather(ask(ctx, f"{name}1"), ask(ctx, f"{name}2"), return_exceptions=True)

    return [
        [type(value).__name__ for value in values] for values in await asyncio.gather(*(pair(name) for name in "abc"))
    ]


@program
async def first_error(ctx: Context) -> Any:
    return await asyncio.gather(*(ask(ctx, name) for name in "abcdef"))


@program
async def task_group(ctx: Context) -> Any:
    said: list[str] = []

    async def member(name: str) -> None:
        try:
            await ask(ctx, name)
            await asyncio.sleep(len(name))
        except asyncio.CancelledError:
            said.append(name)
            await tried(ctx, f"undo-{name}")
            raise

    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(12):
                tasks.create_task(member("m" * (number + 1)))
    except* ActivityError as errors:
        said.append(str(len(errors.exceptions)))
    return said


@program
async def timeouts(ctx: Context) -> Any:
    said: list[Any] = []
    loop = asyncio.get_running_loop()
    for seconds in (1, 5, 0):
        try:
            async with asyncio.timeout(seconds), asyncio.timeout_at(loop.time() + 3):
                said.append(await tried(ctx, "slow", seconds=seconds))
        except TimeoutError:
            said.append("late")
    async with asyncio.timeout(2) as moved:
        moved.reschedule(loop.time() + 1_000)
        said.append(await tried(ctx, "moved"))
    return said


@program
async def wait_fors(ctx: Context) -> Any:
    async def one(name: str, seconds: float) -> Any:
        try:
            return await asyncio.wait_for(tried(ctx, name), seconds)
        except TimeoutError:
            return "late"

    return await asyncio.gather(*(one(name, seconds) for name, seconds in zip("abcd", (1, 2, 0, 4), strict=True)))


@program
async def shields(ctx: Context) -> Any:
    keep = asyncio.create_task(tried(ctx, "keep"))
    try:
        async with asyncio.timeout(1):
            await asyncio.shield(keep)
    except TimeoutError:
        await tried(ctx, "apologise")
    return await keep


@program
async def waits(ctx: Context) -> Any:
    tasks = {asyncio.create_task(tried(ctx, "racer", n=number), name=str(number)) for number in range(20)}
    said: list[Any] = []
    done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    said.append([task.get_name() for task in done])
    done, tasks = await asyncio.wait(tasks, timeout=2)
    said.append([task.get_name() for task in done])
    for task in tasks:
        task.cancel()
    for task in tasks:
        await asyncio.wait([task])
        await tried(ctx, "left", task=task.get_name())
    return said


@program
async def first_exception(ctx: Context) -> Any:
    tasks = [asyncio.create_task(ask(ctx, name), name=name) for name in "abcdefgh"]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    names = [[task.get_name(), bool(task.exception())] for task in done]
    for task in pending:
        task.cancel()
    return [names, [task.get_name() for task in pending]]


@program
async def sets_of_gathers(ctx: Context) -> Any:
    gate = asyncio.Event()

    async def through(number: int) -> int:
        await gate.wait()
        return number

    groups = {asyncio.gather(through(number), through(-number)) for number in range(1, 9)}
    await tried(ctx, "gate")
    gate.set()
    done, _ = await asyncio.wait(groups)
    return [group.result() for group in done]


@program
async def as_completed(ctx: Context) -> Any:
    tasks = [asyncio.create_task(tried(ctx, name)) for name in "abcde"]
    got: list[Any] = []
    try:
        for task in asyncio.as_completed(tasks, timeout=30):
            got.append(await task)  # noqa: PERF401  # a comprehension would lose what came in time
    except TimeoutError:
        got.append("late")
    return got


@program
async def locks(ctx: Context) -> Any:
    lock, two, said = asyncio.Lock(), asyncio.BoundedSemaphore(2), list[str]()

    async def worker(name: str) -> None:
        async with two:
            await tried(ctx, f"load-{name}")
            async with lock:
                said.append(name)
                await tried(ctx, f"write-{name}")

    await asyncio.gather(*(worker(name) for name in "abcde"))
    return said


@program
async def conditions(ctx: Context) -> Any:
    condition, ready, said = asyncio.Condition(), asyncio.Event(), list[int]()

    async def consumer(number: int) -> None:
        await ready.wait()
        async with condition:
            await condition.wait_for(lambda: len(said) >= number)
            said.append(number)
            await tried(ctx, "consumed", n=number)
            condition.notify_all()

    consumers = [asyncio.create_task(consumer(number)) for number in (3, 1, 0, 2)]
    await tried(ctx, "ready")
    ready.set()
    await asyncio.gather(*consumers)
    return said


@program
async def queues(ctx: Context) -> Any:
    said: list[Any] = []
    kinds = (asyncio.Queue[int], asyncio.PriorityQueue[int], asyncio.LifoQueue[int])
    for queue in (kind(maxsize=2) for kind in kinds):
        workers = [asyncio.create_task(_work(ctx, queue, said)) for _ in range(2)]
        for number in (5, 3, 9, 1):
            await queue.put(number)
        await queue.join()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return said


async def _work(ctx: Context, queue: asyncio.Queue[int], said: list[Any]) -> None:
    while True:
        number = await queue.get()
        said.append([number, await tried(ctx, "item", n=number)])
        queue.task_done()


@program
async def barriers(ctx: Context) -> Any:
    barrier, said = asyncio.Barrier(3), list[str]()

    async def come(name: str) -> None:
        await tried(ctx, f"travel-{name}")
        said.append(f"{name}{await barrier.wait()}")

    await asyncio.gather(*(come(name) for name in "abc"))
    return said


@program
async def generators(ctx: Context) -> Any:
    async def pages(name: str) -> AsyncIterator[Any]:
        try:
            for number in range(3):
                yield await tried(ctx, name, page=number)
        finally:
            await tried(ctx, f"close-{name}")

    @contextlib.asynccontextmanager
    async def lease(name: str) -> AsyncIterator[Any]:
        key = await tried(ctx, f"acquire-{name}")
        try:
            yield key
        finally:
            await tried(ctx, f"release-{name}")

    async with lease("x") as key:
        got = [page async for page in pages("all")]
        async for page in pages("some"):
            got.append(page)
            break
    return [key, got]


@program
async def cancellations(ctx: Context) -> Any:
    async def stubborn() -> Any:
        me = asyncio.current_task()
        assert me is not None
        try:
            await ask(ctx, "a")
        except asyncio.CancelledError:
            me.uncancel()
        return await tried(ctx, "b")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(50))]
    unstarted = asyncio.create_task(tried(ctx, "never"))
    unstarted.cancel()
    await tried(ctx, "signal")
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, unstarted, return_exceptions=True)
    return [type(result).__name__ for result in results]


@program
async def everybody_out(ctx: Context) -> Any:
    async def child(depth: int) -> None:
        if depth:
            for _ in range(3):
                asyncio.create_task(child(depth - 1))
        try:
            await ask(ctx, f"depth-{depth}")
        except (asyncio.CancelledError, ActivityError):
            await tried(ctx, f"undo-{depth}")

    root = asyncio.create_task(child(2))
    await asyncio.wait([root, asyncio.create_task(asyncio.sleep(1))], return_when=asyncio.FIRST_COMPLETED)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await tried(ctx, "after")


@program
async def loop_calls(ctx: Context) -> Any:
    loop, said, name = asyncio.get_running_loop(), list[str](), ContextVar("name", default="nobody")
    future: asyncio.Future[str] = loop.create_future()

    def speak(word: str) -> None:
        said.append(f"{word} by {name.get()}")

    async def speaker(own: str) -> None:
        name.set(own)
        loop.call_later(1, speak, "later")
        loop.call_soon(speak, "soon")
        loop.call_at(loop.time() + 2, future.cancel).cancel()
        await tried(ctx, own)
        speak("after")

    await asyncio.gather(speaker("a"), speaker("b"))
    loop.call_later(3, future.set_result, "done")
    said.append(await future)
    return said
