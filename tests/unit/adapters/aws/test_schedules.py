"""Messages due in more than 900 s: through EventBridge Scheduler, which moto keeps and never fires."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from durably.adapters.aws import AwsBackend, keys
from durably.core.errors import StorageError
from durably.core.events import TimerFired
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.messages import ActivityTask, CallbackDeadline, EventMessage, Outgoing
from tests.contract.aws import Cloud, SqsSource
from tests.contract.builders import RUN, item, task, turn
from tests.contract.harness import START_MS, Harness
from tests.unit.adapters.aws.bodies import noise

MONTH_MS = 30 * 86_400_000
TIMER = Outgoing(EventMessage(run=RUN, event=TimerFired(seq=7)), START_MS + MONTH_MS + 999)


def schedule(made: Cloud, message_id: str) -> Any:
    return made.clients.scheduler.get_schedule(GroupName="durably", Name=keys.schedule_name(message_id))


def exists(made: Cloud, message_id: str) -> bool:
    try:
        schedule(made, message_id)
    except ClientError:
        return False
    return True


def fire(made: Cloud, message_id: str) -> None:
    """What the scheduler does at its time."""
    found = schedule(made, message_id)
    queue = made.settings.delay_queue
    assert found["Target"]["Arn"] == made.settings.delay_queue_arn
    made.clients.sqs.send_message(QueueUrl=queue, MessageBody=found["Target"]["Input"])
    made.clients.scheduler.delete_schedule(GroupName="durably", Name=found["Name"])


def deadline(due_ms: int) -> CallbackDeadline:
    message = task().message
    assert isinstance(message, ActivityTask)
    return CallbackDeadline(task=message, deadline_ms=due_ms)


def test_a_timer_of_a_month_fires_early_and_waits_for_its_second(made: Cloud, backend: AwsBackend) -> None:
    harness = Harness(backend, SqsSource(made, backend), made.clock)
    backend.send([TIMER])
    found = schedule(made, TIMER.message.id)
    assert found["ScheduleExpression"] == "at(2023-12-14T22:11:20)"  # 30 days on, less two minutes
    assert found["ActionAfterCompletion"] == "DELETE"
    assert found["FlexibleTimeWindow"] == {"Mode": "OFF"}
    harness.advance(MONTH_MS - 70_000)  # 50 s late, as the scheduler may be
    fire(made, TIMER.message.id)
    assert harness.drain() == {}
    harness.advance(70_000)
    assert harness.drain() == {}
    harness.advance(1_000)
    assert harness.drain() == {TIMER.message.id: TIMER.message}


def test_sending_a_scheduled_message_again_changes_nothing(made: Cloud, backend: AwsBackend) -> None:
    backend.send([TIMER])
    backend.send([TIMER])
    assert len(made.clients.scheduler.list_schedules(GroupName="durably")["Schedules"]) == 1


def test_a_lost_answer_of_the_scheduler_is_success(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("CreateSchedule", "answer lost")
    backend.send([TIMER])
    assert exists(made, TIMER.message.id)


def test_a_refusal_of_the_scheduler_is_told(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("CreateSchedule", "refused", code="ValidationException")
    with pytest.raises(StorageError, match=r"schedule .*fired\.7"):
        backend.send([TIMER])


def test_a_scheduled_message_over_200_kb_travels_by_reference(made: Cloud, backend: AwsBackend) -> None:
    harness = Harness(backend, SqsSource(made, backend), made.clock)
    big = task(payload=noise(400_000), due_ms=START_MS + 1_000_000)
    backend.send([big])
    assert len(schedule(made, big.message.id)["Target"]["Input"]) < 500
    harness.advance(1_000_000)
    fire(made, big.message.id)
    assert harness.drain() == {big.message.id: big.message}


def test_a_name_fits_the_scheduler() -> None:
    assert len(keys.schedule_name("x" * 500)) == 64


def test_cancelling_an_activity_deletes_what_it_had_scheduled(made: Cloud, backend: AwsBackend) -> None:
    due_ms = START_MS + MONTH_MS
    waiting = item(1, state="open", deadline_ms=due_ms)
    retrying = item(2, state="retrying", attempt=2, deadline_ms=None)
    backend.settle(Settlement(item=waiting, send=(Outgoing(deadline(due_ms), due_ms),)))
    backend.settle(Settlement(item=retrying, send=(task(seq=2, attempt=2, due_ms=due_ms),)))
    assert exists(made, deadline(due_ms).id)
    assert exists(made, task(seq=2, attempt=2).message.id)
    backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=(waiting.key, retrying.key))])
    assert not exists(made, deadline(due_ms).id)
    assert not exists(made, task(seq=2, attempt=2).message.id)


def test_a_completed_callback_deletes_its_deadline(made: Cloud, backend: AwsBackend) -> None:
    due_ms = START_MS + MONTH_MS
    backend.settle(Settlement(item=item(deadline_ms=due_ms), send=(Outgoing(deadline(due_ms), due_ms),)))
    backend.settle(Settlement(item=item(version=2, state="completed", deadline_ms=due_ms)))
    assert not exists(made, deadline(due_ms).id)


def test_a_schedule_that_cannot_be_deleted_hinders_nobody(made: Cloud, backend: AwsBackend) -> None:
    retrying = item(state="retrying", deadline_ms=None)
    backend.settle(Settlement(item=retrying))
    made.faults.plan("DeleteSchedule", "request lost", 3)
    outcome = backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=(retrying.key,), acknowledge=("receipt",))])
    assert outcome[0].status == "stored"
    assert backend.acknowledged == {"receipt"}


def test_a_timer_beyond_the_calendar_waits_for_its_last_day(made: Cloud, backend: AwsBackend) -> None:
    late = Outgoing(EventMessage(run=RUN, event=TimerFired(seq=8)), 10**15)
    backend.send([late])
    assert schedule(made, late.message.id)["ScheduleExpression"] == "at(9999-12-31T00:00:00)"
