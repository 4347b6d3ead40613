"""Replay: the same code takes the same way again; other code is told what history holds and what it asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.errors import NonDeterminismError, UndecodableError
from durably.core.events import ActivityCompleted, ExecutionTerminated
from durably.core.history import Turn
from durably.core.replay import replay
from tests.unit.core.conftest import Start
from tests.unit.core.harness import Orchestrate, Run, ask, line_of


def line_in(orchestrate: Callable[..., Any], offset: int) -> str:
    return f"core/test_replay.py:{orchestrate.__code__.co_firstlineno + offset}"


def one_turn(turns: Sequence[Turn]) -> list[Turn]:
    """The same history, taken in a single turn."""
    return [
        replace(
            turns[0],
            inbound=tuple(event for turn in turns for event in turn.inbound),
            outbound=tuple(event for turn in turns for event in turn.outbound),
            applied_through=turns[-1].applied_through,
        )
    ]


def divergence(run: Run, by: Orchestrate) -> str:
    """What is said where `by` replays the history, which must not depend on how it was cut into turns."""
    said: list[str] = []
    for turns in (run.turns, one_turn(run.turns)):
        execution = run.fresh(by)
        with pytest.raises(NonDeterminismError) as caught:
            replay(execution, turns)
        assert not execution.replaying
        execution.close()
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def sides(message: str) -> tuple[str, str]:
    """What history recorded, and what the code now asks for, without places."""
    found = re.search(r"history recorded (.*)\n  the code now asks for (.*)\n", message)
    assert found is not None, message
    recorded, asked = (re.sub(r" at \S+$", "", side) for side in found.groups())
    return recorded, asked


# --- programs that were edited ------------------------------------------------------------------------------


async def recorded_program(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    return "done"


async def renamed(ctx: Context) -> Any:
    await ask(ctx, "other", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    return "done"


async def other_input(ctx: Context) -> Any:
    await ask(ctx, "a", x=2)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    return "done"


async def other_length(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5.001))
    return "done"


async def swapped(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(asyncio.sleep(5), ask(ctx, "b"))
    return "done"


async def first_missing(ctx: Context) -> Any:
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    return "done"


async def last_missing(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await ask(ctx, "b")
    return "done"


async def all_missing(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.get_running_loop().create_future()


async def one_more_first(ctx: Context) -> Any:
    task = asyncio.create_task(ask(ctx, "a", x=1))
    await ask(ctx, "more")
    return await task


async def one_more_last(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5), ask(ctx, "more"))
    return "done"


async def one_more_while_waiting(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)

    async def eager() -> None:
        await ask(ctx, "b")
        await ask(ctx, "more")

    await asyncio.gather(eager(), asyncio.sleep(5))
    return "done"


async def too_early(ctx: Context) -> Any:
    await asyncio.gather(ask(ctx, "a", x=1), ask(ctx, "b"))


async def returns_early(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    return "done"


async def returns_something_else(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    return "finished"


async def raises(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    raise ValueError("no")


async def goes_on(ctx: Context) -> Any:
    await ask(ctx, "a", x=1)
    await asyncio.gather(ask(ctx, "b"), asyncio.sleep(5))
    return await ask(ctx, "c")


EDITS: dict[Orchestrate, tuple[int, str, str]] = {
    renamed: (1, 'a({"x": 1})', 'other({"x": 1})'),
    other_input: (1, 'a({"x": 1})', 'a({"x": 2})'),
    other_length: (2, "a timer of 5000 ms", "a timer of 5001 ms"),
    swapped: (1, "b({})", "a timer of 5000 ms"),
    first_missing: (1, 'a({"x": 1})', "b({})"),
    last_missing: (2, "a timer of 5000 ms", "nothing more"),
    all_missing: (1, "b({})", "nothing more"),
    one_more_first: (1, 'a({"x": 1})', "more({})"),
    one_more_last: (3, "nothing more", "more({})"),
    one_more_while_waiting: (1, "nothing more", "more({})"),
    too_early: (2, "nothing more", "b({})"),
    returns_early: (1, "b({})", 'return "done"'),
    returns_something_else: (1, 'return "done"', 'return "finished"'),
    raises: (1, 'return "done"', "raise ValueError: no"),
    goes_on: (1, 'return "done"', "c({})"),
}


def recorded_run(start: Start) -> Run:
    run = start(recorded_program)
    run.completed(1)
    run.completed(2)
    assert run.fired(3) == ['return "done"']
    return run


@pytest.mark.parametrize("edited", EDITS, ids=lambda edited: edited.__name__)
def test_an_edit_is_told_with_both_sides(start: Start, edited: Orchestrate) -> None:
    command, recorded, asked = EDITS[edited]
    message = divergence(recorded_run(start), edited)
    assert message.startswith(f"Command {command} after event ")
    assert sides(message) == (recorded, asked)


def test_code_that_was_not_edited_replays(start: Start) -> None:
    run = recorded_run(start)
    execution = run.fresh()
    replay(execution, one_turn(run.turns))
    assert execution.closed
    assert execution.applied == 4


# --- what is said -------------------------------------------------------------------------------------------


async def line_before(ctx: Context) -> Any:
    return await ctx.call("a", returns=int, x=1)


async def line_after(ctx: Context) -> Any:
    call = ctx.call
    return await call("b", returns=int, x=1)


async def timer_before(ctx: Context) -> None:
    await asyncio.sleep(1)


async def timer_after(ctx: Context) -> None:
    async with asyncio.timeout(2):
        await asyncio.get_running_loop().create_future()


def test_the_places_in_the_users_files_are_named(start: Start) -> None:
    message = divergence(start(line_before), line_after)
    assert f'history recorded a({{"x": 1}}) at {line_in(line_before, 1)}\n' in message
    assert f'the code now asks for b({{"x": 1}}) at {line_in(line_after, 2)}\n' in message


def test_the_place_of_a_timer_is_where_the_user_waits(start: Start) -> None:
    message = divergence(start(timer_before), timer_after)
    assert f"a timer of 1000 ms at {line_in(timer_before, 1)}\n" in message
    assert f"a timer of 2000 ms at {line_in(timer_after, 1)}\n" in message


def test_execution_event_cause_and_remedy_are_named(start: Start) -> None:
    message = divergence(recorded_run(start), all_missing)
    assert "after event 2 (ActivityCompleted) of execution packet-42 changed on replay" in message
    assert "was edited while this execution was running" in message
    assert "resumes by itself once the code agrees with its history" in message


def test_a_large_input_is_shortened(start: Start) -> None:
    async def large(ctx: Context) -> Any:
        await ask(ctx, "a", text="x" * 1_000_000)

    message = divergence(start(large), renamed)
    assert len(message) < 2_000
    assert "... (1000012 characters)" in message


# --- what is no divergence ------------------------------------------------------------------------------------


def replays(run: Run, by: Orchestrate) -> None:
    for turns in (run.turns, one_turn(run.turns)):
        execution = run.fresh(by)
        replay(execution, turns)
        execution.close()


def test_inputs_and_results_are_compared_by_value_not_by_text(start: Start) -> None:
    async def before(ctx: Context) -> Any:
        await ask(ctx, "a", x=1, y=2)
        return {"x": 1, "y": 2}

    async def after(ctx: Context) -> Any:
        await ask(ctx, "a", y=2, x=1.0)
        return {"y": 2.0, "x": 1}

    run = start(before)
    run.completed(1)
    replays(run, after)


def test_another_message_of_a_failure_is_no_divergence(start: Start) -> None:
    async def before(ctx: Context) -> None:
        await ask(ctx, "a")
        raise ValueError("row 7")

    async def after(ctx: Context) -> None:
        await ask(ctx, "a")
        raise KeyError("row 7, column 3")

    run = start(before)
    run.completed(1)
    replays(run, after)


def test_lines_and_helpers_may_move(start: Start) -> None:
    async def helper(ctx: Context) -> Any:
        return await ctx.call("a", returns=int, x=1)

    async def moved(ctx: Context) -> Any:
        return await helper(ctx)

    run = start(line_before)
    run.completed(1, 5)
    replays(run, moved)


def test_a_cancellation_is_compared_too(start: Start) -> None:
    async def before(ctx: Context) -> Any:
        slow = asyncio.create_task(ask(ctx, "slow"))
        await ask(ctx, "quick")
        slow.cancel()
        await ask(ctx, "next")

    async def after(ctx: Context) -> Any:
        slow = asyncio.create_task(ask(ctx, "slow"))
        await ask(ctx, "quick")
        await ask(ctx, "next")
        await slow

    run = start(before)
    assert run.completed(1) == ["3 next", "cancel 2"]
    assert sides(divergence(run, after)) == ("cancel activity 2", "nothing more")


# --- how far, and what else can go wrong ------------------------------------------------------------------------


def test_only_what_was_applied_is_applied(start: Start) -> None:
    run = start(recorded_program)
    waiting = ActivityCompleted(seq=1, result="null", at_ms=run.now_ms)
    deferred = replace(run.turns[0], number=2, kind="deferred", inbound=(waiting,), outbound=(), applied_through=1)
    execution = run.fresh()
    replay(execution, [*run.turns, deferred])
    assert execution.applied == 1
    assert [line_of(command) for command in execution.apply(waiting)] == ["2 b", "3 timer 5000"]
    execution.close()


def test_a_termination_is_not_applied(start: Start) -> None:
    run = start(recorded_program)
    end = ExecutionTerminated(reason="enough", at_ms=run.now_ms)
    deferred = replace(run.turns[0], number=2, kind="deferred", inbound=(end,), outbound=(), applied_through=1)
    execution = run.fresh()
    replay(execution, [*run.turns, deferred])
    assert not execution.closed
    execution.close()


def test_an_edit_behind_the_recorded_history_is_none(start: Start) -> None:
    run = start(recorded_program)
    run.completed(1)
    replays(run, goes_on)


def test_a_recorded_result_that_no_longer_decodes_stalls_the_replay(start: Start) -> None:
    run = start(line_before)
    run.completed(1, 5)
    broken = ActivityCompleted(seq=1, result="{", at_ms=run.now_ms)
    execution = run.fresh()
    with pytest.raises(UndecodableError):
        replay(execution, [run.turns[0], replace(run.turns[1], inbound=(broken,))])
    assert not execution.replaying
    execution.close()


def test_code_is_told_that_it_is_replaying_only_while_it_is(start: Start) -> None:
    seen: list[bool] = []

    async def curious(ctx: Context) -> None:
        seen.append(ctx._execution.replaying)
        await ask(ctx, "a")
        seen.append(ctx._execution.replaying)

    run = Run(curious)
    execution = run.replayed()
    execution.apply(ActivityCompleted(seq=1, result="null", at_ms=run.now_ms))
    assert seen == [False, True, False]
    run.execution.close()
