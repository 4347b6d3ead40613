"""Starting, finding, describing and ending executions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    Context,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    ResultTimeoutError,
    RetryPolicy,
    activity,
    orchestrator,
)
from durably.core.errors import InvalidIdError
from tests.unit.runtime.harness import Process

RAN: list[str] = []


@activity
def step(name: str) -> str:
    RAN.append(name)
    return name.upper()


@activity(retry=RetryPolicy(max_attempts=3))
def failing(name: str) -> str:
    RAN.append(name)
    raise OSError(name)


@orchestrator
async def flow(ctx: Context, name: str = "a") -> str:
    return await step(name)


@orchestrator
async def waiting(ctx: Context) -> None:
    async with asyncio.timeout(3600):
        await asyncio.gather(failing("x"), step("y"))


@pytest.fixture
def process() -> Process:
    RAN.clear()
    return Process([flow, waiting, step, failing])


# --- ids ------------------------------------------------------------------------------------------------------


def test_an_accepted_start_is_stored_before_it_returns(process: Process) -> None:
    handle = process.client.start("e", flow, "b")
    assert process.record().status == "running"
    assert process.record().gen == handle.gen
    assert process.kinds() == ["ExecutionStarted"]
    assert process.queued() == ["wake.1.0"]
    assert handle.result(1) == "B"


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_a_taken_id_is_refused_by_default(process: Process, ended: bool) -> None:
    first = process.client.start("e", flow)
    if ended:
        first.result(1)
    before = process.record()
    with pytest.raises(ExecutionExistsError, match="id_reuse"):
        process.client.start("e", flow, "b")
    assert process.record() == before


def test_another_life_begins_only_once_the_last_one_has_ended(process: Process) -> None:
    again = flow.options(id_reuse="allow_if_closed")
    first = process.client.start("e", again)
    with pytest.raises(ExecutionExistsError, match="open execution of flow"):
        process.client.start("e", again, "b")
    assert first.result(1) == "A"
    second = process.client.start("e", again, "b")
    assert second.gen != first.gen
    assert second.result(1) == "B"
    assert process.kinds()[0] == "ExecutionStarted"


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_an_existing_execution_may_be_used_open_or_ended(process: Process, ended: bool) -> None:
    first = process.client.start("e", flow)
    if ended:
        first.result(1)
    second = process.client.start("e", flow.options(id_reuse="use_existing"), "b")
    assert second.gen == first.gen
    assert second.result(1) == "A"


@pytest.mark.parametrize("reuse", ["reject", "allow_if_closed", "use_existing"])
@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_a_start_repeated_under_its_request_id_finds_its_own_execution(
    process: Process, reuse: Any, ended: bool
) -> None:
    start = flow.options(request_id="request-1", id_reuse=reuse)
    first = process.client.start("e", start)
    if ended:
        first.result(1)
    again = process.client.start("e", start)
    assert again.gen == first.gen
    assert again.result(1) == "A"
    assert RAN == ["a"]


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_a_start_repeated_after_another_took_its_id_over_begins_no_second_life_unless_ids_are_reused(
    process: Process, ended: bool
) -> None:
    process.client.start("e", flow.options(request_id="request-1")).result(1)
    taken = flow.options(request_id="request-2", id_reuse="allow_if_closed")
    other = process.client.start("e", taken)
    if ended:
        other.result(1)
    with pytest.raises(ExecutionExistsError):
        process.client.start("e", flow.options(request_id="request-1"))
    again = flow.options(request_id="request-1", id_reuse="allow_if_closed")
    if not ended:
        with pytest.raises(ExecutionExistsError):
            process.client.start("e", again)
    assert process.record().gen == other.gen
    assert process.client.start("e", taken).gen == other.gen


def test_another_request_id_is_another_start(process: Process) -> None:
    process.client.start("e", flow.options(request_id="request-1"))
    with pytest.raises(ExecutionExistsError):
        process.client.start("e", flow.options(request_id="request-2"))


def test_a_refused_start_stores_nothing(process: Process) -> None:
    with pytest.raises(InvalidIdError):
        process.client.start("no spaces", flow)
    with pytest.raises(TypeError):
        process.client.start("e", flow, "b", "c")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert process.queued() == []
    assert list(process.client.list()) == []


# --- looking ----------------------------------------------------------------------------------------------------


def test_a_description_tells_what_is_waited_for_and_what_failed(process: Process) -> None:
    process.client.start("e", waiting)
    process.work()
    described = process.client.describe("e")
    assert (described.status, described.orchestrator, described.turns, described.history_length) == (
        "running",
        "waiting",
        3,
        2,
    )
    (pending,) = described.activities
    assert (pending.name, pending.seq, pending.attempt, pending.state) == ("failing", 2, 2, "retrying")
    assert pending.last_failure is not None
    assert pending.last_failure.matches(OSError)
    assert pending.call_site.startswith("runtime/test_start.py:")
    (timer,) = described.timers
    assert timer.due_at - described.started_at == timedelta(hours=1)


def test_a_closed_execution_waits_for_nothing(process: Process) -> None:
    process.client.start("e", waiting)
    process.work()
    process.client.terminate("e", "enough")
    process.work()
    described = process.client.describe("e")
    assert (described.status, described.activities, described.timers) == ("terminated", (), ())
    assert described.closed_at is not None


def test_executions_are_listed_newest_first_and_filtered(process: Process) -> None:
    for number in range(250):
        process.client.start_by_name(f"e{number}", "waiting" if number % 2 else "flow", "{}")
        process.clock.advance(1)
    process.work()
    every = [record.execution_id for record in process.client.list()]
    assert every == [f"e{number}" for number in reversed(range(250))]
    assert len(list(process.client.list(status="completed"))) == 125
    assert next(process.client.list(orchestrator="waiting")).execution_id == "e249"
    assert not list(process.client.list(status="running", orchestrator="flow"))


def test_what_does_not_exist_is_said_not_to(process: Process) -> None:
    client = process.client
    calls: list[Callable[[], object]] = [
        lambda: client.describe("nobody"),
        lambda: client.history("nobody"),
        lambda: client.terminate("nobody"),
        lambda: client.wait("nobody", 1),
        lambda: client.handle("nobody").result(1),
        lambda: client.handle("nobody").describe(),
    ]
    for call in calls:
        with pytest.raises(ExecutionNotFoundError, match="'nobody'"):
            call()


# --- ends -------------------------------------------------------------------------------------------------------


def test_waiting_ends_in_time(process: Process) -> None:
    process.client.start("e", waiting)
    with pytest.raises(ResultTimeoutError, match=r"did not close within 0\.01 s"):
        process.client.wait("e", 0.01)


def test_termination_ends_an_execution_and_what_it_asked_for_is_not_run(process: Process) -> None:
    handle = process.client.start("e", waiting)
    process.take_due()
    assert len(process.tasks()) == 2
    handle.terminate("not wanted any more")
    process.take_due()
    process.clock.advance(2 * 3_600_000)
    process.work()
    assert RAN == []
    assert process.queued() == []
    with pytest.raises(ExecutionFailedError, match="not wanted any more") as caught:
        handle.result(1)
    assert caught.value.failure.type == "durably.Terminated"
    assert process.kinds()[-1] == "ExecutionTerminated"


def test_what_has_ended_cannot_be_ended(process: Process) -> None:
    process.client.start("e", flow).result(1)
    with pytest.raises(ExecutionClosedError, match="completed"):
        process.client.terminate("e")


def test_a_failure_reaches_whoever_asks_for_the_result(process: Process) -> None:
    handle = process.client.start("e", waiting)
    for _ in range(3):
        process.work()
        process.clock.advance(10_000)
    with pytest.raises(ExecutionFailedError) as caught:
        handle.result(1)
    failure = caught.value.failure
    assert failure.type == "durably.core.errors.ActivityError"
    assert failure.cause is not None
    assert failure.cause.matches(OSError)
    assert RAN == ["x", "y", "x", "x"]


@pytest.mark.parametrize(
    ("too_long", "reason"),
    [
        ("r" * 257, "at most 256 bytes, got 257"),
        ("\U0001f4e6" * 65, "at most 256 bytes, got 260"),
        ("\ud800", "text that UTF-8 can hold"),
    ],
)
def test_a_request_id_is_no_place_for_a_document(process: Process, too_long: str, reason: str) -> None:
    with pytest.raises(InvalidIdError, match=reason):
        process.client.start("e", flow.options(request_id=too_long))
    assert process.backend.read_record("e") is None
