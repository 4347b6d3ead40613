"""What asyncio offers for running things side by side and for waiting, inside an orchestrator."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core.context import Context
from durably.core.errors import ActivityError
from tests.unit.core.conftest import Start
from tests.unit.core.harness import ask


def test_activities_one_after_the_other_are_asked_for_one_at_a_time(start: Start) -> None:
    async def sequence(ctx: Context) -> Any:
        first = await ask(ctx, "a")
        return [first, await ask(ctx, "b", x=first)]

    run = start(sequence)
    assert run.asked == ["1 a"]
    assert run.completed(1, "A") == ['2 b {"x": "A"}']
    assert run.completed(2, "B") == ['return ["A", "B"]']
    assert run.execution.closed


def test_gather_asks_for_everything_at_once_and_returns_in_its_own_order(start: Start) -> None:
    async def both(ctx: Context) -> Any:
        return await asyncio.gather(ask(ctx, "a"), ask(ctx, "b"))

    run = start(both)
    assert run.asked == ["1 a", "2 b"]
    assert run.completed(2, "B") == []
    assert run.completed(1, "A") == ['return ["A", "B"]']


def test_gather_raises_the_first_error_and_the_root_ends_what_is_left(start: Start) -> None:
    async def both(ctx: Context) -> None:
        await asyncio.gather(ask(ctx, "a"), ask(ctx, "b"))

    run = start(both)
    assert run.failed(2, ValueError("no")) == [
        "cancel 1",
        "raise durably.core.errors.ActivityError: activity b failed at attempt 1: ValueError: no",
    ]


def test_gather_with_return_exceptions_hands_errors_back_as_values(start: Start) -> None:
    async def both(ctx: Context) -> Any:
        values = await asyncio.gather(ask(ctx, "a"), ask(ctx, "b"), return_exceptions=True)
        return [value.type if isinstance(value, ActivityError) else value for value in values]

    run = start(both)
    assert run.failed(1, ValueError("no")) == []
    assert run.completed(2, "B") == ['return ["builtins.ValueError", "B"]']


def test_nested_gathers_number_their_activities_in_the_order_asked_for(start: Start) -> None:
    async def pair(ctx: Context, name: str) -> Any:
        return await asyncio.gather(ask(ctx, f"{name}1"), ask(ctx, f"{name}2"))

    async def pairs(ctx: Context) -> Any:
        return await asyncio.gather(pair(ctx, "a"), pair(ctx, "b"))

    run = start(pairs)
    assert run.asked == ["1 a1", "2 a2", "3 b1", "4 b2"]
    for seq in (4, 1, 3):
        assert run.completed(seq, seq) == []
    assert run.completed(2, 2) == ["return [[1, 2], [3, 4]]"]


def test_a_task_group_waits_for_all_its_tasks(start: Start) -> None:
    async def group(ctx: Context) -> Any:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(ask(ctx, "a"))
            second = tasks.create_task(ask(ctx, "b"))
        return [first.result(), second.result()]

    run = start(group)
    assert run.asked == ["1 a", "2 b"]
    assert run.completed(1, 1) == []
    assert run.completed(2, 2) == ["return [1, 2]"]


def test_a_failing_task_cancels_the_rest_of_its_group(start: Start) -> None:
    async def group(ctx: Context) -> Any:
        said = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for name in "abc":
                    tasks.create_task(ask(ctx, name))
        except* ActivityError as errors:
            said = await ask(ctx, "report", count=len(errors.exceptions))
        return said

    run = start(group)
    assert run.failed(2, ValueError("no")) == ["cancel 1", "cancel 3", '4 report {"count": 1}']
    assert run.completed(4, "told") == ['return "told"']


def test_sleep_is_a_durable_timer(start: Start) -> None:
    async def month(ctx: Context) -> str:
        return await asyncio.sleep(30 * 24 * 3600, "rested")

    run = start(month)
    assert run.asked == ["1 timer 2592000000"]
    assert run.fired(1) == ['return "rested"']


def test_sleeping_for_nothing_is_no_timer_but_lets_others_go_first(start: Start) -> None:
    async def polite(ctx: Context) -> list[str]:
        said: list[str] = []

        async def other() -> None:
            said.append("other")

        task = asyncio.create_task(other())
        await asyncio.sleep(0)
        said.append("me")
        await task
        return said

    assert start(polite).asked == ['return ["other", "me"]']


def test_timeout_cancels_the_activity_that_is_late(start: Start) -> None:
    async def impatient(ctx: Context) -> str:
        try:
            async with asyncio.timeout(10):
                await ask(ctx, "slow")
        except TimeoutError:
            return "late"
        return "in time"

    run = start(impatient)
    assert run.asked == ["1 timer 10000", "2 slow"]
    assert run.fired(1) == ["cancel 2", 'return "late"']


def test_a_timeout_that_is_not_needed_leaves_nothing_in_history(start: Start) -> None:
    async def patient(ctx: Context) -> str:
        async with asyncio.timeout(10):
            await ask(ctx, "quick")
        return "in time"

    run = start(patient)
    assert run.completed(2) == ['return "in time"']


def test_timeout_at_counts_from_the_time_of_the_event(start: Start) -> None:
    async def until(ctx: Context) -> str:
        loop = asyncio.get_running_loop()
        await ask(ctx, "a")
        try:
            async with asyncio.timeout_at(loop.time() + 2.5):
                await ask(ctx, "slow")
        except TimeoutError:
            return "late"
        return "in time"

    run = start(until)
    assert run.completed(1, after_ms=777) == ["2 timer 2500", "3 slow"]
    assert run.fired(2) == ["cancel 3", 'return "late"']


def test_a_timeout_that_already_passed_asks_for_no_timer(start: Start) -> None:
    async def too_late(ctx: Context) -> str:
        try:
            async with asyncio.timeout(-1):
                await ask(ctx, "slow")
        except TimeoutError:
            return "late"
        return "in time"

    assert start(too_late).asked == ['return "late"']


def test_a_timeout_can_be_moved(start: Start) -> None:
    async def moved(ctx: Context) -> str:
        async with asyncio.timeout(10) as timeout:
            await ask(ctx, "a")
            timeout.reschedule(asyncio.get_running_loop().time() + 60)
            await ask(ctx, "b")
        return "done"

    run = start(moved)
    assert run.asked == ["1 timer 10000", "2 a"]
    assert run.completed(2) == ["3 timer 60000", "4 b"]
    assert not run.execution.waits_for(1)
    assert run.completed(4) == ['return "done"']


def test_nested_timeouts_raise_where_they_belong(start: Start) -> None:
    async def nested(ctx: Context) -> list[str]:
        said: list[str] = []
        try:
            async with asyncio.timeout(5):
                try:
                    async with asyncio.timeout(10):
                        await ask(ctx, "slow")
                except TimeoutError:
                    said.append("inner")
        except TimeoutError:
            said.append("outer")
        return said

    run = start(nested)
    assert run.asked == ["1 timer 5000", "2 timer 10000", "3 slow"]
    assert run.fired(1) == ["cancel 3", 'return ["outer"]']


def test_wait_for_is_a_timer_and_then_the_activity(start: Start) -> None:
    async def impatient(ctx: Context) -> str:
        try:
            return str(await asyncio.wait_for(ask(ctx, "slow"), 3))
        except TimeoutError:
            return "late"

    run = start(impatient)
    assert run.asked == ["1 timer 3000", "2 slow"]
    assert run.fired(1) == ["cancel 2", 'return "late"']


def test_wait_for_returns_what_comes_in_time(start: Start) -> None:
    async def patient(ctx: Context) -> Any:
        return await asyncio.wait_for(ask(ctx, "quick"), 3)

    run = start(patient)
    assert run.completed(2, "here") == ['return "here"']


def test_wait_for_without_time_never_asks(start: Start) -> None:
    async def hurried(ctx: Context) -> str:
        try:
            return str(await asyncio.wait_for(ask(ctx, "slow"), 0))
        except TimeoutError:
            return "late"

    assert start(hurried).asked == ['return "late"']


def test_gathered_wait_fors_ask_pair_by_pair(start: Start) -> None:
    async def pairs(ctx: Context) -> Any:
        return await asyncio.gather(*(asyncio.wait_for(ask(ctx, name), 5) for name in "ab"))

    run = start(pairs)
    assert run.asked == ["1 timer 5000", "2 a", "3 timer 5000", "4 b"]
    run.completed(4, "B")
    assert run.completed(2, "A") == ['return ["A", "B"]']


def test_shield_keeps_an_activity_that_its_waiter_gave_up(start: Start) -> None:
    async def shielded(ctx: Context) -> Any:
        keep = asyncio.create_task(ask(ctx, "keep"))
        try:
            async with asyncio.timeout(1):
                await asyncio.shield(keep)
        except TimeoutError:
            await ask(ctx, "apologise")
        return await keep

    run = start(shielded)
    assert run.asked == ["1 timer 1000", "2 keep"]
    assert run.fired(1) == ["3 apologise"]
    assert run.completed(2, "kept") == []
    assert run.completed(3) == ['return "kept"']


def test_wait_returns_at_the_first_completed(start: Start) -> None:
    async def race(ctx: Context) -> Any:
        tasks = [asyncio.create_task(ask(ctx, name), name=name) for name in "abc"]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [task.get_name() for task in done]

    run = start(race)
    assert run.asked == ["1 a", "2 b", "3 c"]
    assert run.completed(2) == ["cancel 1", "cancel 3", 'return ["b"]']


def test_wait_returns_at_the_first_exception(start: Start) -> None:
    async def race(ctx: Context) -> Any:
        tasks = [asyncio.create_task(ask(ctx, name), name=name) for name in "abc"]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task.get_name() for task in done if task.exception()]
        return [failed, sorted(task.get_name() for task in pending)]

    run = start(race)
    assert run.completed(1) == []
    assert run.failed(3, ValueError("no")) == ["cancel 2", 'return [["c"], ["b"]]']


def test_wait_for_all_with_a_timeout_hands_back_what_is_pending(start: Start) -> None:
    async def race(ctx: Context) -> Any:
        tasks = [asyncio.create_task(ask(ctx, name), name=name) for name in "ab"]
        done, pending = await asyncio.wait(tasks, timeout=4)
        return [[task.get_name() for task in done], [task.get_name() for task in pending]]

    run = start(race)
    assert run.asked == ["1 timer 4000", "2 a", "3 b"]
    assert run.completed(3) == []
    assert run.fired(1) == ["cancel 2", 'return [["b"], ["a"]]']


def test_as_completed_over_tasks_follows_the_order_of_history(start: Start) -> None:
    async def ordered(ctx: Context) -> Any:
        tasks = [asyncio.create_task(ask(ctx, name)) for name in "abc"]
        return [await task for task in asyncio.as_completed(tasks)]

    run = start(ordered)
    assert run.asked == ["1 a", "2 b", "3 c"]
    run.completed(3, "C")
    run.completed(1, "A")
    assert run.completed(2, "B") == ['return ["C", "A", "B"]']


def test_as_completed_with_a_timeout_gives_up(start: Start) -> None:
    async def ordered(ctx: Context) -> Any:
        got: list[Any] = []
        try:
            for task in asyncio.as_completed([asyncio.create_task(ask(ctx, name)) for name in "ab"], timeout=9):
                got.append(await task)  # noqa: PERF401  # a comprehension would lose what came in time
        except TimeoutError:
            got.append("late")
        return got

    run = start(ordered)
    assert run.asked == ["1 timer 9000", "2 a", "3 b"]
    assert run.completed(3, "B") == []
    assert run.fired(1) == ["cancel 2", 'return ["B", "late"]']


def test_tasks_have_names_and_know_each_other(start: Start) -> None:
    async def named(ctx: Context) -> Any:
        async def child() -> list[str]:
            me = asyncio.current_task()
            assert me is not None
            return [me.get_name(), *(task.get_name() for task in asyncio.all_tasks())]

        names = await asyncio.gather(asyncio.create_task(child(), name="child"), asyncio.create_task(child()))
        me = asyncio.current_task()
        return [me.get_name() if me else None, *names]

    assert start(named).asked == [
        'return ["orchestrator", ["child", "orchestrator", "child", "task-3"], ["task-3", "orchestrator", "task-3"]]'
    ]


def test_helper_coroutines_and_the_loop_clock_belong_to_the_event(start: Start) -> None:
    async def helper(ctx: Context, depth: int) -> float:
        if depth:
            return await helper(ctx, depth - 1)
        await ask(ctx, "deep")
        return asyncio.get_running_loop().time()

    async def deep(ctx: Context) -> bool:
        return await helper(ctx, 50) == ctx.now().timestamp()

    run = start(deep)
    assert run.completed(1, after_ms=12_345) == ["return true"]


def test_a_future_of_the_loop_carries_a_value_between_tasks(start: Start) -> None:
    async def handed(ctx: Context) -> Any:
        future = asyncio.get_running_loop().create_future()

        async def fill() -> None:
            future.set_result(await ask(ctx, "a"))

        task = asyncio.create_task(fill())
        value = await future
        await task
        return value

    run = start(handed)
    assert run.completed(1, 5) == ["return 5"]


def test_call_later_and_call_at_are_timers_too(start: Start) -> None:
    async def called(ctx: Context) -> Any:
        loop = asyncio.get_running_loop()
        said: list[str] = []
        loop.call_later(2, said.append, "later")
        handle = loop.call_at(loop.time() + 1, said.append, "never")
        assert handle.when() == loop.time() + 1
        handle.cancel()
        assert handle.cancelled()
        await asyncio.sleep(3)
        return said

    run = start(called)
    assert run.asked == ["1 timer 2000", "3 timer 3000"]
    run.fired(1)
    assert run.fired(3) == ['return ["later"]']
