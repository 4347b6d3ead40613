"""The runs of an execution: continue-as-new, cancellation, retry, reset and fork."""

from __future__ import annotations

import asyncio

import pytest

from durably import Context, Orchestrator, RetryPolicy, Signal, Update, activity, orchestrator
from durably.core.errors import (
    ClientError,
    ExecutionCancelledError,
    ExecutionExistsError,
    ExecutionFailedError,
)
from durably.core.events import UpdateAccepted
from durably.ports.messages import Errand, EventMessage, Outgoing
from tests.unit.runtime import programs
from tests.unit.runtime.harness import LEASE_MS, Process
from tests.unit.runtime.programs import process_of, step, steps

GO = Signal[int]("go")
ADD = Update[int, int]("add")


@orchestrator
async def countdown(ctx: Context, left: int, sum_: int = 0) -> int:
    if left == 0:
        return sum_
    sum_ += await step(left)
    return await ctx.continue_as_new(left - 1, sum_)


# --- continue-as-new ----------------------------------------------------------------------------------------------


def test_an_execution_goes_on_in_another_run_with_a_short_history() -> None:
    process = process_of(countdown)
    handle = process.client.start("e", countdown, 3)
    process.work()
    assert handle.result(0) == 6
    assert process.record().run == 4
    assert process.kinds() == ["ExecutionStarted", "ExecutionCompleted"]
    assert process.queued() == []


def test_signals_that_nobody_received_go_along() -> None:
    @orchestrator
    async def relay(ctx: Context, got: list[int]) -> list[int]:
        got = [*got, await ctx.receive(GO)]
        if len(got) == 3:
            return got
        return await ctx.continue_as_new(got)

    process = process_of(relay)
    handle = process.client.start("e", relay, [])
    for number in (1, 2, 3):
        handle.signal(GO, number, request_id=f"id-{number}")
    process.work()
    assert handle.result(0) == [1, 2, 3]


def test_a_copy_of_a_signal_of_an_earlier_run_is_known() -> None:
    @orchestrator
    async def relay(ctx: Context, got: list[int]) -> list[int]:
        got = [*got, await ctx.receive(GO)]
        if len(got) == 2:
            return got
        return await ctx.continue_as_new(got)

    process = process_of(relay)
    handle = process.client.start("e", relay, [])
    process.work()
    handle.signal(GO, 1, request_id="one")
    process.work()
    handle.signal(GO, 1, request_id="one")
    process.work()
    assert process.record().status == "running"
    handle.signal(GO, 2, request_id="two")
    process.work()
    assert handle.result(0) == [1, 2]


def test_updates_that_are_not_answered_go_along() -> None:
    @orchestrator
    async def patient(ctx: Context, run: int) -> int:
        async def add(number: int) -> int:
            await asyncio.sleep(0 if run == 2 else 1_000)
            return number + run

        ctx.on_update(ADD, add)
        got = await ctx.receive(GO)
        if run == 2:
            return got
        return await ctx.continue_as_new(2)

    process = process_of(patient)
    handle = process.client.start("e", patient, 1)
    process.work()
    run = process.record().key
    event = UpdateAccepted(name="add", payload="5", request_id="u")
    process.backend.send([Outgoing(EventMessage(run=run, event=event))])
    process.work()
    handle.signal(GO, 1)
    process.work()
    reply = process.backend.read_reply(run, "u")
    assert reply is not None
    assert reply.result == "7"


def test_nothing_of_an_ended_run_reaches_the_next() -> None:
    @orchestrator
    async def restless(ctx: Context, run: int) -> int:
        asyncio.create_task(asyncio.sleep(1))
        asyncio.create_task(step(run))
        await ctx.receive(GO)
        if run == 2:
            return run
        return await ctx.continue_as_new(run + 1)

    process = process_of(restless)
    handle = process.client.start("e", restless, 1)
    process.take_due()
    handle.signal(GO, 1)
    process.take_due()
    assert process.record().run == 2
    process.work()
    process.clock.advance(5_000)
    process.work()
    handle.signal(GO, 2)
    process.work()
    assert handle.result(0) == 2


def test_code_that_swallows_everything_still_goes_on_in_the_next_run() -> None:
    @orchestrator
    async def stubborn(ctx: Context, run: int) -> int:
        if run == 2:
            return run
        try:
            await ctx.continue_as_new(2)
        except BaseException:
            return -1
        finally:
            await step(1)

    process = process_of(stubborn)
    handle = process.client.start("e", stubborn, 1)
    process.work()
    assert handle.result(0) == 2


