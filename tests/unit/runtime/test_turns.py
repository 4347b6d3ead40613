"""Turns: each event applied once, races lost without harm, poison that hurts itself only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from durably import Context, Orchestrator, activity, orchestrator
from durably.core.events import ActivityCompleted
from durably.ports.messages import ActivityTask, Delivery, EventMessage, Wake
from durably.runtime.runtime import Budget, Limits, unlimited
from durably.runtime.turn import TurnTaker
from tests.unit.runtime.harness import LEASE_MS, CountingEntropy, Process

RAN: list[int] = []


@activity
def step(n: int) -> int:
    RAN.append(n)
    return n


@activity
def other(n: int) -> int:
    return -n


@orchestrator
async def steps(ctx: Context) -> int:
    return await step(1) + await step(2)


@orchestrator
async def fan_out(ctx: Context) -> int:
    return sum(await asyncio.gather(*(step(number) for number in range(10))))


@orchestrator
async def asleep(ctx: Context) -> str:
    await asyncio.sleep(60)
    return ctx.now().isoformat()


def edited(body: str) -> Orchestrator[..., Any]:
    """`steps`, as another version has it."""

    async def flow(ctx: Context) -> int:
        if body == "broken":
            raise AssertionError("unreachable: the first command differs")
        return await (step(1) if body == "mended" else other(1)) + await step(2)

    return orchestrator(name="steps")(flow)


def process_of(*definitions: Any, **limits: int) -> Process:
    return Process([*definitions, step, other], limits=Limits(**limits))


# --- a turn ---------------------------------------------------------------------------------------------------


def test_a_turn_stores_events_and_commands_before_anything_is_sent() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    first, second = process.stored()
    assert (first.kind, first.applied_through) == ("deferred", 0)
    assert (second.kind, second.applied_through, second.code_version) == ("applied", 1, "v1")
    assert [event.kind for event in second.outbound] == ["ActivityScheduled"]
    assert process.queued() == ["task.1.1"]


def test_an_execution_runs_to_its_end_and_leaves_no_message_behind() -> None:
    process = process_of(steps)
    assert process.client.start("e", steps).result(1) == 3
    assert process.queued() == []
    assert process.kinds() == [
        "ExecutionStarted",
        "ActivityScheduled",
        "ActivityCompleted",
        "ActivityScheduled",
        "ActivityCompleted",
        "ExecutionCompleted",
    ]
    assert process.record().closed


def test_a_timer_fires_when_it_is_due_and_never_before() -> None:
    process = process_of(asleep)
    process.client.start("e", asleep)
    process.work()
    process.clock.advance(59_999)
    process.work()
    assert not process.record().closed
    process.clock.advance(1)
    process.work()
    assert process.record().result == '"2023-11-14T22:14:20+00:00"'


def test_a_clock_that_goes_back_does_not_take_history_along() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    process.run(process.tasks()[0])
    due = process.receive()
    process.clock.advance(-3_600_000)
    process.take(due)
    started, completed = (event for turn in process.stored() for event in turn.inbound)
    assert completed.at_ms == started.at_ms


# --- duplicates -------------------------------------------------------------------------------------------------


def test_a_duplicate_changes_nothing() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    (task,) = process.tasks()
    process.run(task)
    (completion,) = process.receive()
    process.take([completion])
    before = process.stored()
    process.take([completion, completion])
    assert process.stored() == before


def test_what_arrives_twice_in_one_turn_is_applied_once() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    process.run(process.tasks()[0])
    (completion,) = process.receive()
    process.take([completion, replace(completion, receipt="another")])
    assert process.kinds().count("ActivityCompleted") == 1


def test_what_arrives_after_the_end_is_acknowledged_and_dropped() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    process.run(process.tasks()[0])
    (late,) = process.receive()
    process.take([late])
    process.work()
    before = process.stored()
    process.take([late])
    assert process.stored() == before
    assert process.queued() == []


def test_a_redelivered_event_sends_again_what_its_turn_asked_for() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    wake = process.receive()
    process.take(wake)
    (task,) = process.tasks()
    process.backend.acknowledge([task.receipt])
    assert process.queued() == []
    process.beside().take([replace(delivery, receives=2) for delivery in wake])
    (again,) = process.tasks()
    assert isinstance(again.message, ActivityTask)
    assert again.message.again is True
    assert again.message.id == task.message.id
    assert len(process.stored()) == 2
    process.work()
    assert process.record().status == "running"


# --- several processes ------------------------------------------------------------------------------------------


def test_a_warm_execution_that_another_process_moved_on_notices_it() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    process.run(process.tasks()[0])
    process.beside().take(process.receive())
    RAN.clear()
    process.work()
    assert process.record().result == "3"
    assert RAN == [2]
    assert [turn.number for turn in process.stored()] == [1, 2, 3, 4]


def test_whoever_loses_the_race_for_a_turn_plans_again() -> None:
    process = process_of(fan_out)
    process.client.start("e", fan_out)
    process.take(process.receive())
    zombie = process.beside()
    for task in process.tasks():
        process.run(task)
    half = process.receive()
    zombie.take(half[:1])
    process.take(half[1:5])
    zombie.take(half[3:8])
    process.take(half[5:])
    process.work()
    assert process.record().result == "45"
    assert process.kinds().count("ActivityCompleted") == 10
    assert process.kinds().count("ActivityScheduled") == 10


# --- slices -----------------------------------------------------------------------------------------------------


def test_more_events_than_a_turn_may_apply_wait_for_the_next() -> None:
    process = process_of(fan_out, events_per_turn=4)
    process.client.start("e", fan_out)
    process.take(process.receive())
    for task in process.tasks():
        process.run(task)
    process.take(process.receive())
    assert (process.stored()[-1].applied_through, len(process.stored()[-1].inbound)) == (5, 10)
    assert process.queued() == ["wake.3.0"]
    process.take(process.receive())
    assert process.stored()[-1].applied_through == 9
    process.take(process.receive())
    assert process.record().result == "45"


def test_a_history_that_grows_without_end_is_ended() -> None:
    @orchestrator
    async def endless(ctx: Context) -> None:
        while True:
            await step(1)

    process = process_of(endless, history_events=20)
    process.client.start("e", endless)
    process.work()
    record = process.record()
    assert record.status == "terminated"
    assert record.failure is not None
    assert "reached its limit of 20 events" in record.failure.message
    assert process.queued() == []


# --- stalls -------------------------------------------------------------------------------------------------------


def stalled_by_an_edit() -> tuple[Process, Process]:
    """An execution of `steps`, and the process whose code asks for something else."""
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    later = process.beside([edited("changed"), step, other])
    for task in process.tasks():
        process.run(task)
    later.take_due()
    return process, later


def test_code_that_asks_for_something_else_stalls_and_keeps_the_event() -> None:
    _, later = stalled_by_an_edit()
    record = later.record()
    assert record.status == "stalled"
    assert record.failure is not None
    assert record.failure.type == "durably.core.errors.NonDeterminismError"
    assert 'history recorded step({"n":1})' in record.failure.message
    assert 'the code now asks for other({"n":1})' in record.failure.message
    last = later.stored()[-1]
    assert (last.kind, last.applied_through, [event.kind for event in last.inbound]) == (
        "deferred",
        1,
        ["ActivityCompleted"],
    )


def test_a_stalled_execution_is_tried_again_ever_more_rarely_until_it_is_left_alone() -> None:
    process, later = stalled_by_an_edit()
    waits: list[int] = []
    while later.queued(Wake):
        due = later.backend.next_due_ms()
        assert due is not None
        waits.append(due - process.clock.now_ms())
        process.clock.advance(waits[-1])
        later.take_due()
    assert waits == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000]
    assert len(later.stored()) == 3
    assert later.record().status == "stalled"


def test_a_stalled_execution_resumes_once_its_code_agrees_again() -> None:
    process, later = stalled_by_an_edit()
    mended = process.beside([edited("mended"), step, other])
    process.clock.advance(1_000)
    mended.work()
    record = mended.record()
    assert (record.status, record.result, record.failure, record.code_version) == ("completed", "3", None, "v2")
    assert later.queued() == []


def test_a_missing_orchestrator_is_waited_for() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    without = process.beside([step, other])
    without.take_due()
    failure = without.record().failure
    assert failure is not None
    assert "needs the orchestrator 'steps'; this process knows only: none" in failure.message
    process.clock.advance(1_000)
    process.work()
    assert process.record().result == "3"


def test_a_renamed_orchestrator_is_found_by_its_alias() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take(process.receive())
    renamed = process.beside([orchestrator(name="new-steps", aliases=["steps"])(steps.fn), step, other])
    renamed.work()
    assert renamed.record().result == "3"


def test_an_event_that_was_delivered_too_often_is_stored_without_running_code() -> None:
    @orchestrator
    async def deadly(ctx: Context) -> None:
        raise AssertionError("its process dies here")

    process = process_of(deadly, steps)
    process.client.start("e", deadly)
    process.client.start("healthy", steps)
    for _ in range(2):
        process.receive()
        process.clock.advance(LEASE_MS)
    due = process.receive()
    assert {delivery.receives for delivery in due} == {3}
    process.take([delivery for delivery in due if delivery.message.run.execution_id == "e"])
    failure = process.record().failure
    assert failure is not None
    assert "died at each of its tries" in failure.message
    assert process.record().status == "stalled"
    assert process.record("healthy").status == "running"


def test_a_deadly_turn_costs_one_process_a_wake_and_the_pauses_grow() -> None:
    process = process_of(steps, deliveries_before_stall=1, deadly_pause_ms=60_000)
    process.client.start("e", steps)
    process.take_due()
    for least_ms, most_ms in ((30_000, 90_000), (60_000, 180_000), (120_000, 300_000), (240_000, 300_000)):
        process.clock.advance(least_ms - 1)
        assert process.receive() == []
        process.clock.advance(most_ms - least_ms + 1)
        assert len(process.receive()) == 1  # and whoever received it dies of it
        process.clock.advance(LEASE_MS)
        process.take_due()
        assert process.kinds() == ["ExecutionStarted"]
    process.clock.advance(300_000)
    process.runtime = replace(process.runtime, limits=Limits())
    process.turns = TurnTaker(process.runtime)
    process.work()
    assert process.record().status == "completed"


def test_executions_that_one_death_stalled_are_woken_apart_from_each_other() -> None:
    process = process_of(steps, deliveries_before_stall=1, deadly_pause_ms=60_000)
    process.runtime = replace(process.runtime, entropy=CountingEntropy(0.1, 0.5, 0.9))
    process.turns = TurnTaker(process.runtime)
    for execution_id in ("a", "b", "c"):
        process.client.start(execution_id, steps)
    process.take_due()

    woken: list[int] = []
    for _ in range(90):
        process.clock.advance(1_000)
        woken.append(len(process.receive()))
    assert (sum(woken), max(woken)) == (3, 1)


def test_a_stalled_execution_can_be_ended() -> None:
    process, later = stalled_by_an_edit()
    later.client.terminate("e", "hopeless")
    later.take_due()
    assert later.record().status == "terminated"
    process.clock.advance(1_000_000)
    later.work()
    assert later.queued() == []


def test_an_execution_that_cannot_be_planned_keeps_its_messages_and_hinders_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = process_of(steps)
    process.client.start("broken", steps)
    process.client.start("e", steps)
    due = process.receive()
    unreadable = process.record("broken").key
    process.backend._turns[unreadable][1] = ("nonce", b"{")
    with caplog.at_level(logging.CRITICAL, "durably.turn"):
        taken = process.take(due)
    assert taken.returned == ["broken"]
    assert len(process.stored()) == 2
    assert "wake.1.0" in process.queued()


# --- giving up ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["terminated", "evicted", "stopped"])
def test_clean_up_of_an_execution_that_is_given_up_has_the_budget_of_a_turn(how: str) -> None:
    inside: list[bool] = []
    entered = False

    @orchestrator
    async def tidy(ctx: Context) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            inside.append(entered)

    @contextmanager
    def budget() -> Iterator[Budget]:
        nonlocal entered
        entered = True
        with unlimited() as given:
            yield given
        entered = False

    process = Process([tidy], limits=Limits(warm_executions=1))
    process.turns = TurnTaker(replace(process.runtime, budget=budget))
    process.client.start("e", tidy)
    process.take_due()
    if how == "terminated":
        process.client.terminate("e")
        process.take_due()
    elif how == "evicted":
        process.client.start("another", tidy)
        process.take_due()
    else:
        process.turns.clear()
    assert inside == [True]


# --- order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_history_decides_who_was_first(order: tuple[int, ...]) -> None:
    @orchestrator
    async def race(ctx: Context) -> list[int]:
        tasks = [asyncio.create_task(step(number)) for number in range(3)]
        return [await task for task in asyncio.as_completed(tasks)]

    process = process_of(race)
    process.client.start("e", race)
    process.take(process.receive())
    tasks = process.tasks()
    for index in order:
        process.run(tasks[index])
        process.take([d for d in process.receive() if isinstance(d.message, EventMessage)])
    assert process.record().result == f"[{','.join(map(str, order))}]"


def test_the_late_answer_of_a_cancelled_activity_sends_nothing_again() -> None:
    @orchestrator
    async def gives_up(ctx: Context) -> None:
        try:
            async with asyncio.timeout(1):
                await step(1)
        except TimeoutError:
            await other(2)

    process = process_of(gives_up)
    process.client.start("e", gives_up)
    process.take_due()
    (late,) = process.tasks()
    process.clock.advance(1_000)
    process.take_due()
    (waiting,) = process.tasks()
    process.backend.acknowledge([waiting.receipt])  # `other` is running somewhere
    assert isinstance(late.message, ActivityTask)
    answer = EventMessage(run=late.message.run, event=ActivityCompleted(seq=late.message.key.seq, result="1"))
    process.take([Delivery(answer, late.receipt)])
    assert process.queued(ActivityTask) == []


def test_a_message_of_an_earlier_life_takes_no_turn_of_this_one() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    (late,) = process.receive()
    process.client.terminate("e")
    process.take_due()
    process.client.start("e", steps.options(id_reuse="allow_if_closed"))
    process.take([late])
    assert process.kinds() == ["ExecutionStarted"]
    process.work()
    assert process.record().status == "completed"
