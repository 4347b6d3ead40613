"""Cancelling: resolves at once, is asked for once, and leaves no trace where nothing was asked for yet."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.events import ExecutionCancelRequested
from tests.unit.core.conftest import Start
from tests.unit.core.harness import Run, ask


def test_cancelling_an_awaited_activity_resolves_at_once_and_asks_for_its_cancellation(start: Start) -> None:
    async def cancelling(ctx: Context) -> Any:
        task = asyncio.create_task(ask(ctx, "slow"))
        await ask(ctx, "signal")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return await ask(ctx, "after")

    run = start(cancelling)
    assert run.asked == ["1 signal", "2 slow"]
    assert run.completed(1) == ["cancel 2", "3 after"]
    assert not run.execution.waits_for(2)
    assert run.completed(3, "x") == ['return "x"']


def test_a_late_result_of_a_cancelled_activity_is_dropped(start: Start) -> None:
    async def cancelling(ctx: Context) -> Any:
        try:
            await asyncio.wait_for(ask(ctx, "slow"), 1)
        except TimeoutError:
            return await ask(ctx, "after")

    run = start(cancelling)
    assert run.fired(1) == ["cancel 2", "3 after"]
    assert run.completed(2, "too late") == []
    assert run.completed(3, "x") == ['return "x"']


def test_a_command_cancelled_before_the_loop_is_idle_is_never_emitted_and_burns_its_number(start: Start) -> None:
    async def hasty(ctx: Context) -> Any:
        task = asyncio.create_task(ask(ctx, "never"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return await ask(ctx, "next")

    run = start(hasty)
    assert run.asked == ["2 next"]
    assert run.completed(2, "x") == ['return "x"']


def test_a_task_cancelled_before_its_first_step_asks_for_nothing(start: Start) -> None:
    async def hasty(ctx: Context) -> Any:
        task = asyncio.create_task(ask(ctx, "never"))
        task.cancel()
        await asyncio.wait([task])
        return await ask(ctx, "next")

    assert start(hasty).asked == ["1 next"]


def test_cancelling_a_timer_is_not_history(start: Start) -> None:
    async def napping(ctx: Context) -> Any:
        nap = asyncio.create_task(asyncio.sleep(100))
        await ask(ctx, "noise")
        nap.cancel()
        return await ask(ctx, "next")

    run = start(napping)
    assert run.asked == ["1 noise", "2 timer 100000"]
    assert run.completed(1) == ["3 next"]
    assert not run.execution.waits_for(2)
    assert run.fired(2) == []
    assert run.completed(3) == ["return null"]


def test_an_orchestrator_may_refuse_to_be_cancelled(start: Start) -> None:
    async def stubborn(ctx: Context) -> Any:
        async def insist() -> Any:
            try:
                await ask(ctx, "a")
            except asyncio.CancelledError:
                return await ask(ctx, "b")

        task = asyncio.create_task(insist())
        await ask(ctx, "signal")
        task.cancel()
        return await task

    run = start(stubborn)
    assert run.asked == ["1 signal", "2 a"]
    assert run.completed(1) == ["cancel 2", "3 b"]
    assert run.completed(3, "kept") == ['return "kept"']


def test_uncancel_takes_a_request_back(start: Start) -> None:
    async def reprieved(ctx: Context) -> Any:
        async def worker() -> Any:
            me = asyncio.current_task()
            assert me is not None
            try:
                await ask(ctx, "a")
            except asyncio.CancelledError:
                assert me.cancelling() == 1
                assert me.uncancel() == 0
            async with asyncio.timeout(5):
                return await ask(ctx, "b")

        task = asyncio.create_task(worker())
        await ask(ctx, "signal")
        task.cancel()
        return await task

    run = start(reprieved)
    assert run.completed(1) == ["cancel 2", "3 timer 5000", "4 b"]
    assert run.completed(4, "B") == ['return "B"']


def test_cancellation_from_outside_passes_through_a_timeout(start: Start) -> None:
    async def outer(ctx: Context) -> Any:
        async def inner() -> None:
            async with asyncio.timeout(50):
                await ask(ctx, "slow")

        task = asyncio.create_task(inner())
        await ask(ctx, "signal")
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        return type(result).__name__

    run = start(outer)
    assert run.asked == ["1 signal", "2 timer 50000", "3 slow"]
    assert run.completed(1) == ["cancel 3", 'return "CancelledError"']


def test_finally_may_ask_for_more_when_a_task_is_cancelled(start: Start) -> None:
    async def tidy(ctx: Context) -> Any:
        async def work() -> None:
            try:
                await ask(ctx, "work")
            finally:
                await ask(ctx, "tidy")

        task = asyncio.create_task(work())
        await ask(ctx, "signal")
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    run = start(tidy)
    assert run.completed(1) == ["cancel 2", "3 tidy"]
    assert run.completed(3) == ["return true"]


def test_cancelling_a_gather_cancels_its_activities_in_order(start: Start) -> None:
    async def many(ctx: Context) -> Any:
        try:
            async with asyncio.timeout(1):
                await asyncio.gather(*(ask(ctx, name) for name in "abc"))
        except TimeoutError:
            return "late"

    run = start(many)
    assert run.asked == ["1 timer 1000", "2 a", "3 b", "4 c"]
    run.completed(3)
    assert run.fired(1) == ["cancel 2", "cancel 4", 'return "late"']


def test_cancelling_a_finished_activity_is_nothing(start: Start) -> None:
    async def late(ctx: Context) -> Any:
        task = asyncio.create_task(ask(ctx, "a"))
        value = await task
        assert not task.cancel()
        return value

    assert start(late).completed(1, 3) == ["return 3"]


def test_a_result_that_arrives_with_a_cancellation_in_the_same_step_is_lost_as_in_asyncio(start: Start) -> None:
    async def racing(ctx: Context) -> Any:
        tasks: list[asyncio.Task[Any]] = []

        async def watch() -> None:
            await ask(ctx, "a")
            tasks[1].cancel()

        async def both() -> None:
            await asyncio.gather(tasks[0], ask(ctx, "b"))

        tasks.append(asyncio.create_task(watch()))
        tasks.append(asyncio.create_task(both()))
        results = await asyncio.gather(tasks[1], return_exceptions=True)
        return [type(result).__name__ for result in results]

    run = start(racing)
    assert run.asked == ["1 a", "2 b"]
    assert run.completed(1) == ["cancel 2", 'return ["CancelledError"]']


@pytest.mark.parametrize("first", ["activity", "timer"])
def test_the_order_of_history_decides_a_race(start: Start, first: str) -> None:
    async def race(ctx: Context) -> str:
        try:
            return str(await asyncio.wait_for(ask(ctx, "a"), 1))
        except TimeoutError:
            return "late"

    run: Run = start(race)
    if first == "activity":
        assert run.completed(2, "in time") == ['return "in time"']
        assert run.fired(1) == []
    else:
        assert run.fired(1) == ["cancel 2", 'return "late"']
        assert run.completed(2, "in time") == []


def test_a_task_group_that_failed_leaves_no_cancellation_behind(start: Start) -> None:
    async def grouped(ctx: Context) -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ask(ctx, "broken"))
                group.create_task(ask(ctx, "slow"))
        except ExceptionGroup:
            return task.cancelling()

    run = start(grouped)
    assert run.asked == ["1 broken", "2 slow"]
    assert run.failed(1, ValueError("no")) == ["cancel 2", "return 0"]


def test_a_cancellation_that_comes_while_a_task_group_fails_is_not_swallowed(start: Start) -> None:
    async def grouped(ctx: Context) -> Any:
        async def tidy() -> None:
            try:
                await ask(ctx, "slow")
            finally:
                await ask(ctx, "tidy")

        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(ask(ctx, "broken"))
                group.create_task(tidy())
        await ask(ctx, "after")

    run = start(grouped)
    assert run.failed(1, ValueError("no")) == ["cancel 2", "3 tidy"]
    assert run.apply(ExecutionCancelRequested(reason="enough", at_ms=run.now_ms)) == []
    assert run.completed(3) == ["be cancelled"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_task_group_of_another_loop_is_asyncios_own(fails: bool) -> None:
    async def grouped() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
                if fails:
                    raise ValueError("no")
        except ExceptionGroup:
            return "failed"
        return "done"

    assert asyncio.run(grouped()) == ("failed" if fails else "done")
