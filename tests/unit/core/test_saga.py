"""Sagas: undone in reverse, whatever interrupts, and never half silently."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.errors import ActivityError
from durably.core.events import ExecutionCancelRequested, ExecutionFailed
from durably.core.saga import SagaCompensationError
from tests.unit.core.conftest import Start
from tests.unit.core.harness import Run, ask


def cancel(run: Run) -> list[str]:
    return run.apply(ExecutionCancelRequested(reason="enough", at_ms=run.now_ms))


async def trip(ctx: Context, **options: Any) -> str:
    async with ctx.saga(**options) as saga:
        saga.compensate(ask, ctx, "cancel_car")
        await ask(ctx, "book_car")
        saga.compensate(ask, ctx, "cancel_hotel")
        await ask(ctx, "book_hotel")
    return "booked"


async def parallel_trip(ctx: Context) -> str:
    return await trip(ctx, parallel=True)


def test_what_succeeds_is_not_undone(start: Start) -> None:
    run = start(trip)
    assert run.asked == ["1 book_car"]
    assert run.completed(1) == ["2 book_hotel"]
    assert run.completed(2) == ['return "booked"']


def test_compensations_run_in_reverse_and_the_error_goes_on(start: Start) -> None:
    run = start(trip)
    run.completed(1)
    assert run.failed(2, ValueError("full")) == ["3 cancel_hotel"]
    assert run.completed(3) == ["4 cancel_car"]
    assert run.completed(4) == [
        "raise durably.core.errors.ActivityError: activity book_hotel failed at attempt 1: ValueError: full"
    ]


def test_parallel_compensations_run_at_once(start: Start) -> None:
    run = start(parallel_trip)
    run.completed(1)
    assert run.failed(2, ValueError("full")) == ["3 cancel_hotel", "4 cancel_car"]
    assert run.completed(4) == []
    assert run.completed(3)[0].startswith("raise durably.core.errors.ActivityError")


def test_a_compensation_that_fails_is_told_and_the_rest_still_run(start: Start) -> None:
    run = start(trip)
    run.completed(1)
    run.failed(2, ValueError("full"))
    assert run.failed(3, OSError("down")) == ["4 cancel_car"]
    (told,) = run.completed(4)
    assert "SagaCompensationError: 1 of 2 compensations failed (ask: activity cancel_hotel failed" in told
    failed = run.turns[-1].outbound[0]
    assert isinstance(failed, ExecutionFailed)
    failure = failed.failure
    assert [member.matches(ActivityError) for member in failure.members] == [True]
    assert failure.cause is not None
    assert "book_hotel" in failure.cause.message


def test_a_saga_whose_compensation_failed_can_be_handled(start: Start) -> None:
    async def careful(ctx: Context) -> list[Any]:
        try:
            return [await trip(ctx)]
        except SagaCompensationError as error:
            return [type(one).__name__ for one in (error.__cause__, *error.exceptions)]

    run = start(careful)
    run.failed(1, ValueError("no car"))
    assert run.failed(2, OSError("down")) == ['return ["ActivityError", "ActivityError"]']


def test_cancellation_is_compensated_and_goes_on(start: Start) -> None:
    run = start(trip)
    run.completed(1)
    assert cancel(run) == ["cancel 2", "3 cancel_hotel"]
    assert run.completed(3) == ["4 cancel_car"]
    assert run.completed(4) == ["be cancelled"]


def test_a_second_cancellation_does_not_interrupt_compensations(start: Start) -> None:
    run = start(trip)
    run.completed(1)
    cancel(run)
    assert cancel(run) == []
    assert run.completed(3) == ["4 cancel_car"]
    assert cancel(run) == []
    assert run.completed(4) == ["be cancelled"]


def test_a_cancellation_while_an_error_is_compensated_takes_its_place(start: Start) -> None:
    run = start(trip)
    run.failed(1, ValueError("no car"))
    assert cancel(run) == []
    assert run.completed(2) == ["be cancelled"]


def test_a_timeout_around_the_block_stays_a_timeout(start: Start) -> None:
    async def hurried(ctx: Context) -> str:
        try:
            async with asyncio.timeout(10):
                return await trip(ctx)
        except TimeoutError:
            return f"late, cancelling {_current().cancelling()}"

    run = start(hurried)
    assert run.asked == ["1 timer 10000", "2 book_car"]
    assert run.fired(1) == ["cancel 2", "3 cancel_car"]
    assert run.completed(3) == ['return "late, cancelling 0"']


def test_a_timeout_that_passes_while_compensating_waits_for_the_end(start: Start) -> None:
    async def hurried(ctx: Context) -> str:
        try:
            async with asyncio.timeout(10):
                return await trip(ctx)
        except TimeoutError:
            return "late"

    run = start(hurried)
    assert run.failed(2, ValueError("no car")) == ["3 cancel_car"]
    assert run.fired(1) == []
    assert run.completed(3) == ['return "late"']


def test_compensations_have_timeouts_of_their_own(start: Start) -> None:
    async def patient(ctx: Context) -> None:
        async def give_back() -> None:
            async with asyncio.timeout(5):
                await ask(ctx, "give_back")

        async with ctx.saga() as saga:
            saga.compensate(give_back)
            await ask(ctx, "take")

    run = start(patient)
    assert cancel(run) == ["cancel 1", "2 timer 5000", "3 give_back"]
    assert run.fired(2)[0] == "cancel 3"
    assert "1 of 1 compensations failed (give_back: )" in run.said[-1][1]


def test_sagas_nest(start: Start) -> None:
    async def nested(ctx: Context) -> None:
        async with ctx.saga() as outer:
            outer.compensate(ask, ctx, "undo_outer")
            async with ctx.saga() as inner:
                inner.compensate(ask, ctx, "undo_inner")
                await ask(ctx, "work")

    run = start(nested)
    assert run.failed(1, ValueError("no")) == ["2 undo_inner"]
    assert run.completed(2) == ["3 undo_outer"]
    assert run.completed(3)[0].startswith("raise")


def test_a_sibling_that_fails_in_a_task_group_has_the_saga_compensated(start: Start) -> None:
    async def group(ctx: Context) -> str:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(trip(ctx))
                tasks.create_task(ask(ctx, "sibling"))
        except ExceptionGroup as error:
            return str(error.exceptions)
        return "done"

    run = start(group)
    assert run.failed(2, ValueError("no")) == ["cancel 1", "3 cancel_car"]
    assert "sibling failed" in run.completed(3)[0]


def test_system_exit_is_compensated(start: Start) -> None:
    async def quitting(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.compensate(ask, ctx, "undo")
            await ask(ctx, "work")
            raise SystemExit(2)

    run = start(quitting)
    assert run.completed(1) == ["2 undo"]
    assert run.completed(2) == ["raise SystemExit: 2"]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_run_that_is_terminated_asks_for_no_compensation(start: Start, steps: int) -> None:
    run = start(trip)
    if steps:
        run.completed(1)
    if steps == 2:
        cancel(run)
    assert run.terminated() == []


def test_what_undo_raises_before_it_is_awaited_counts_as_its_failure(start: Start) -> None:
    def broken() -> Any:
        raise LookupError("nothing there")

    async def wrong(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.compensate(ask, ctx, "undo")
            saga.compensate(broken)
            await ask(ctx, "work")

    run = start(wrong)
    assert run.failed(1, ValueError("no")) == ["2 undo"]
    assert "broken: nothing there" in run.completed(2)[0]


def test_a_compensation_that_is_cancelled_by_somebody_else_has_failed(start: Start) -> None:
    async def odd(ctx: Context) -> None:
        async def give_up() -> None:
            _current().cancel()
            await ask(ctx, "never")

        async with ctx.saga(parallel=True) as saga:
            saga.compensate(give_up)
            await ask(ctx, "work")

    run = start(odd)
    assert "the compensation give_up was cancelled" in run.failed(1, ValueError("no"))[0]


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def test_a_compensation_that_fails_with_an_error_that_has_no_text_is_told(start: Start) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def mute(ctx: Context) -> None:
        async def undo() -> None:
            raise MuteError

        async with ctx.saga() as saga:
            saga.compensate(undo)
            raise ValueError("full")

    assert "SagaCompensationError: 1 of 1 compensations failed (undo: <str()" in start(mute).asked[0]
