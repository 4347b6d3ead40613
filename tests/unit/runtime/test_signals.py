"""Signals, updates and queries: what others send to an execution, and what they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from durably import Context, Query, Signal, Update, activity, orchestrator
from durably.core.errors import (
    ExecutionClosedError,
    ExecutionNotFoundError,
    QueryError,
    ReadOnlyError,
    UpdateFailedError,
    UpdateRejectedError,
)
from durably.core.events import SignalReceived, UpdateAccepted
from durably.ports.messages import EventMessage, Outgoing
from tests.unit.runtime.harness import Process
from tests.unit.runtime.programs import process_of, step


@dataclass
class Approval:
    by: str
    amount: int = 0


APPROVED = Signal[Approval]("approved")
GO = Signal[int]("go")
SEEN = Query[list[int]]("seen")
ADD = Update[int, int]("add")


@orchestrator
async def approval(ctx: Context) -> str:
    approved = await ctx.receive(APPROVED)
    return f"{approved.by}: {approved.amount}"


@orchestrator
async def collect(ctx: Context, wanted: int) -> list[int]:
    seen: list[int] = []
    ctx.on_query(SEEN, lambda: list(seen))
    async for number in ctx.signals(GO):
        seen.append(number)
        ctx.set_status({"seen": len(seen)})
        if len(seen) == wanted:
            break
    return seen


@orchestrator
async def counter(ctx: Context) -> int:
    total = 0
    done = asyncio.Event()

    async def add(number: int) -> int:
        nonlocal total
        total += await step(number)
        if total >= 10:
            done.set()
        return total

    def check(number: int) -> None:
        if number < 0:
            raise ValueError("a number to add is positive")

    ctx.on_update(ADD, add, validate=check)
    await done.wait()
    return total


def test_a_signal_wakes_who_waits_for_it() -> None:
    process = process_of(approval)
    handle = process.client.start("e", approval)
    process.work()
    assert process.record().status == "running"
    handle.signal(APPROVED, Approval("ann", 7))
    process.work()
    assert handle.result(0) == "ann: 7"
    assert process.kinds() == ["ExecutionStarted", "SignalReceived", "ExecutionCompleted"]


def test_signals_are_kept_until_they_are_asked_for_in_the_order_of_their_arrival() -> None:
    process = process_of(collect)
    handle = process.client.start("e", collect, 3)
    for number in (3, 1, 2):
        handle.signal(GO, number)
    process.work()
    assert handle.result(0) == [3, 1, 2]


def test_a_signal_sent_again_under_its_id_arrives_once() -> None:
    process = process_of(collect)
    handle = process.client.start("e", collect, 2)
    handle.signal(GO, 1, request_id="one")
    process.work()
    handle.signal(GO, 1, request_id="one")
    process.work()
    assert handle.query(SEEN) == [1]
    handle.signal(GO, 2, request_id="two")
    process.work()
    assert handle.result(0) == [1, 2]


def test_a_sender_that_repeats_itself_does_not_make_activities_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @orchestrator
    async def busy(ctx: Context) -> int:
        return await step(8)

    process = process_of(busy)
    handle = process.client.start("e", busy)
    process.take_due()
    [task] = process.tasks()
    handle.signal(GO, 1, request_id="one")
    process.take_due()
    handle.signal(GO, 1, request_id="one")
    [copy] = process.receive()
    monkeypatch.setattr(process.backend, "send", None)  # nothing is sent
    process.take([copy])
    monkeypatch.undo()
    process.run(task)
    process.work()
    assert handle.result(0) == 8


def test_several_wait_for_the_same_signal_and_get_one_each() -> None:
    @orchestrator
    async def three(ctx: Context) -> list[int]:
        return await asyncio.gather(*(ctx.receive(GO) for _ in range(3)))

    process = process_of(three)
    handle = process.client.start("e", three)
    for number in (1, 2, 3):
        process.work()
        handle.signal(GO, number)
    process.work()
    assert handle.result(0) == [1, 2, 3]


def test_a_receiver_that_was_cancelled_leaves_its_signal_to_the_next() -> None:
    @orchestrator
    async def impatient(ctx: Context) -> int:
        try:
            async with asyncio.timeout(5):
                return await ctx.receive(GO)
        except TimeoutError:
            return -await ctx.receive(GO)

    process = process_of(impatient)
    handle = process.client.start("e", impatient)
    process.work()
    process.clock.advance(5_000)
    process.work()
    handle.signal(GO, 4)
    process.work()
    assert handle.result(0) == -4


def test_a_signal_that_cannot_be_read_is_rejected_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    process = process_of(approval, collect)
    process.client.start("e", approval)
    process.work()
    bad = SignalReceived(name="approved", payload='{"amount":1}', request_id="bad")
    process.backend.send([Outgoing(EventMessage(run=process.record().key, event=bad))])
    process.work()
    assert process.record().status == "running"
    assert process.kinds()[-1] == "SignalRejected"
    assert caplog.messages == ["a signal to e does not fit its type: nobody gets it, its history says why"]
    later = process.beside()
    later.client.signal("e", APPROVED, Approval("bob"))
    later.work()
    assert later.record().result == '"bob: 0"'


def test_a_signal_that_comes_with_the_end_is_shown_to_the_orchestrator_first() -> None:
    @orchestrator
    async def last_call(ctx: Context) -> list[int]:
        late: list[int] = []

        async def listen() -> None:
            while True:
                late.append(await ctx.receive(GO))

        listening = asyncio.create_task(listen())
        await step(1)
        listening.cancel()
        return late

    process = process_of(last_call)
    handle = process.client.start("e", last_call)
    process.take_due()
    for task in process.tasks():
        process.run(task)
    handle.signal(GO, 5)
    process.work()
    assert handle.result(0) == [5]


def test_signals_to_nobody_are_refused() -> None:
    process = process_of(approval)
    with pytest.raises(ExecutionNotFoundError):
        process.client.signal("e", APPROVED, Approval("ann"))
    handle = process.client.start("e", approval)
    handle.signal(APPROVED, Approval("ann"))
    process.work()
    with pytest.raises(ExecutionClosedError):
        handle.signal(APPROVED, Approval("ann"))


def test_signal_with_start_starts_once_and_signals_always() -> None:
    process = process_of(collect)
    process.client.signal_with_start("e", GO, 1, collect, 2)
    assert process.kinds() == ["ExecutionStarted", "SignalReceived"]
    handle = process.client.signal_with_start("e", GO, 2, collect, 2)
    process.work()
    assert handle.result(0) == [1, 2]
    again = collect.options(id_reuse="allow_if_closed")
    process.client.signal_with_start("e", GO, 3, again, 1)
    process.work()
    assert process.record().result == "[3]"


def test_an_execution_signals_another_and_learns_whether_it_is_there() -> None:
    @orchestrator
    async def sender(ctx: Context, to: str) -> str:
        try:
            await ctx.signal(to, GO, 9)
        except Exception as error:
            return str(error)
        return "sent"

    process = process_of(sender, collect)
    process.client.start("there", collect, 1)
    process.client.start("one", sender, "there")
    process.client.start("two", sender, "nowhere")
    process.work()
    assert process.record("one").result == '"sent"'
    assert process.record("there").result == "[9]"
    assert "No execution has the id 'nowhere'" in str(process.record("two").result)


# --- queries ------------------------------------------------------------------------------------------------------


def test_a_query_is_answered_from_what_is_stored_also_afterwards() -> None:
    process = process_of(collect)
    handle = process.client.start("e", collect, 2)
    handle.signal(GO, 1)
    process.work()
    assert handle.query(SEEN) == [1]
    assert handle.describe().custom_status == '{"seen":1}'
    handle.signal(GO, 2)
    process.work()
    assert handle.query(SEEN) == [1, 2]
    assert process.queued() == []


def test_a_query_without_a_handler_names_those_there_are() -> None:
    process = process_of(collect)
    handle = process.client.start("e", collect, 2)
    process.work()
    with pytest.raises(QueryError, match="answers no query 'unknown'; it answers: seen"):
        handle.query(Query[int]("unknown"))


def test_a_query_cannot_change_anything() -> None:
    @orchestrator
    async def curious(ctx: Context) -> None:
        def change() -> list[int]:
            ctx.set_status("changed")
            return []

        ctx.on_query(SEEN, change)
        await ctx.receive(GO)

    process = process_of(curious)
    handle = process.client.start("e", curious)
    process.work()
    with pytest.raises(QueryError, match="cannot change the execution") as caught:
        handle.query(SEEN)
    assert isinstance(caught.value.__cause__, ReadOnlyError)


# --- updates ------------------------------------------------------------------------------------------------------


def test_an_update_is_answered_with_what_its_handler_returns() -> None:
    process = process_of(counter)
    handle = process.client.start("e", counter)
    process.work()
    assert handle.update(ADD, 3) == 3
    assert handle.update(ADD, 4) == 7
    assert handle.update(ADD, 3) == 10
    assert handle.result(0) == 10


def test_a_rejected_update_leaves_nothing_in_history() -> None:
    process = process_of(counter)
    handle = process.client.start("e", counter)
    process.work()
    before = process.kinds()
    with pytest.raises(UpdateRejectedError, match="a number to add is positive"):
        handle.update(ADD, -1)
    assert process.kinds() == before
    assert len(process.stored()) == 2
    with pytest.raises(UpdateRejectedError, match="no handler of the update 'unknown'"):
        handle.update(Update[int, int]("unknown"), 1)
    assert process.kinds() == before


def test_an_update_that_no_code_can_validate_now_is_rejected() -> None:
    process = process_of(counter)
    handle = process.client.start("e", counter)
    process.work()
    process.client.suspend("e")
    process.work()
    before = process.kinds()
    with pytest.raises(UpdateRejectedError, match="is suspended, stalled"):
        handle.update(ADD, 3, timeout=5)
    assert process.kinds() == before


def test_an_update_that_came_too_often_stalls_nobody_for_nothing() -> None:
    process = process_of(counter)
    process.client.start("e", counter)
    process.work()
    event = UpdateAccepted(name="add", payload="3", request_id="deadly")
    process.backend.send([Outgoing(EventMessage(run=process.record().key, event=event))])
    [delivery] = process.receive()
    process.take([replace(delivery, receives=9)])
    assert process.record().status == "running"
    reply = process.backend.read_reply(process.record().key, "deadly")
    assert reply is not None
    assert not reply.accepted


def test_an_update_sent_again_under_its_id_is_handled_once() -> None:
    process = process_of(counter)
    handle = process.client.start("e", counter)
    process.work()
    assert handle.update(ADD, 3, request_id="one") == 3
    assert handle.update(ADD, 3, request_id="one") == 3
    process.backend.send(
        [
            Outgoing(
                EventMessage(run=process.record().key, event=UpdateAccepted(name="add", payload="3", request_id="one"))
            )
        ]
    )
    process.work()
    assert process.kinds().count("UpdateAccepted") == 1


def test_an_update_whose_handler_raises_fails_and_hurts_nobody() -> None:
    @activity
    def broken(number: int) -> int:
        raise RuntimeError("no")

    @orchestrator
    async def fragile(ctx: Context) -> str:
        async def handle(number: int) -> int:
            raise ValueError(f"{number} is too much")

        ctx.on_update(ADD, handle)
        await ctx.receive(GO)
        return "fine"

    process = process_of(fragile, broken)
    handle = process.client.start("e", fragile)
    process.work()
    with pytest.raises(UpdateFailedError, match="5 is too much"):
        handle.update(ADD, 5)
    handle.signal(GO, 1)
    process.work()
    assert handle.result(0) == "fine"


def test_an_update_whose_handler_waits_for_what_is_cancelled_fails() -> None:
    @orchestrator
    async def fickle(ctx: Context) -> str:
        work = asyncio.create_task(asyncio.sleep(1_000, 7))

        async def handle(number: int) -> int:
            return number + await work

        ctx.on_update(ADD, handle)
        await ctx.receive(GO)
        work.cancel()
        await ctx.receive(GO)
        return "fine"

    process = process_of(fickle)
    handle = process.client.start("e", fickle)
    process.work()
    run = process.record().key
    update = UpdateAccepted(name="add", payload="1", request_id="u")
    process.backend.send([Outgoing(EventMessage(run=run, event=update))])
    process.work()
    handle.signal(GO, 1)
    process.work()
    reply = process.backend.read_reply(run, "u")
    assert reply is not None
    assert reply.failure is not None
    assert reply.failure.type == "asyncio.exceptions.CancelledError"
    assert process.record().status == "running"


def test_an_update_that_is_not_answered_survives_a_reset() -> None:
    @orchestrator
    async def slow(ctx: Context) -> None:
        async def handle(number: int) -> int:
            await asyncio.sleep(number)
            return number

        ctx.on_update(ADD, handle)
        await ctx.receive(GO)

    process = process_of(slow)
    process.client.start("e", slow)
    process.work()
    run = process.record().key
    for number, id_ in ((0, "answered"), (5, "asked")):
        update = UpdateAccepted(name="add", payload=str(number), request_id=id_)
        process.backend.send([Outgoing(EventMessage(run=run, event=update))])
        process.work()
    process.client.reset("e", 1)
    process.work()
    process.clock.advance(5_000)
    process.work()
    reply = process.backend.read_reply(run, "asked")
    assert reply is not None
    assert reply.result == "5"
    assert process.record().run == 2
    assert process.kinds().count("UpdateAccepted") == 1


def test_an_update_that_the_end_overtakes_fails() -> None:
    @orchestrator
    async def short(ctx: Context) -> None:
        async def handle(number: int) -> int:
            await asyncio.sleep(1_000)
            return number

        ctx.on_update(ADD, handle)
        await ctx.receive(GO)

    process = Process([short])
    handle = process.client.start("e", short)
    process.work()
    run = process.record().key
    process.backend.send(
        [Outgoing(EventMessage(run=run, event=UpdateAccepted(name="add", payload="1", request_id="u")))]
    )
    process.work()
    handle.signal(GO, 1)
    process.work()
    reply = process.backend.read_reply(run, "u")
    assert reply is not None
    assert reply.failure is not None
    assert "ended before the handler" in reply.failure.message


def test_a_bare_name_is_refused_where_its_constant_is_meant() -> None:
    process = process_of(counter)
    handle = process.client.start("e", counter)
    bare: Any = "add"
    with pytest.raises(TypeError, match=r'expected a signal, got \'add\'. Declare it, Signal\[Type\]\("add"\)'):
        handle.signal(bare, 1)
    with pytest.raises(TypeError, match="expected a query, got"):
        handle.query(bare)
    with pytest.raises(TypeError, match=r'Update\[Argument, Result\]\("add"\)'):
        handle.update(bare, 1)
