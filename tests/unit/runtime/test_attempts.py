"""Attempts of activities: which one runs is said by the item and the message, never by how often a queue delivered."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from durably import ActivityError, Context, RetryAfterError, RetryPolicy, activity, orchestrator
from durably.api.attempt import AttemptInfo
from durably.core.context import instant
from durably.core.errors import ContendedError
from durably.ports.messages import ActivityTask, Delivery
from durably.runtime.attempt import (
    Answer,
    Attempt,
    attempt_lost,
    attempt_returned,
    attempt_timed_out,
    open_attempt,
    settle_answer,
)
from tests.unit.runtime.harness import LEASE_MS, Process

RAN: list[str] = []
STEADY = RetryPolicy(max_attempts=3, jitter=False)


@activity(retry=STEADY)
def failing() -> None:
    RAN.append("failing")
    raise OSError("disk")


@activity(retry=STEADY)
def busy() -> None:
    RAN.append("busy")
    raise RetryAfterError("come back", seconds=7.5)


@activity(retry=STEADY)
def busy_for_ever() -> None:
    raise RetryAfterError("come back", seconds=1e18)


@activity(retry=STEADY)
def quiet() -> str:
    RAN.append("quiet")
    return "done"


@activity(retry=STEADY, at_most_once=True)
def once() -> str:
    RAN.append("once")
    return "done"


@activity(retry=STEADY, schedule_to_start=timedelta(seconds=5))
def impatient() -> None:
    RAN.append("impatient")


@activity(retry=RetryPolicy(max_attempts=0, jitter=False), schedule_to_close=timedelta(seconds=4))
def bounded() -> None:
    RAN.append("bounded")
    raise OSError("disk")


@activity(retry=STEADY, timeout=timedelta(seconds=3), schedule_to_close=timedelta(seconds=60))
def timed() -> None:
    RAN.append("timed")


@activity
def contract() -> int:
    raise NotImplementedError


@activity
def unserialisable() -> int:
    return "not a number"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


ACTIVITIES: list[Any] = [failing, busy, busy_for_ever, quiet, once, impatient, bounded, timed, contract, unserialisable]


@orchestrator
async def calls(ctx: Context, name: str) -> Any:
    try:
        return await ctx.call(name, returns=object)
    except ActivityError as error:
        return [error.type.rpartition(".")[2], error.attempt]


@orchestrator
async def declared(ctx: Context, name: str) -> Any:
    try:
        return await next(each for each in ACTIVITIES if each.name == name)()
    except ActivityError as error:
        return [error.type.rpartition(".")[2], error.attempt, error.failure.message]


@pytest.fixture
def process() -> Process:
    RAN.clear()
    return Process([calls, declared, *ACTIVITIES])


def task_of(process: Process, name: str) -> Delivery:
    """Start an execution that calls the activity; its first task."""
    process.client.start("e", declared, name)
    process.take_due()
    (task,) = process.tasks()
    return task


def message_of(delivery: Delivery) -> ActivityTask:
    assert isinstance(delivery.message, ActivityTask)
    return delivery.message


# --- what runs ------------------------------------------------------------------------------------------------


def test_an_attempt_knows_itself(process: Process) -> None:
    opened = open_attempt(process.runtime, task_of(process, "quiet"))
    assert isinstance(opened, Attempt)
    gen = process.record().gen
    assert opened.info == AttemptInfo(
        execution_id="e", activity="quiet", attempt=1, idempotency_key=f"{gen}.1.1", last_failure=None
    )
    assert opened.timeout_ms is None
    assert not opened.is_async


def test_an_activity_may_be_called_by_its_name_alone(process: Process) -> None:
    assert process.client.start("e", calls, "quiet").result(1) == "done"


def test_the_time_left_is_the_shortest_of_what_is_allowed(process: Process) -> None:
    task = task_of(process, "timed")
    opened = open_attempt(process.runtime, task)
    assert isinstance(opened, Attempt)
    assert opened.timeout_ms == 3_000
    process.clock.advance(58_500)
    late = open_attempt(process.runtime, task)
    assert isinstance(late, Attempt)
    assert late.timeout_ms == 1_500


# --- retries ---------------------------------------------------------------------------------------------------


def test_retries_take_no_turn_and_wait_ever_longer(process: Process) -> None:
    process.run(task_of(process, "failing"))
    turns = len(process.stored())
    waits: list[int] = []
    for _ in range(2):
        due = process.backend.next_due_ms()
        assert due is not None
        waits.append(due - process.clock.now_ms())
        process.clock.advance(waits[-1])
        (task,) = process.tasks()
        process.run(task)
    assert waits == [1_000, 2_000]
    assert len(process.stored()) == turns
    process.work()
    assert process.record().result == '["OSError",3,"disk"]'
    assert RAN == ["failing"] * 3


def test_an_activity_sets_its_own_next_delay(process: Process) -> None:
    process.run(task_of(process, "busy"))
    assert process.backend.next_due_ms() == process.clock.now_ms() + 7_500


def test_a_next_delay_ends_within_the_calendar(process: Process) -> None:
    process.run(task_of(process, "busy_for_ever"))
    due_ms = process.backend.next_due_ms()
    assert due_ms is not None
    assert instant(due_ms) == instant(process.clock.now_ms()) + timedelta(days=36_500)


def test_the_next_attempt_knows_what_failed_before(process: Process) -> None:
    process.run(task_of(process, "failing"))
    process.clock.advance(1_000)
    (task,) = process.tasks()
    opened = open_attempt(process.runtime, task)
    assert isinstance(opened, Attempt)
    assert opened.info.attempt == 2
    assert opened.info.last_failure is not None
    assert opened.info.last_failure.matches(OSError)


def test_no_attempt_begins_that_could_not_end_in_time(process: Process) -> None:
    process.client.start("e", declared, "bounded")
    for _ in range(10):
        process.work()
        process.clock.advance(1_000)
    assert process.record().result == '["OSError",3,"disk"]'
    assert RAN == ["bounded"] * 3


def test_an_attempt_that_overran_fails_and_is_retried(process: Process) -> None:
    opened = open_attempt(process.runtime, task_of(process, "timed"))
    assert isinstance(opened, Attempt)
    assert attempt_timed_out(process.runtime, opened) is None
    item = process.backend.read_item(message_of(Delivery(opened.task, "")).key)
    assert item is not None
    assert (item.state, item.attempt) == ("retrying", 2)
    assert item.last_failure is not None
    assert "did not end within 3 s (start-to-close)" in item.last_failure.message


def test_a_task_that_waited_too_long_is_not_run(process: Process) -> None:
    task = task_of(process, "impatient")
    process.clock.advance(5_001)
    process.run(task)
    process.work()
    result = process.record().result
    assert result is not None
    assert '["ActivityTimeoutError",1,' in result
    assert "longer than 5 s (schedule-to-start)" in result
    assert RAN == []


# --- redeliveries ------------------------------------------------------------------------------------------------


def test_a_task_that_nobody_answered_runs_again_as_the_same_attempt(process: Process) -> None:
    task_of(process, "quiet")
    process.clock.advance(LEASE_MS)
    (again,) = process.tasks()
    assert (message_of(again).attempt, again.receives) == (1, 2)
    process.run(again)
    process.work()
    assert process.record().result == '"done"'


def test_an_attempt_that_has_failed_does_not_run_again(process: Process) -> None:
    task = task_of(process, "failing")
    process.run(task)
    process.run(Delivery(task.message, "stale", receives=2))
    assert RAN == ["failing"]
    assert process.queued(ActivityTask) == ["task.1.2"]


def test_a_redelivery_sends_the_next_attempt_again_where_that_was_lost(process: Process) -> None:
    task = task_of(process, "failing")
    process.run(task)
    process.clock.advance(1_000)
    process.backend.acknowledge([delivery.receipt for delivery in process.receive()])
    assert process.queued() == []
    process.run(Delivery(task.message, "stale", receives=2))
    (again,) = process.tasks()
    assert message_of(again).attempt == 2
    assert RAN == ["failing"]


def test_nothing_runs_for_an_execution_that_has_ended(process: Process) -> None:
    task_of(process, "failing")
    process.client.terminate("e")
    process.take_due()
    process.clock.advance(LEASE_MS)
    for task in process.tasks():
        process.run(task)
    assert RAN == []
    assert process.queued() == []


def test_a_failure_after_the_end_is_not_retried(process: Process) -> None:
    task = task_of(process, "failing")
    process.client.terminate("e")
    process.take_due()
    process.run(task)
    assert process.queued() == []


# --- at most once ---------------------------------------------------------------------------------------------------


def test_a_claimed_attempt_does_not_run_twice(process: Process) -> None:
    task = task_of(process, "once")
    assert isinstance(open_attempt(process.runtime, task), Attempt)
    process.clock.advance(LEASE_MS)
    (again,) = process.tasks()
    assert open_attempt(process.runtime, again) is None
    item = process.backend.read_item(message_of(again).key)
    assert item is not None
    assert (item.state, item.attempt) == ("retrying", 2)
    assert item.last_failure is not None
    assert "whether it ran to its end is unknown" in item.last_failure.message


def test_a_claimed_attempt_is_left_alone_while_its_owner_may_be_running_it(process: Process) -> None:
    task = task_of(process, "once")
    assert isinstance(open_attempt(process.runtime, task, within_ms=10_000), Attempt)
    copy = Delivery(task.message, "copy", receives=2)
    process.clock.advance(10_000)
    for handle in (partial(open_attempt, within_ms=10_000), attempt_lost):
        with pytest.raises(ContendedError, match="who may be running it"):
            handle(process.runtime, copy)
    item = process.backend.read_item(message_of(task).key)
    assert item is not None
    assert item.state == "claimed"

    process.clock.advance(10_000)
    assert open_attempt(process.runtime, copy, within_ms=10_000) is None
    item = process.backend.read_item(message_of(task).key)
    assert item is not None
    assert (item.state, item.attempt) == ("retrying", 2)


def test_an_attempt_gets_no_longer_than_its_process_has(process: Process) -> None:
    task = task_of(process, "timed")
    for within_ms, expected in ((1_000, 1_000), (10_000, 3_000)):
        opened = open_attempt(process.runtime, task, within_ms=within_ms)
        assert isinstance(opened, Attempt)
        assert opened.timeout_ms == expected


def test_the_result_of_a_claimed_attempt_is_stored_with_its_claim(process: Process) -> None:
    opened = open_attempt(process.runtime, task_of(process, "once"))
    assert isinstance(opened, Attempt)
    assert attempt_returned(process.runtime, opened, "done") is None
    item = process.backend.read_item(opened.task.key)
    assert item is not None
    assert (item.state, item.result) == ("completed", '"done"')
    process.run(Delivery(opened.task, "stale", receives=2))
    process.work()
    assert process.record().result == '"done"'


# --- what cannot run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "type_", "said"),
    [
        ("contract", "NonRetryableError", "@contract.implement"),
        ("unserialisable", "PayloadError", "unserialisable"),
    ],
)
def test_what_cannot_run_fails_at_once_and_says_why(process: Process, name: str, type_: str, said: str) -> None:
    process.client.start("e", declared, name)
    process.work()
    result = process.record().result
    assert result is not None
    assert result.startswith(f'["{type_}",1,')
    assert said in result


def test_an_unknown_activity_is_told_with_those_that_are_known(process: Process) -> None:
    @orchestrator
    async def lost(ctx: Context) -> None:
        await ctx.call("nowhere", returns=object)

    process = Process([lost, quiet])
    process.client.start("e", lost)
    process.work()
    failure = process.record().failure
    assert failure is not None
    assert failure.cause is not None
    assert "No activity is named 'nowhere' here; this process knows: quiet" in failure.cause.message


def test_arguments_that_no_longer_fit_fail_the_activity(process: Process) -> None:
    @orchestrator
    async def outdated(ctx: Context) -> None:
        await ctx.call("quiet", returns=object, surplus=1)

    process = Process([outdated, quiet])
    process.client.start("e", outdated)
    process.work()
    failure = process.record().failure
    assert failure is not None
    assert failure.cause is not None
    assert failure.cause.type == "durably.core.errors.PayloadError"
    assert "surplus" in failure.cause.message


def test_an_answer_may_be_settled_twice(process: Process) -> None:
    opened = open_attempt(process.runtime, task_of(process, "quiet"))
    assert isinstance(opened, Attempt)
    answer = attempt_returned(process.runtime, opened, "done")
    assert isinstance(answer, Answer)
    settle_answer(process.runtime, answer)
    settle_answer(process.runtime, answer)
    process.work()
    assert process.kinds().count("ActivityCompleted") == 1


def test_an_async_activity_says_so() -> None:
    @activity
    async def later() -> int:
        await asyncio.sleep(0)
        return 1

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await later()

    process = Process([flow, later])
    process.client.start("e", flow)
    process.take_due()
    opened = open_attempt(process.runtime, process.tasks()[0])
    assert isinstance(opened, Attempt)
    assert opened.is_async
    assert asyncio.run(opened.call()) == 1
