"""How an execution ends, fails or stalls."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.errors import PayloadError, Stall, TurnLimitError, TurnTimeoutError, UndecodableError
from durably.core.events import ActivityCompleted, ExecutionStarted
from durably.core.execution import Execution, Program
from tests.unit.core.conftest import Start
from tests.unit.core.harness import KEY, START_MS, JsonArguments, JsonCodec, JsonShape, Run, ask


def test_the_return_of_the_root_closes_what_is_left_and_cancels_its_activities(start: Start) -> None:
    said: list[str] = []

    async def leaving(ctx: Context) -> str:
        async def background(name: str) -> None:
            try:
                await ask(ctx, name)
            finally:
                said.append(name)

        for name in "ab":
            asyncio.create_task(background(name))
        nap = asyncio.create_task(asyncio.sleep(100))
        await ask(ctx, "c")
        assert not nap.done()
        return "done"

    run = start(leaving)
    assert run.asked == ["1 c", "2 a", "3 b", "4 timer 100000"]
    assert run.completed(1) == ["cancel 2", "cancel 3", 'return "done"']
    assert said == ["b", "a"]
    assert run.execution.closed


def test_what_was_asked_for_in_the_last_breath_is_not_asked_for(start: Start) -> None:
    async def leaving(ctx: Context) -> str:
        asyncio.create_task(ask(ctx, "a"))
        asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(0)
        return "done"

    assert start(leaving).asked == ['return "done"']


def test_an_exception_of_the_root_fails_the_execution(start: Start) -> None:
    async def failing(ctx: Context) -> None:
        await ask(ctx, "a")
        raise ValueError("bad packet")

    run = start(failing)
    assert run.completed(1) == ["raise ValueError: bad packet"]
    assert run.execution.closed


def test_an_unhandled_error_in_a_background_task_fails_the_execution(start: Start) -> None:
    async def leaving(ctx: Context) -> str:
        async def background() -> None:
            await ask(ctx, "a")
            raise ValueError("unseen")

        asyncio.create_task(background())
        await ask(ctx, "b")
        return "done"

    run = start(leaving)
    assert run.asked == ["1 b", "2 a"]
    assert run.completed(2) == []
    assert run.completed(1) == ["raise ValueError: unseen"]


def test_an_error_that_somebody_looked_at_does_not_fail_the_execution(start: Start) -> None:
    async def leaving(ctx: Context) -> str:
        async def background() -> None:
            raise ValueError("seen")

        task = asyncio.create_task(background())
        await asyncio.wait([task])
        assert isinstance(task.exception(), ValueError)
        return "done"

    assert start(leaving).asked == ['return "done"']


@pytest.mark.parametrize("cancels", [True, False])
def test_a_gathering_that_is_not_done_looks_after_the_errors_in_it(start: Start, cancels: bool) -> None:
    async def leaving(ctx: Context) -> str:
        async def slow() -> None:
            try:
                await ask(ctx, "slow")
            finally:
                await ask(ctx, "tidy")

        async def broken() -> None:
            try:
                await ask(ctx, "broken")
            finally:
                raise ValueError("gathered")

        gathering = asyncio.gather(slow(), broken(), return_exceptions=True)
        await ask(ctx, "signal")
        if cancels:
            gathering.cancel()
        return "done"

    run = start(leaving)
    assert run.asked == ["1 signal", "2 slow", "3 broken"]
    if not cancels:
        run.completed(3)
    assert run.completed(1)[-1] == 'return "done"'


def test_a_gathering_hides_nobody_elses_error(start: Start) -> None:
    async def leaving(ctx: Context) -> str:
        async def broken() -> None:
            await ask(ctx, "broken")
            raise ValueError("unseen")

        asyncio.gather(ask(ctx, "slow"), return_exceptions=True)
        asyncio.create_task(broken())
        await ask(ctx, "signal")
        return "done"

    run = start(leaving)
    assert run.asked == ["1 signal", "2 slow", "3 broken"]
    assert run.completed(3) == []
    assert run.completed(1) == ["cancel 2", "raise ValueError: unseen"]


def test_an_error_in_a_plain_callback_fails_the_execution(start: Start) -> None:
    async def leaving(ctx: Context) -> str:
        def broken() -> None:
            raise ValueError("in a callback")

        asyncio.get_running_loop().call_soon(broken)
        await ask(ctx, "a")
        return "done"

    assert start(leaving).asked == ["raise ValueError: in a callback"]


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, BaseException])
def test_what_is_no_exception_ends_the_execution_and_nothing_else(start: Start, kind: type[BaseException]) -> None:
    async def leaving(ctx: Context) -> None:
        def broken() -> None:
            raise kind("in a callback")

        asyncio.get_running_loop().call_soon(broken)
        await ask(ctx, "a")

    (line,) = start(leaving).asked
    assert line.endswith(f"{kind.__name__}: in a callback")


def test_an_error_of_the_root_comes_before_those_of_background_tasks(start: Start) -> None:
    async def leaving(ctx: Context) -> None:
        async def background() -> None:
            raise ValueError("second")

        asyncio.create_task(background())
        await asyncio.sleep(0)
        raise KeyError("first")

    assert start(leaving).asked == ["raise KeyError: 'first'"]


def test_a_cancellation_that_nobody_asked_for_is_a_failure(start: Start) -> None:
    async def cancelled(ctx: Context) -> None:
        raise asyncio.CancelledError

    async def cancels_itself(ctx: Context) -> None:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        await ask(ctx, "a")

    for orchestrate in (cancelled, cancels_itself):
        (line,) = start(orchestrate).asked
        assert line.startswith("raise asyncio.exceptions.CancelledError: ")
        assert "nobody asked" in line


@pytest.mark.parametrize("where", ["root", "task", "callback"])
def test_system_exit_fails_the_execution_and_spares_the_process(start: Start, where: str) -> None:
    async def leaving(ctx: Context) -> None:
        async def leave() -> None:
            raise SystemExit("bye")

        def leave_now() -> None:
            raise SystemExit("bye")

        if where == "root":
            await leave()
        elif where == "task":
            await asyncio.create_task(leave())
        else:
            asyncio.get_running_loop().call_soon(leave_now)
        await ask(ctx, "unreachable")

    run = start(leaving)
    assert run.asked == ["raise SystemExit: bye"]
    assert run.execution.apply(ActivityCompleted(seq=1, result="null", at_ms=run.now_ms)) == []


def test_an_interrupt_propagates_and_leaves_the_execution_to_be_closed() -> None:
    said: list[str] = []

    async def interrupted(ctx: Context) -> None:
        async def background() -> None:
            try:
                await ask(ctx, "a")
            finally:
                said.append("closed")

        asyncio.create_task(background())
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    run = Run.__new__(Run)
    run.orchestrate, run.max_steps = interrupted, 1_000
    execution = run.fresh()
    with pytest.raises(KeyboardInterrupt):
        execution.apply(started_event())
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    execution.close()
    assert said == ["closed"]


def test_exhausting_the_stack_stalls() -> None:
    async def deep(ctx: Context) -> None:
        async def down() -> None:
            await down()

        await down()

    with pytest.raises(TurnLimitError, match="exhausted the stack"):
        Run(deep)


def test_exhausting_memory_stalls_also_inside_a_group() -> None:
    async def greedy(ctx: Context) -> None:
        async def eat() -> None:
            raise MemoryError("all of it")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(eat())

    with pytest.raises(TurnLimitError, match=r"exhausted memory: all of it.*resumes by itself"):
        Run(greedy)


def test_a_loop_without_end_stalls() -> None:
    async def endless(ctx: Context) -> None:
        while True:  # noqa: ASYNC110  # the mistake itself
            await asyncio.sleep(0)

    with pytest.raises(TurnLimitError, match="more than 5000 steps"):
        Run(endless, max_steps=5_000)


def test_a_stall_stays_a_stall_where_user_code_swallows_it(start: Start) -> None:
    async def swallowing(ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            await ask(ctx, "a")
        return "as if nothing had happened"

    run = Run(swallowing)
    with pytest.raises(UndecodableError, match="no longer fits its annotation"):
        run.execution.apply(ActivityCompleted(seq=1, result="{not json", at_ms=run.now_ms))
    run.execution.close()


def test_a_stall_inside_a_background_task_stalls_the_execution() -> None:
    async def waiting(ctx: Context) -> None:
        asyncio.create_task(ask(ctx, "a"))
        await ask(ctx, "b")

    run = Run(waiting)
    with pytest.raises(UndecodableError):
        run.execution.apply(ActivityCompleted(seq=2, result="{not json", at_ms=run.now_ms))
    run.execution.close()


def test_a_watchdog_that_strikes_inside_user_code_stalls() -> None:
    async def struck(ctx: Context) -> None:
        raise TurnTimeoutError

    with pytest.raises(TurnTimeoutError, match="Move long work into an @activity"):
        Run(struck)


def test_an_input_that_no_longer_decodes_stalls() -> None:
    def refuse(ctx: Context, text: str) -> Any:
        raise PayloadError("packet is missing")

    execution = Execution(
        KEY, Program(name="route", start=refuse, arguments=JsonArguments(), result=JsonShape()), JsonCodec()
    )
    with pytest.raises(UndecodableError, match=r"recorded input of route does not fit.*packet is missing"):
        execution.apply(started_event())


def test_a_result_that_cannot_be_stored_fails_the_execution(start: Start) -> None:
    async def returning(ctx: Context) -> object:
        return object()

    (line,) = start(returning).asked
    assert line.startswith("raise durably.core.errors.PayloadError: ")


def test_stalls_cannot_be_caught_as_exceptions() -> None:
    assert not issubclass(Stall, Exception)


def started_event() -> ExecutionStarted:
    return ExecutionStarted(orchestrator="o", input="[]", seed=1, python="3.11", at_ms=START_MS)
