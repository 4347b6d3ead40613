"""Heartbeats: what they store, what they learn, and what becomes of an attempt that is silent for too long."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from durably import (
    ActivityCancelledError,
    DefinitionError,
    PayloadError,
    attempt_info,
    heartbeat,
    last_heartbeat,
)
from durably.core.context import instant
from durably.core.errors import StorageError
from durably.ports.backend import Settlement, SettleOutcome
from durably.ports.messages import ActivityTask, Delivery, HeartbeatCheck
from durably.runtime.attempt import (
    attempt_raised,
    attempt_returned,
    attempt_timed_out,
)
from durably.runtime.callbacks import beat_callback, complete_callback
from durably.runtime.heartbeats import check_heartbeat
from durably.runtime.runtime import Limits
from tests.unit.runtime.beating import (
    ACTIVITIES,
    HANDED,
    TIMEOUT_MS,
    Progress,
    Running,
    begun,
    flow,
    impatient,
    next_attempt,
    silence,
    steps,
)
from tests.unit.runtime.harness import LEASE_MS, Process


@pytest.fixture
def process() -> Process:
    HANDED.clear()
    return Process([flow, impatient, *ACTIVITIES], limits=Limits(heartbeat_bytes=100))


# --- what is stored ------------------------------------------------------------------------------------------------


def test_the_first_heartbeat_is_stored_and_others_wait_for_a_quarter_of_the_timeout(process: Process) -> None:
    running = begun(process, "steps")
    running.beat({"done": 1})
    assert running.details() == {"done": 1}
    for done in (2, 3, 4):
        process.clock.advance(1_000)
        running.beat({"done": done})
    assert running.details() == {"done": 1}
    process.clock.advance(2_000)
    running.beat()
    assert running.details() == {"done": 4}


def test_a_description_tells_of_the_last_heartbeat_and_of_the_deadline(process: Process) -> None:
    running = begun(process, "steps")
    process.clock.advance(5_000)
    running.beat({"done": 1})
    (shown,) = process.client.describe("e").activities
    assert (shown.state, shown.attempt, shown.heartbeat_details) == ("running", 1, '{"done":1}')
    assert shown.heartbeat_at == instant(process.clock.now_ms())
    assert shown.deadline_at == instant(process.clock.now_ms() + TIMEOUT_MS)
    attempt_raised(process.runtime, running.attempt, OSError("disk"))
    (shown,) = process.client.describe("e").activities
    assert (shown.state, shown.attempt, shown.heartbeat_at) == ("retrying", 2, None)
    assert (shown.heartbeat_details, shown.deadline_at) == ('{"done":1}', None)


def test_a_description_tells_when_a_callback_expires_or_is_too_silent(process: Process) -> None:
    token, opened_ms = asked(process), process.clock.now_ms()
    deadlines: list[datetime | None] = []
    for silence_ms in (0, 15_000, 10 * 60_000 - 20_000):
        process.clock.advance(silence_ms)
        beat_callback(process.runtime, token, None)
        (shown,) = process.client.describe("e").activities
        assert shown.state == "open"
        deadlines.append(shown.deadline_at)
    assert deadlines == [instant(opened_ms + ms) for ms in (TIMEOUT_MS, 35_000, 10 * 60_000)]


def test_the_attempt_that_follows_a_failure_knows_the_last_details_even_unstored_ones(process: Process) -> None:
    running = begun(process, "steps")
    running.beat({"done": 1})
    running.beat({"done": 2})
    assert attempt_raised(process.runtime, running.attempt, OSError("disk")) is None
    second = next_attempt(process)
    assert second.attempt.info.attempt == 2
    assert second.within(lambda: attempt_info().heartbeat_details) == {"done": 2}
    assert second.within(lambda: last_heartbeat(Progress)) == Progress(2)
    assert attempt_raised(process.runtime, second.attempt, OSError("disk")) is None
    assert next_attempt(process).attempt.info.heartbeat_details == {"done": 2}


def test_details_survive_the_process_that_sent_them(process: Process) -> None:
    running = begun(process, "unwatched")
    assert running.item() is None
    running.beat(Progress(7))
    process.clock.advance(LEASE_MS)
    (again,) = process.tasks()
    assert (again.receives, Running(process, again).attempt.info.heartbeat_details) == (2, {"done": 7})


def test_what_an_overrun_attempt_said_last_is_known_too(process: Process) -> None:
    running = begun(process, "steps")
    running.beat(1)
    running.beat(2)
    assert attempt_timed_out(process.runtime, running.attempt) is None
    assert next_attempt(process).attempt.info.heartbeat_details == 2


def test_an_activity_without_a_timeout_that_beats_answers_as_ever(process: Process) -> None:
    running = begun(process, "unwatched")
    running.beat("half")
    answer = attempt_returned(process.runtime, running.attempt, "done")
    assert answer is not None
    process.take([answer.delivery])
    assert process.record().result == '"done"'


def test_details_have_the_type_that_is_said(process: Process) -> None:
    running = begun(process, "unwatched")
    running.beat([Progress(1)], details_type=list[Progress])
    process.clock.advance(LEASE_MS)
    again = Running(process, process.tasks()[0])
    assert again.within(lambda: last_heartbeat(list[Progress])) == [Progress(1)]
    with pytest.raises(PayloadError):
        again.within(lambda: last_heartbeat(int))


@pytest.mark.parametrize(
    ("details", "said"), [(object(), "object"), (float("nan"), "nan"), ("x" * 99, "101 bytes, more than 100")]
)
def test_details_that_cannot_be_stored_are_refused_where_they_are_said(
    process: Process, details: object, said: str
) -> None:
    running = begun(process, "steps")
    with pytest.raises(PayloadError, match=said):
        running.beat(details)
    running.beat("fine")
    assert running.details() == "fine"


def test_a_heartbeat_that_the_store_refuses_is_not_the_activitys_problem(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = begun(process, "steps")

    def refuse(settlement: Settlement) -> SettleOutcome:
        raise StorageError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(process.backend, "settle", refuse)
        running.beat(1)
    assert running.details() is None
    running.beat()
    assert running.details() == 1


def test_outside_a_running_activity_a_heartbeat_does_nothing() -> None:
    heartbeat({"done": 1})
    assert last_heartbeat(Progress) is None


# --- cancellation ---------------------------------------------------------------------------------------------------


def test_a_cancelled_activity_learns_it_at_its_next_heartbeat_and_its_outcome_is_dropped(process: Process) -> None:
    running = begun(process, "steps", impatient)
    running.beat()
    process.clock.advance(6_000)
    process.take_due()
    with pytest.raises(ActivityCancelledError, match=r"steps was cancelled"):
        running.beat()
    with pytest.raises(ActivityCancelledError):
        running.beat()
    assert attempt_raised(process.runtime, running.attempt, ActivityCancelledError()) is None
    assert process.queued(ActivityTask) == []
    item = running.item()
    assert item is not None
    assert item.state == "cancelled"


@pytest.mark.parametrize("end", ["cancel", "terminate"])
@pytest.mark.parametrize("name", ["steps", "unwatched", "once", "near"])
def test_an_activity_learns_of_its_executions_end(process: Process, name: str, end: str) -> None:
    running = begun(process, name)
    getattr(process.client, end)("e")
    process.take_due()
    with pytest.raises(ActivityCancelledError, match="ended"):
        running.beat()
    assert attempt_returned(process.runtime, running.attempt, "done") is None
    assert process.queued(ActivityTask) == []


def test_a_heartbeat_that_is_swallowed_still_drops_the_outcome(process: Process) -> None:
    running = begun(process, "unwatched")
    process.client.terminate("e")
    process.take_due()
    with pytest.raises(ActivityCancelledError):
        running.beat()
    assert attempt_raised(process.runtime, running.attempt, OSError("while cleaning up")) is None
    assert process.queued() == []


def test_no_exception_handler_swallows_a_cancellation() -> None:
    assert not issubclass(ActivityCancelledError, Exception)


def test_the_thread_of_an_attempt_that_is_over_is_told_so(process: Process) -> None:
    running = begun(process, "unwatched")
    attempt_timed_out(process.runtime, running.attempt)
    with pytest.raises(ActivityCancelledError, match="overran"):
        running.beat("late")


def test_an_activity_of_an_earlier_run_is_told_so(process: Process) -> None:
    running = begun(process, "steps")
    process.client.reset("e", 1)
    process.take_due()
    with pytest.raises(ActivityCancelledError, match="in run 2"):
        running.beat()


# --- silence --------------------------------------------------------------------------------------------------------


def test_an_attempt_that_beats_is_never_given_up(process: Process) -> None:
    running = begun(process, "steps")
    for done in range(10):
        silence(process, 15_000)
        running.beat(done)
    assert attempt_returned(process.runtime, running.attempt, "done") is None
    process.work()
    assert process.record().result == '"done"'
    process.clock.advance(TIMEOUT_MS)
    process.work()
    assert process.queued() == []


def test_a_silent_attempt_is_timed_out_and_its_late_answer_dropped(process: Process) -> None:
    running = begun(process, "steps")
    silence(process, 10_000)
    running.beat({"done": 3})
    silence(process, TIMEOUT_MS)
    item = running.item()
    assert item is not None
    assert (item.state, item.attempt, item.details) == ("retrying", 2, '{"done":3}')
    assert item.last_failure is not None
    assert item.last_failure.message == "attempt 1 of steps sent no heartbeat for 20 s"

    second = next_attempt(process)
    with pytest.raises(ActivityCancelledError, match="attempt 2 takes its place"):
        running.beat()
    assert attempt_returned(process.runtime, running.attempt, "late") is None
    assert attempt_returned(process.runtime, second.attempt, "in time") is None
    process.work()
    assert process.record().result == '"in time"'


def test_an_attempt_that_never_beats_is_given_up_as_often_as_its_policy_allows(process: Process) -> None:
    begun(process, "steps")
    for _ in range(2):
        silence(process, TIMEOUT_MS)
        next_attempt(process)
    silence(process, TIMEOUT_MS)
    process.take_due()
    assert process.record().result == ('["ActivityTimeoutError",3,"attempt 3 of steps sent no heartbeat for 20 s"]')


def test_a_silent_at_most_once_attempt_is_not_run_again_but_followed(process: Process) -> None:
    running = begun(process, "once")
    silence(process, TIMEOUT_MS)
    item = running.item()
    assert item is not None
    assert (item.state, item.attempt) == ("retrying", 2)


def test_an_attempt_that_is_delivered_again_has_its_time_again(process: Process) -> None:
    running = begun(process, "steps")
    silence(process, 15_000)
    again = Running(process, Delivery(running.attempt.task, "copy", receives=2))
    silence(process, 15_000)
    again.beat()
    assert attempt_returned(process.runtime, again.attempt, "again") is None
    assert attempt_returned(process.runtime, running.attempt, "first") is None
    process.work()
    assert process.record().result == '"again"'
    assert process.kinds().count("ActivityCompleted") == 1


def test_whoever_dies_between_the_item_and_the_event_leaves_the_result_in_the_item(process: Process) -> None:
    running = begun(process, "steps")
    attempt_returned(process.runtime, running.attempt, "done")
    process.backend.acknowledge([delivery.receipt for delivery in process.receive()])
    process.run(Delivery(running.attempt.task, "stale", receives=2))
    process.work()
    assert process.record().result == '"done"'


def test_a_check_repeats_what_whoever_gave_the_attempt_up_was_to_send(process: Process) -> None:
    running = begun(process, "steps")
    item = running.item()
    assert item is not None
    assert item.beat_at_ms is not None
    silence(process, TIMEOUT_MS)
    process.clock.advance(2_000)
    process.backend.acknowledge([delivery.receipt for delivery in process.receive()])
    check = HeartbeatCheck(task=running.attempt.task, deadline_ms=item.beat_at_ms + TIMEOUT_MS)
    assert "task.1.2" not in process.queued(ActivityTask)
    check_heartbeat(process.runtime, Delivery(check, "again", receives=2))
    assert "task.1.2" in process.queued(ActivityTask)


def test_a_check_that_comes_by_the_queues_clock_is_not_sent_again_by_a_slower_one(process: Process) -> None:
    """It would come back at once, again and again; and where messages are deduplicated it would not come back."""
    running = begun(process, "steps")
    item = running.item()
    assert item is not None
    assert item.beat_at_ms is not None
    check = HeartbeatCheck(task=running.attempt.task, deadline_ms=item.beat_at_ms + TIMEOUT_MS)
    process.clock.advance(TIMEOUT_MS - 700)
    check_heartbeat(process.runtime, Delivery(check, "early"))
    assert "task.1.2" in process.queued(ActivityTask)


def test_a_check_of_an_execution_that_has_ended_sends_nothing(process: Process) -> None:
    begun(process, "steps")
    process.client.terminate("e")
    silence(process, TIMEOUT_MS)
    process.take_due()
    process.clock.advance(TIMEOUT_MS)
    process.work()
    assert process.queued() == ["task.1.1"]  # which its own process still holds


def test_copies_of_a_check_have_the_same_id(process: Process) -> None:
    task = begun(process, "steps").attempt.task
    one = HeartbeatCheck(task=task, deadline_ms=5)
    assert one.id == HeartbeatCheck(task=replace(task, again=True), deadline_ms=5).id
    assert len({one.id, replace(one, deadline_ms=6).id, replace(one, task=replace(task, attempt=2)).id}) == 3


def test_a_local_activity_has_no_heartbeat_timeout() -> None:
    with pytest.raises(DefinitionError, match="local=True and heartbeat_timeout"):
        steps.options(local=True)
    with pytest.raises(DefinitionError, match="heartbeat_timeout must be a positive timedelta"):
        steps.options(heartbeat_timeout=timedelta(0))


def test_a_local_activity_that_beats_leaves_no_item_behind(process: Process) -> None:
    running = begun(process, "near")
    running.beat(1)
    assert running.item() is None


# --- callback activities ---------------------------------------------------------------------------------------------


def asked(process: Process, program: Any = flow) -> str:
    """Submit the question; its token."""
    process.client.start("e", program, "ask")
    process.take_due()
    (task,) = process.tasks()
    process.run(task)
    return HANDED[-1].token


def test_a_heartbeat_from_outside_keeps_its_attempt_alive_and_extends_nothing_else(process: Process) -> None:
    token = asked(process)
    for done in range(30):
        silence(process, 15_000)
        answer = beat_callback(process.runtime, token, json.dumps(done))
        assert (answer.verdict, answer.cancelled) == ("accepted", False)
    silence(process, 15_000)
    process.clock.advance(10 * 60_000)
    assert beat_callback(process.runtime, token, None).verdict == "gone"


def test_a_silent_callback_gives_the_next_attempt_its_details(process: Process) -> None:
    token = asked(process)
    assert beat_callback(process.runtime, token, '{"done":1}').verdict == "accepted"
    assert beat_callback(process.runtime, token, None).verdict == "accepted"
    silence(process, TIMEOUT_MS)
    assert complete_callback(process.runtime, token, "7").verdict == "gone"
    assert beat_callback(process.runtime, token, None).verdict == "gone"
    second = next_attempt(process)
    assert second.attempt.info.heartbeat_details == {"done": 1}
    second.attempt.call()
    assert complete_callback(process.runtime, HANDED[-1].token, "7").verdict == "accepted"
    process.work()
    assert process.record().result == "7"
    assert beat_callback(process.runtime, HANDED[-1].token, None).verdict == "gone"


def test_a_heartbeat_from_outside_is_told_of_the_cancellation(process: Process) -> None:
    token = asked(process, impatient)
    assert beat_callback(process.runtime, token, None).cancelled is False
    process.clock.advance(1_000)
    process.take_due()
    assert beat_callback(process.runtime, token, None).cancelled is True


def test_a_heartbeat_from_outside_is_told_of_the_executions_end(process: Process) -> None:
    token = asked(process)
    process.client.terminate("e")
    process.take_due()
    assert beat_callback(process.runtime, token, None).cancelled is True
    process.client.start("e", flow.options(id_reuse="allow_if_closed"), "steps")
    assert beat_callback(process.runtime, token, None).verdict == "gone"


def test_a_heartbeat_from_outside_without_a_token_of_ours_or_too_large_is_refused(process: Process) -> None:
    token = asked(process)
    assert beat_callback(process.runtime, token[:-1], None).verdict == "unauthorised"
    assert beat_callback(process.runtime, token, '"' + "x" * 100 + '"').verdict == "too large"


def test_a_callback_overtakes_a_submission_that_beats(process: Process) -> None:
    process.client.start("e", flow, "ask")
    process.take_due()
    running = Running(process, process.tasks()[0])
    running.attempt.call()
    running.beat("half")
    assert complete_callback(process.runtime, HANDED[-1].token, "7").verdict == "accepted"
    process.clock.advance(5_000)
    with pytest.raises(ActivityCancelledError, match="answered"):
        running.beat()
    assert attempt_raised(process.runtime, running.attempt, ActivityCancelledError()) is None
    process.work()
    assert process.record().result == "7"
