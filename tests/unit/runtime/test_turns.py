"""Turns: each event applied once, races lost without harm, poison that hurts itself only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from durably import Context, orchestrator
from durably.core.events import ActivityCompleted
from durably.ports.messages import ActivityTask, Delivery, EventMessage
from durably.runtime.runtime import Budget, Limits, unlimited
from durably.runtime.turn import TurnTaker
from tests.unit.runtime.harness import Process
from tests.unit.runtime.programs import RAN, asleep, fan_out, other, process_of, step, steps

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
