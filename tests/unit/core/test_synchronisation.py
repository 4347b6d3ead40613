"""asyncio's locks and queues, inside an orchestrator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably.core.context import Context
from tests.unit.core.conftest import Start
from tests.unit.core.harness import ask


def test_an_event_wakes_everybody_who_waits_for_it(start: Start) -> None:
    async def waiting(ctx: Context) -> Any:
        ready = asyncio.Event()

        async def wait(name: str) -> Any:
            await ready.wait()
            return await ask(ctx, name)

        tasks = [asyncio.create_task(wait(name)) for name in "ab"]
        await ask(ctx, "open")
        ready.set()
        return await asyncio.gather(*tasks)

    run = start(waiting)
    assert run.asked == ["1 open"]
    assert run.completed(1) == ["2 a", "3 b"]
    run.completed(3, "B")
    assert run.completed(2, "A") == ['return ["A", "B"]']


def test_a_lock_lets_one_in_at_a_time_in_order(start: Start) -> None:
    async def locked(ctx: Context) -> None:
        lock = asyncio.Lock()

        async def enter(name: str) -> None:
            async with lock:
                await ask(ctx, name)

        await asyncio.gather(*(enter(name) for name in "abc"))

    run = start(locked)
    assert run.asked == ["1 a"]
    assert run.completed(1) == ["2 b"]
    assert run.completed(2) == ["3 c"]
    assert run.completed(3) == ["return null"]


@pytest.mark.parametrize("semaphore_type", [asyncio.Semaphore, asyncio.BoundedSemaphore])
def test_a_semaphore_bounds_how_many_are_out(start: Start, semaphore_type: type[asyncio.Semaphore]) -> None:
    async def bounded(ctx: Context) -> Any:
        semaphore = semaphore_type(2)

        async def enter(number: int) -> Any:
            async with semaphore:
                return await ask(ctx, "work", n=number)

        return await asyncio.gather(*(enter(number) for number in range(4)))

    run = start(bounded)
    assert run.asked == ['1 work {"n": 0}', '2 work {"n": 1}']
    assert run.completed(2, "b") == ['3 work {"n": 2}']
    assert run.completed(1, "a") == ['4 work {"n": 3}']
    run.completed(4, "d")
    assert run.completed(3, "c") == ['return ["a", "b", "c", "d"]']


def test_a_bounded_semaphore_refuses_to_be_released_too_often(start: Start) -> None:
    async def careless(ctx: Context) -> None:
        asyncio.BoundedSemaphore(1).release()

    assert start(careless).asked == ["raise ValueError: BoundedSemaphore released too many times"]


def test_a_condition_notifies_in_order(start: Start) -> None:
    async def conditional(ctx: Context) -> list[str]:
        condition = asyncio.Condition()
        stock: list[int] = []
        said: list[str] = []

        async def take(name: str) -> None:
            async with condition:
                await condition.wait_for(lambda: bool(stock))
                said.append(f"{name}{stock.pop()}")

        takers = [asyncio.create_task(take(name)) for name in "ab"]
        for _ in takers:
            item = await ask(ctx, "make")
            async with condition:
                stock.append(item)
                condition.notify()
        await asyncio.gather(*takers)
        return said

    run = start(conditional)
    assert run.asked == ["1 make"]
    assert run.completed(1, 10) == ["2 make"]
    assert run.completed(2, 20) == ['return ["a10", "b20"]']


@pytest.mark.parametrize(
    ("queue_type", "expected"),
    [(asyncio.Queue, [3, 1, 2]), (asyncio.PriorityQueue, [1, 2, 3]), (asyncio.LifoQueue, [2, 1, 3])],
)
def test_queues_hand_out_in_their_order(
    start: Start, queue_type: type[asyncio.Queue[int]], expected: list[int]
) -> None:
    async def queued(ctx: Context) -> list[int]:
        queue = queue_type()
        for number in await ask(ctx, "numbers"):
            queue.put_nowait(number)
        return [await queue.get() for _ in range(queue.qsize())]

    run = start(queued)
    assert run.completed(1, [3, 1, 2]) == [f"return {expected}"]


def test_workers_share_a_bounded_queue(start: Start) -> None:
    async def pooled(ctx: Context) -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
        results: list[int] = []

        async def work() -> None:
            while True:
                results.append(await ask(ctx, "square", n=await queue.get()))
                queue.task_done()

        workers = [asyncio.create_task(work()) for _ in range(2)]
        for number in range(3):
            await queue.put(number)
        await queue.join()
        for worker in workers:
            worker.cancel()
        return results

    run = start(pooled)
    assert run.asked == ['1 square {"n": 0}', '2 square {"n": 1}']
    assert run.completed(2, 1) == ['3 square {"n": 2}']
    assert run.completed(3, 4) == []
    assert run.completed(1, 0) == ["return [1, 4, 0]"]


def test_a_barrier_opens_when_everybody_is_there(start: Start) -> None:
    async def meeting(ctx: Context) -> Any:
        barrier = asyncio.Barrier(2)

        async def come(name: str) -> Any:
            await ask(ctx, f"travel-{name}")
            await barrier.wait()
            return await ask(ctx, f"meet-{name}")

        return await asyncio.gather(come("a"), come("b"))

    run = start(meeting)
    assert run.asked == ["1 travel-a", "2 travel-b"]
    assert run.completed(1) == []
    assert run.completed(2) == ["3 meet-b", "4 meet-a"]
    run.completed(3, "b")
    assert run.completed(4, "a") == ['return ["a", "b"]']


def test_waiting_for_a_lock_can_time_out(start: Start) -> None:
    async def busy(ctx: Context) -> str:
        lock = asyncio.Lock()
        await lock.acquire()
        try:
            await asyncio.wait_for(lock.acquire(), 2)
        except TimeoutError:
            return "busy"
        return "free"

    run = start(busy)
    assert run.asked == ["1 timer 2000"]
    assert run.fired(1) == ['return "busy"']
