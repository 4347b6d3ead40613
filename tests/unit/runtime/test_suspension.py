"""Suspending and resuming in every order."""

from __future__ import annotations

from typing import Any

import pytest

from durably import Context, Signal, orchestrator
from tests.unit.runtime.programs import process_of, steps

GO = Signal[int]("go")


@orchestrator
async def patient(ctx: Context) -> int:
    return await ctx.receive(GO)


def test_a_resume_that_comes_with_its_suspend_is_not_lost() -> None:
    process = process_of(patient)
    handle = process.client.start("e", patient)
    process.work()
    process.client.suspend("e")
    process.client.resume("e")
    handle.signal(GO, 1)
    process.work()
    assert handle.result(0) == 1


def test_resuming_what_is_not_suspended_changes_nothing() -> None:
    process = process_of(patient)
    handle = process.client.start("e", patient)
    process.work()
    process.client.resume("e")
    process.work()
    assert process.record().status == "running"
    handle.signal(GO, 2)
    process.work()
    assert handle.result(0) == 2


def test_suspending_twice_takes_one_resume() -> None:
    process = process_of(patient)
    handle = process.client.start("e", patient)
    process.client.suspend("e")
    process.work()
    process.client.suspend("e")
    process.work()
    handle.signal(GO, 3)
    process.client.resume("e")
    process.work()
    assert handle.result(0) == 3


def test_a_suspended_execution_keeps_its_events_and_runs_nothing() -> None:
    process = process_of(steps)
    handle = process.client.start("e", steps)
    process.take_due()
    process.client.suspend("e")
    process.work()
    assert process.record().status == "suspended"
    assert "ExecutionSuspended" in process.kinds()
    turns = len(process.stored())
    process.clock.advance(10_000)
    process.work()
    assert len(process.stored()) == turns
    process.client.resume("e")
    process.work()
    assert handle.result(0) == 3


def test_a_suspended_execution_can_be_terminated() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.client.suspend("e")
    process.work()
    assert process.record().status == "suspended"
    process.client.terminate("e")
    process.work()
    assert process.record().status == "terminated"


@pytest.mark.parametrize("wrong", [5, None, b"x"])
@pytest.mark.parametrize("what", ["cancel", "suspend", "resume", "terminate", "retry", "reset"])
def test_a_reason_that_is_no_text_is_refused_before_it_is_stored(what: str, wrong: Any) -> None:
    process = process_of(patient)
    process.client.start("e", patient)
    process.work()
    if what == "retry":
        process.client.terminate("e")
        process.work()
    before = process.kinds()
    arguments = (1, wrong) if what == "reset" else (wrong,)
    with pytest.raises(TypeError, match="A reason is text"):
        getattr(process.client, what)("e", *arguments)
    process.work()
    assert process.kinds() == before