def test_arguments_that_do_not_fit_are_refused_where_they_are_given() -> None:
    @orchestrator
    async def wrong(ctx: Context, number: int) -> str:
        try:
            await ctx.continue_as_new("not a number")
        except Exception as error:
            return type(error).__name__

    process = process_of(wrong)
    handle = process.client.start("e", wrong, 1)
    process.work()
    assert handle.result(0) == "PayloadError"


# --- cancellation -------------------------------------------------------------------------------------------------


@orchestrator
async def cleans_up(ctx: Context) -> str:
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:
        await step(7)
        raise
    return "done"


def test_a_cancelled_execution_cleans_up_and_is_cancelled() -> None:
    process = process_of(cleans_up)
    handle = process.client.start("e", cleans_up)
    process.work()
    handle.cancel("enough")
    handle.cancel("twice is harmless")
    process.work()
    assert process.record().status == "cancelled"
    assert "ActivityCompleted" in process.kinds()
    with pytest.raises(ExecutionCancelledError, match="enough"):
        handle.result(0)


def test_cancelling_before_the_first_turn_works() -> None:
    process = process_of(cleans_up)
    handle = process.client.start("e", cleans_up)
    handle.cancel()
    process.work()
    assert process.record().status == "cancelled"


def test_cancelling_cancels_activities() -> None:
    process = process_of(steps)
    handle = process.client.start("e", steps)
    process.take_due()
    handle.cancel()
    process.take_due()
    assert process.record().status == "cancelled"
    assert "ActivityCancelRequested" in process.kinds()
    before = process.kinds()
    process.work()  # the task was on its way; its answer is nobody's
    assert process.kinds() == before
    assert process.queued() == []


def test_shield_keeps_a_cancellation_away() -> None:
    @orchestrator
    async def shielded(ctx: Context) -> int:
        inner = asyncio.ensure_future(step(3))
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            return await inner

    process = process_of(shielded)
    handle = process.client.start("e", shielded)
    process.take_due()
    handle.cancel()
    process.take_due()
    process.work()
    assert handle.result(0) == 3


# --- retry, reset, fork -------------------------------------------------------------------------------------------

LUCK: list[int] = []


@activity
def lucky(number: int) -> int:
    LUCK.append(number)
    if len([n for n in LUCK if n == number]) == 1 and number == 2:
        raise ValueError("bad luck")
    return number


def chain() -> Orchestrator[[], int]:
    once = lucky.options(retry=RetryPolicy(max_attempts=1))

    @orchestrator
    async def in_a_row(ctx: Context) -> int:
        return await once(1) + await once(2) + await once(3)

    return in_a_row


@pytest.fixture
def failed() -> Process:
    LUCK.clear()
    process = process_of(chain(), lucky)
    process.client.start_by_name("e", "in_a_row", "{}")
    process.work()
    assert process.record().status == "failed"
    return process


def test_a_retry_runs_what_failed_again_and_nothing_that_succeeded(failed: Process) -> None:
    assert failed.client.retry("e") == 2
    failed.work()
    assert failed.record().result == "6"
    assert LUCK == [1, 2, 2, 3]
    assert failed.record().closed_at_ms is not None


def test_a_retry_after_a_bug_in_the_orchestrator_keeps_every_result() -> None:
    @orchestrator(name="steps")
    async def buggy(ctx: Context) -> int:
        first = await step(1)
        await step(2)
        raise ValueError(first)

    process = process_of(buggy)
    process.client.start("e", buggy)
    process.work()
    assert process.record().status == "failed"
    programs.RAN.clear()
    mended = process.beside([steps, step])
    mended.client.retry("e")
    mended.work()
    assert mended.record().result == "3"
    assert programs.RAN == []


def test_a_terminated_execution_can_be_retried() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    process.client.terminate("e")
    process.take_due()
    assert process.record().status == "terminated"
    process.client.retry("e")
    process.work()
    assert process.record().result == "3"


def test_what_completed_or_runs_is_not_retried() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    with pytest.raises(ClientError, match="is running"):
        process.client.retry("e")
    process.work()
    with pytest.raises(ClientError, match="is completed"):
        process.client.retry("e")


def test_a_reset_goes_back_to_an_event_and_fences_the_old_run() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    old = process.tasks()
    number = process.kinds().index("ActivityScheduled") + 1
    assert process.client.reset("e", number) == 2
    for task in old:  # of the run that is no more
        process.run(task)
    process.work()
    assert process.record().result == "3"
    assert process.record().run == 2


def test_a_completed_execution_can_be_reset() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    programs.RAN.clear()
    second = [i for i, kind in enumerate(process.kinds(), start=1) if kind == "ActivityScheduled"][1]
    process.client.reset("e", second)
    process.work()
    assert process.record().result == "3"
    assert programs.RAN == [2]


