"""The runs of an execution: continue-as-new, cancellation, patches and pins."""

from __future__ import annotations

import asyncio

import pytest

from durably import Context, Signal, Update, orchestrator
from durably.client import Client
from durably.core.errors import (
    ExecutionCancelledError,
    UpdateFailedError,
)
from durably.core.events import SignalReceived, UpdateAccepted
from durably.core.inbox import KEPT_IDS
from durably.core.keys import RunKey
from durably.ports.messages import EventMessage, Outgoing
from tests.unit.runtime.harness import Process
from tests.unit.runtime.programs import process_of, step, steps

GO = Signal[int]("go")
ADD = Update[int, int]("add")


def send_update(process: Process, *request_ids: str) -> RunKey:
    """Send updates that nobody waits for; the run that they went to."""
    run = process.record().key
    events = (UpdateAccepted(name="add", payload="5", request_id=id_) for id_ in request_ids)
    process.backend.send([Outgoing(EventMessage(run=run, event=event)) for event in events])
    process.work()
    return run


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


def test_beyond_the_ids_that_are_remembered_a_signal_may_come_twice_and_none_is_lost() -> None:
    @orchestrator
    async def relay(ctx: Context, got: list[int], many: int) -> list[int]:
        got = [*got, *[await ctx.receive(GO) for _ in range(many)]]
        if len(got) == 2 * many:
            return got
        return await ctx.continue_as_new(got, many)

    many = KEPT_IDS + 1
    process = process_of(relay)
    handle = process.client.start("e", relay, [], many)
    for number in range(many + 3):
        handle.signal(GO, number, request_id=f"r{number}")
    process.work()
    assert process.record().run == 2
    handle.signal(GO, many - 1, request_id=f"r{many - 1}")  # remembered: a copy
    handle.signal(GO, 0, request_id="r0")  # forgotten: the 1,001st before the last one
    for number in range(many + 3, 2 * many - 1):
        handle.signal(GO, number, request_id=f"r{number}")
    process.work()
    assert handle.result(0) == [*range(many + 3), 0, *range(many + 3, 2 * many - 1)]


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
    run = send_update(process, "u")
    handle.signal(GO, 1)
    process.work()
    reply = process.backend.read_reply(run, "u")
    assert reply is not None
    assert reply.result == "7"


def test_an_update_that_goes_along_waits_for_its_handler() -> None:
    @orchestrator
    async def late(ctx: Context, run: int) -> int:
        async def add(number: int) -> int:
            await asyncio.sleep(0 if run == 3 else 1_000)
            return number + run

        if run == 1:
            ctx.on_update(ADD, add)
        await ctx.receive(GO)
        if run == 3:
            await step(1)
            ctx.on_update(ADD, add)
            return await ctx.receive(GO)
        return await ctx.continue_as_new(run + 1)

    process = process_of(late)
    handle = process.client.start("e", late, 1)
    process.work()
    run = send_update(process, "u", "w")
    for go in range(3):
        handle.signal(GO, go)
        process.work()
    assert [(reply.result if reply else None) for reply in (process.backend.read_reply(run, id_) for id_ in "uw")] == [
        "8",
        "8",
    ]
    assert process.record().status == "running"


def test_an_update_that_finds_no_handler_until_the_execution_ends_fails_and_says_so() -> None:
    @orchestrator
    async def forgetful(ctx: Context, run: int) -> int:
        if run == 1:
            ctx.on_update(ADD, lambda number: asyncio.sleep(1_000, number))
            await ctx.receive(GO)
            return await ctx.continue_as_new(2)
        return await ctx.receive(GO)

    process = process_of(forgetful)
    handle = process.client.start("e", forgetful, 1)
    process.work()
    send_update(process, "u")
    for go in range(2):
        handle.signal(GO, go)
        process.work()
    assert process.record().status == "completed"
    assert "UpdateFailed" in process.kinds()
    with pytest.raises(UpdateFailedError, match=r"registered none \('add'\)"):
        handle.update(ADD, 5, request_id="u")


def test_who_waits_for_an_update_hears_that_the_next_run_ended_before_it_was_shown_it() -> None:
    @orchestrator
    async def brief(ctx: Context, run: int) -> int:
        if run == 2:
            return run
        ctx.on_update(ADD, lambda number: asyncio.sleep(1_000, number))
        await ctx.receive(GO)
        return await ctx.continue_as_new(2)

    process = process_of(brief)
    handle = process.client.start("e", brief, 1)
    process.work()
    process.client = Client(
        process.backend, process.runtime.registry, process.clock, process.entropy, pause=lambda _: end()
    )

    def end() -> None:
        process.work()
        if process.record().run == 1:
            handle.signal(GO, 1)

    with pytest.raises(UpdateFailedError, match="the execution ended before it handled the update"):
        process.client.update("e", ADD, 5)
    assert process.record().result == "2"


def test_an_update_that_comes_after_what_ended_the_run_is_for_the_next_run() -> None:
    @orchestrator
    async def hasty(ctx: Context, run: int) -> int:
        ctx.on_update(ADD, lambda number: number + run)
        got = await ctx.receive(GO)
        return got if run == 3 else await ctx.continue_as_new(run + 1)

    process = process_of(hasty)
    handle = process.client.start("e", hasty, 1)
    process.work()
    run = process.record().key
    update = UpdateAccepted(name="add", payload="5", request_id="u")
    signals = [SignalReceived(name="go", payload="1", request_id=id_) for id_ in "st"]
    process.backend.send([Outgoing(EventMessage(run=run, event=event)) for event in (signals[0], update, signals[1])])
    taken = process.take(process.receive())
    assert taken.returned == []
    reply = process.backend.read_reply(run, "u")
    assert reply is not None
    assert (reply.accepted, reply.result) == (True, "8")  # the second signal goes along, and ends the second run
    process.work()
    assert process.record().run == 3
    assert process.queued() == []
    handle.signal(GO, 9)
    process.work()
    assert handle.result(0) == 9


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
    process.beside([steps, step]).client.start("e", steps.options(pinned=True))  # whoever starts it has any version
    process.take_due()
    later = process.beside([steps, step])
    later.work()
    failure = later.record().failure
    assert failure is not None
    assert "pinned to the code version v1; this process has v2" in failure.message
    process.clock.advance(1_000)
    process.work()
    assert process.record().result == "3"


@pytest.mark.parametrize("ends", ["continues", "is reset"])
def test_a_pin_outlives_its_run(ends: str) -> None:
    @orchestrator
    async def again(ctx: Context, left: int) -> int:
        await ctx.receive(GO)
        return await ctx.continue_as_new(left - 1) if left else 0

    process = process_of(again)
    process.client.start("e", again.options(pinned=True), 1)
    process.work()
    if ends == "continues":
        process.client.signal("e", GO, 1)
        process.take_due()
    else:
        process.beside([again]).client.reset("e", 1, "from the start")
        process.client.signal("e", GO, 1)
    later = process.beside([again])
    later.work()
    assert later.record().run == 2
    failure = later.record().failure
    assert failure is not None
    assert "pinned to the code version v1; this process has v2" in failure.message


def test_history_says_how_a_long_one_should_go_on() -> None:
    @orchestrator
    async def long_one(ctx: Context) -> bool:
        return ctx.info.continue_as_new_suggested

    process = process_of(long_one)
    handle = process.client.start("e", long_one)
    process.work()
    assert handle.result(0) is False
