"""`ctx.map` and `ctx.race`: order, bounds, tolerance, and who is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.events import ExecutionCancelRequested
from tests.unit.core.conftest import Start
from tests.unit.core.harness import Run, ask


def asking(ctx: Context) -> Callable[[int], Coroutine[Any, Any, Any]]:
    return lambda item: ask(ctx, f"item{item}")


def mapping(count: int, **options: Any) -> Callable[[Context], Coroutine[Any, Any, Any]]:
    async def mapped(ctx: Context) -> Any:
        results = await ctx.map(asking(ctx), range(count), **options)
        return [result if isinstance(result, int) else type(result).__name__ for result in results]

    return mapped


def cancel(run: Run) -> list[str]:
    return run.apply(ExecutionCancelRequested(reason="enough", at_ms=run.now_ms))


def test_results_come_in_the_order_of_the_items(start: Start) -> None:
    run = start(mapping(3))
    assert run.asked == ["1 item0", "2 item1", "3 item2"]
    run.completed(3, 30)
    run.completed(1, 10)
    assert run.completed(2, 20) == ["return [10, 20, 30]"]


def test_no_items_are_no_work(start: Start) -> None:
    assert start(mapping(0, tolerated_failures=0.5)).asked == ["return []"]


def test_at_most_so_many_run_at_a_time(start: Start) -> None:
    run = start(mapping(4, concurrency=2))
    assert run.asked == ["1 item0", "2 item1"]
    assert run.completed(2, 1) == ["3 item2"]
    assert run.completed(3, 2) == ["4 item3"]
    assert run.completed(1, 0) == []
    assert run.completed(4, 3) == ["return [0, 1, 2, 3]"]


def test_a_failure_cancels_the_rest_and_is_raised(start: Start) -> None:
    run = start(mapping(4, concurrency=3))
    run.completed(1, 0)
    said = run.failed(3, ValueError("no"))
    assert said[:2] == ["cancel 4", "cancel 2"]
    assert "activity item2 failed" in said[2]


def test_tolerated_failures_stand_among_the_results(start: Start) -> None:
    run = start(mapping(3, tolerated_failures=1))
    run.failed(2, ValueError("no"))
    run.completed(1, 0)
    assert run.completed(3, 2) == ['return [0, "ActivityError", 2]']


@pytest.mark.parametrize(("tolerated", "failures"), [(1, 2), (0.5, 3), (0.25, 2), (0.0, 1)])
def test_one_failure_too_many_cancels_the_rest(start: Start, tolerated: float, failures: int) -> None:
    run = start(mapping(4, tolerated_failures=tolerated))
    for seq in range(1, failures):
        assert run.failed(seq, ValueError(str(seq))) == []
    said = run.failed(failures, ValueError("one too many"))
    assert said[:-1] == [f"cancel {seq}" for seq in range(failures + 1, 5)]
    assert (f"{failures} of 4 items failed" in said[-1]) is (failures > 1)


def test_a_fraction_of_all_tolerates_everything(start: Start) -> None:
    run = start(mapping(2, tolerated_failures=1.0))
    run.failed(1, ValueError("a"))
    assert run.failed(2, ValueError("b")) == ['return ["ActivityError", "ActivityError"]']


def test_too_many_failures_are_a_group(start: Start) -> None:
    async def grouped(ctx: Context) -> Any:
        try:
            await ctx.map(asking(ctx), [1, 2, 3], tolerated_failures=1)
        except ExceptionGroup as group:
            return [str(error) for error in group.exceptions]

    run = start(grouped)
    run.failed(3, ValueError("x"))
    (said,) = run.failed(1, ValueError("y"))[1:]
    assert "item3" in said
    assert "item1" in said


def test_what_is_cancelled_may_clean_up_before_the_map_ends(start: Start) -> None:
    async def tidy(ctx: Context) -> Any:
        async def work(item: int) -> None:
            try:
                await ask(ctx, f"item{item}")
            except asyncio.CancelledError:
                await ask(ctx, f"tidy{item}")
                raise

        await ctx.map(work, [1, 2, 3])

    run = start(tidy)
    assert run.failed(1, ValueError("no")) == ["cancel 2", "4 tidy2", "cancel 3", "5 tidy3"]
    assert run.failed(4, ValueError("neither")) == []
    assert "item1 failed" in run.completed(5)[0]


def test_cancelling_a_map_cancels_its_items_and_starts_no_more(start: Start) -> None:
    run = start(mapping(5, concurrency=2))
    assert cancel(run) == ["cancel 1", "cancel 2", "be cancelled"]


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"tolerated_failures": -1}, {"tolerated_failures": 1.5}])
def test_bounds_that_make_no_sense_are_refused(start: Start, options: dict[str, Any]) -> None:
    assert start(mapping(1, **options)).asked[0].startswith("raise ValueError: ")


# --- race ----------------------------------------------------------------------------------------------------


async def racing(ctx: Context) -> Any:
    return await ctx.race(*(ask(ctx, name) for name in "abc"))


def test_the_first_result_wins_and_losers_are_cancelled(start: Start) -> None:
    run = start(racing)
    assert run.completed(2, "B") == ["cancel 1", "cancel 3", 'return "B"']


def test_the_first_failure_wins_too(start: Start) -> None:
    run = start(racing)
    said = run.failed(3, ValueError("no"))
    assert said[:2] == ["cancel 1", "cancel 2"]
    assert "activity c failed" in said[2]


def test_of_several_at_once_the_leftmost_wins(start: Start) -> None:
    async def dead_heat(ctx: Context) -> Any:
        gate = asyncio.Event()

        async def through(name: str) -> str:
            await gate.wait()
            return name

        task = asyncio.create_task(ctx.race(ask(ctx, "never"), through("left"), through("right")))
        await ask(ctx, "signal")
        gate.set()
        return await task

    run = start(dead_heat)
    assert run.completed(1) == ["cancel 2", 'return "left"']


def test_losers_clean_up_and_their_errors_are_dropped(start: Start) -> None:
    async def untidy(ctx: Context) -> Any:
        async def loser() -> None:
            try:
                await ask(ctx, "slow")
            finally:
                await ask(ctx, "tidy")

        return await ctx.race(ask(ctx, "fast"), loser())

    run = start(untidy)
    assert run.completed(1, 1) == ["cancel 2", "3 tidy"]
    assert run.failed(3, ValueError("no")) == ["return 1"]


def test_a_signal_and_a_timer_can_race(start: Start) -> None:
    async def patient(ctx: Context) -> Any:
        return await ctx.race(ask(ctx, "answer"), asyncio.sleep(60, "late"))

    run = start(patient)
    assert run.asked == ["1 answer", "2 timer 60000"]
    assert run.fired(2) == ["cancel 1", 'return "late"']


def test_tasks_tell_who_won(start: Start) -> None:
    async def named(ctx: Context) -> Any:
        tasks = [asyncio.create_task(ask(ctx, name)) for name in "ab"]
        await ctx.race(*tasks)
        return [task.cancelled() for task in tasks]

    assert start(named).completed(2)[1:] == ["return [true, false]"]


def test_cancelling_a_race_cancels_everybody(start: Start) -> None:
    assert cancel(start(racing)) == ["cancel 1", "cancel 2", "cancel 3", "be cancelled"]


def test_nobody_cannot_race(start: Start) -> None:
    async def empty(ctx: Context) -> Any:
        return await ctx.race()

    assert start(empty).asked[0].startswith("raise ValueError: A race needs")