def test_a_reset_to_an_event_that_is_not_there_is_refused() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    with pytest.raises(ClientError, match="no applied event 7"):
        process.client.reset("e", 7)


def test_a_fork_goes_its_own_way_from_an_event() -> None:
    process = process_of(steps, countdown)
    process.client.start("e", steps)
    process.work()
    programs.RAN.clear()
    second = [i for i, kind in enumerate(process.kinds(), start=1) if kind == "ActivityScheduled"][1]
    handle = process.client.fork("e", "f", to_event=second)
    process.work()
    assert handle.result(0) == 3
    assert programs.RAN == [2]
    with pytest.raises(ExecutionExistsError):
        process.client.fork("e", "f")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_a_reset_and_a_fork_to_any_event_of_what_completed_complete(number: int) -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    process.client.fork("e", "f", to_event=number)
    process.client.reset("e", number)
    process.work()
    assert (process.record("e").result, process.record("f").result) == ("3", "3")


def test_a_reset_by_a_clock_that_is_behind_does_not_turn_time_back() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    stamps = [event.at_ms for turn in process.stored() for event in turn.inbound]
    process.clock.advance(-5_000)
    process.client.reset("e", 1)
    process.work()
    stamps += [event.at_ms for turn in process.stored() for event in turn.inbound[1:]]
    assert stamps == sorted(stamps)


def test_a_fork_has_children_of_its_own() -> None:
    @orchestrator
    async def child(ctx: Context) -> int:
        return await ctx.receive(GO)

    @orchestrator
    async def parent(ctx: Context) -> int:
        handle = await child.start()
        await handle.signal(GO, await step(4))
        return await handle

    process = process_of(parent, child)
    process.client.start("e", parent)
    process.take_due()
    while not process.tasks():
        for delivery in process.receive():
            process.take([delivery])
            if isinstance(delivery.message, Errand):
                process.run_errand(delivery)
    process.client.fork("e", "f", to_event=len(process.kinds("e")))
    process.clock.advance(LEASE_MS)
    process.work()
    assert (process.record("e").result, process.record("f").result) == ("4", "4")
    assert {record.execution_id for record in process.client.list()} == {"e", "e/1.1", "f", "f/1.1"}


def test_a_fork_from_the_start_may_have_another_input() -> None:
    process = process_of(countdown)
    process.client.start("e", countdown, 0, 5)
    process.work()
    handle = process.client.fork("e", "f", input_='{"left":2,"sum_":0}')
    process.work()
    assert handle.result(0) == 3


def test_a_reset_whose_writer_died_halfway_is_finished_by_the_next() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    record = process.record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.backend, "_change", lambda run, change: None)
        process.client.reset("e", 1)
    assert process.record() == record
    process.client.reset("e", 1)
    process.work()
    assert (process.record().run, process.record().result) == (2, "3")


# --- patches and pins -----------------------------------------------------------------------------------------------


@orchestrator(name="evolves")
async def before_patch(ctx: Context) -> int:
    first = await step(1)
    await ctx.receive(GO)
    return first


@orchestrator(name="evolves")
async def after_patch(ctx: Context) -> int:
    first = await step(5) if ctx.patched("five") else await step(1)
    await ctx.receive(GO)
    return first


def test_a_patch_leaves_running_executions_on_the_old_side() -> None:
    process = process_of(before_patch)
    process.client.start("old", before_patch)
    process.work()
    later = process.beside([after_patch, step])
    later.client.start("new", after_patch)
    later.work()
    for id_ in ("old", "new"):
        later.client.signal(id_, GO, 1)
    later.work()
    assert (later.record("old").result, later.record("new").result) == ("1", "5")
    assert "PatchRecorded" in later.kinds("new")


def test_a_pinned_execution_waits_for_its_version() -> None:
    process = process_of(steps)
    process.client.start("e", steps.options(pinned=True))
    later = process.beside([steps, step])
    later.work()
    failure = later.record().failure
    assert failure is not None
    assert "pinned to the code version v1; this process has v2" in failure.message
    process.clock.advance(1_000)
    process.work()
    assert process.record().result == "3"


def test_history_says_how_a_long_one_should_go_on() -> None:
    @orchestrator
    async def long_one(ctx: Context) -> bool:
        return ctx.info.continue_as_new_suggested

    process = process_of(long_one)
    handle = process.client.start("e", long_one)
    process.work()
    assert handle.result(0) is False


def test_an_execution_that_failed_for_good_says_so_until_it_is_retried(failed: Process) -> None:
    with pytest.raises(ExecutionFailedError, match="bad luck"):
        failed.client.handle("e").result(0)
