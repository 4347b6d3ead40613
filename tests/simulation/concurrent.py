"""Statements of programs that do several things at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from tests.simulation import activities as acts
from tests.simulation.interpret import DAY, Interpreter, ProgramError, Statement, promise
from tests.simulation.programs import Node, expected


async def _gather(it: Interpreter, node: Node) -> Any:
    return await asyncio.gather(*(it.run(part) for part in node.parts))


async def _exceptions(it: Interpreter, node: Node) -> Any:
    error = ProgramError(node.n)

    async def fail() -> Any:
        raise error

    failing = asyncio.create_task(fail())
    failing.add_done_callback(_heard)
    *results, last = await asyncio.gather(*(it.run(part) for part in node.parts), failing, return_exceptions=True)
    promise(last is error, f"gather returned {last!r}")
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _heard(task: asyncio.Task[Any]) -> None:
    """Should the gather be abandoned at the very end, nobody else asks for the error."""
    if not task.cancelled():
        task.exception()


async def _group(it: Interpreter, node: Node) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(it.run(part)) for part in node.parts]
    return [task.result() for task in tasks]


async def _group_fails(it: Interpreter, node: Node) -> Any:
    async def fail() -> None:
        await asyncio.sleep(node.size / 1000)
        raise ProgramError(node.n)

    async with asyncio.TaskGroup() as group:
        for part in node.parts:
            group.create_task(it.run(part))
        group.create_task(fail())


async def _hanging(it: Interpreter, node: Node) -> None:
    """The parts, and three waits that nobody ends."""
    await asyncio.gather(
        *(it.run(part) for part in node.parts),
        asyncio.Event().wait(),
        asyncio.sleep(300 * DAY),
        acts.ask_for_ever(node.n, "never"),
    )


async def _timeout(it: Interpreter, node: Node) -> Any:
    try:
        async with asyncio.timeout(node.size / 1000):
            await _hanging(it, node)
    except TimeoutError:
        return node.kind
    return "no timeout"


async def _wait_for(it: Interpreter, node: Node) -> Any:
    try:
        await asyncio.wait_for(_hanging(it, node), node.size / 1000)
    except TimeoutError:
        return node.kind
    return "no timeout"


async def _shield(it: Interpreter, node: Node) -> Any:
    return await asyncio.shield(it.run(node.parts[0]))


async def _outlived(it: Interpreter, node: Node) -> Any:
    task = it.spawn(node.parts[0])
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), node.size / 1000)
    return await task


async def _cancel(it: Interpreter, node: Node) -> Any:
    current = asyncio.current_task()
    assert current is not None
    before = current.cancelling()  # Python 3.11 leaves it at 1 after a TaskGroup that failed
    tasks = it.spawn_all(node)
    await (acts.work(node.n) if node.size % 2 else asyncio.sleep(node.size / 1000))
    for task in tasks:
        task.cancel("enough")
    for task, part in zip(tasks, node.parts, strict=True):
        try:
            value = await task
        except asyncio.CancelledError:
            if current.cancelling() > before:
                raise
        else:
            promise(value == expected(part), f"{part} returned {value}")
    return node.kind


async def _race(it: Interpreter, node: Node) -> Any:
    tasks = it.spawn_all(node)
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    promise(bool(done), "nothing was completed first")
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task, part in zip(tasks, node.parts, strict=True):
        if task in done:
            promise(task.result() == expected(part), f"{part} returned {task.result()}")
    return node.kind


async def _completed(it: Interpreter, node: Node) -> Any:
    return sorted([await task for task in asyncio.as_completed(it.spawn_all(node))], key=repr)


async def _wait(it: Interpreter, node: Node) -> Any:
    tasks = it.spawn_all(node)
    done, pending = await asyncio.wait(tasks)
    promise(not pending and len(done) == len(tasks), "asyncio.wait left something undone")
    return [task.result() for task in tasks]


async def _event(it: Interpreter, node: Node) -> Any:
    event = asyncio.Event()

    async def part(index: int) -> Any:
        if index:
            await event.wait()
        try:
            return await it.run(node.parts[index])
        finally:
            event.set()

    return await asyncio.gather(*map(part, range(len(node.parts))))


async def _one_at_a_time(it: Interpreter, node: Node, guard: asyncio.Lock | asyncio.Semaphore, most: int) -> Any:
    inside = 0

    async def part(index: int) -> Any:
        nonlocal inside
        async with guard:
            inside += 1
            promise(inside <= most, f"{inside} tasks hold what {most} may hold")
            try:
                return await it.run(node.parts[index])
            finally:
                inside -= 1

    return await asyncio.gather(*map(part, range(len(node.parts))))


async def _lock(it: Interpreter, node: Node) -> Any:
    return await _one_at_a_time(it, node, asyncio.Lock(), 1)


async def _semaphore(it: Interpreter, node: Node) -> Any:
    return await _one_at_a_time(it, node, asyncio.Semaphore(2), 2)


async def _condition(it: Interpreter, node: Node) -> Any:
    condition = asyncio.Condition()
    finished = 0

    async def part(index: int) -> Any:
        nonlocal finished
        value = await it.run(node.parts[index])
        async with condition:
            finished += 1
            condition.notify_all()
        return value

    async def last() -> str:
        async with condition:
            await condition.wait_for(lambda: finished == len(node.parts))
        return node.kind

    return await asyncio.gather(*map(part, range(len(node.parts))), last())


async def _queue(it: Interpreter, node: Node) -> Any:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)

    async def produce(part: Node) -> None:
        await queue.put(await it.run(part))

    async with asyncio.TaskGroup() as group:
        for part in node.parts:
            group.create_task(produce(part))
        taken = [await queue.get() for _ in node.parts]
    return sorted(taken, key=repr)


async def _background(it: Interpreter, node: Node) -> Any:
    it.spawn_all(node)
    await asyncio.sleep(0)
    return node.kind


CONCURRENT: dict[str, Statement] = {
    "gather": _gather,
    "exceptions": _exceptions,
    "group": _group,
    "group_fails": _group_fails,
    "timeout": _timeout,
    "wait_for": _wait_for,
    "shield": _shield,
    "outlived": _outlived,
    "cancel": _cancel,
    "race": _race,
    "completed": _completed,
    "wait": _wait,
    "event": _event,
    "lock": _lock,
    "semaphore": _semaphore,
    "condition": _condition,
    "queue": _queue,
    "background": _background,
}
