"""Stalls: code that cannot take its turn hurts only its own execution, and the execution resumes by itself."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from durably import Context, orchestrator
from durably.ports.messages import Wake
from durably.runtime.runtime import Limits
from durably.runtime.turn import TurnTaker
from tests.unit.runtime.harness import LEASE_MS, CountingEntropy, Process
from tests.unit.runtime.programs import edited, other, process_of, step, steps


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


def test_a_process_of_older_code_that_is_left_over_costs_an_execution_a_moment() -> None:
    new = Process([steps, step, other], code_version="new")
    old = new.beside([edited("changed"), step, other])
    new.client.start("e", steps)
    new.take_due()
    new.run(new.tasks()[0])
    old.take_due()
    assert new.record().status == "stalled"

    new.clock.advance(1_000)
    new.work()  # warm, and one turn behind
    record = new.record()
    assert (record.status, record.result, record.code_version) == ("completed", "3", "new")
    assert new.kinds().count("ActivityCompleted") == 2


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


class Drawn(CountingEntropy):
    def __init__(self, *draws: float) -> None:
        super().__init__()
        self.draws = iter(draws)

    def draw(self) -> float:
        return next(self.draws)


def test_executions_that_one_death_stalled_are_woken_apart_from_each_other() -> None:
    process = process_of(steps, deliveries_before_stall=1, deadly_pause_ms=60_000)
    process.runtime = replace(process.runtime, entropy=Drawn(0.1, 0.5, 0.9))
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
