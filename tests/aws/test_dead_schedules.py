"""What a schedule could not deliver: the scheduler sends it to the dead letters of the delay queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durably.adapters.aws import AwsBackend
from durably.aws.batch import COMEBACKS
from durably.ports.messages import ActivityTask, Outgoing
from tests.aws import programs
from tests.aws.driver import Cloud
from tests.aws.payloads import ACTIVITIES, DELAY, EVENTS
from tests.aws.programs import calls


def undelivered(cloud: Cloud, *, whole_call: bool = False, comebacks: int = 0) -> None:
    """Each schedule gives up, and says so as the scheduler does (User Guide, "Configuring a dead-letter queue")."""
    for name, _ in cloud.schedules():
        target = cloud.scheduler.get_schedule(Name=name, GroupName="schedules")["Target"]
        assert target["DeadLetterConfig"] == {"Arn": cloud.settings.delay_dead_letters_arn}
        queue = target["DeadLetterConfig"]["Arn"].rpartition(":")[2]
        body = target["Input"]
        if whole_call:
            body = json.dumps({"MessageBody": body, "QueueUrl": cloud.url(DELAY)})
        attributes: dict[str, Any] = {"SCHEDULE_ARN": {"DataType": "String", "StringValue": f"arn:schedule/{name}"}}
        if comebacks:
            attributes[COMEBACKS] = {"DataType": "Number", "StringValue": str(comebacks)}
        cloud.sqs.send_message(QueueUrl=cloud.url(queue), MessageBody=body, MessageAttributes=attributes)
        cloud.scheduler.delete_schedule(Name=name, GroupName="schedules")


def receive_from_nowhere(cloud: Cloud) -> None:
    """A letter that was sent to the queue itself names no queue that it came from."""
    (record,) = cloud.receive("delay-dead")
    del record["attributes"]["DeadLetterQueueSourceArn"]
    assert not cloud.deliver("delay-dead", [record])


@pytest.mark.parametrize("whole_call", [False, True])
def test_a_timer_whose_schedule_failed_fires_all_the_same(cloud: Cloud, whole_call: bool) -> None:
    cloud.client.start("x-1", programs.sleeper, 7_200.0)
    cloud.poll(EVENTS)
    undelivered(cloud, whole_call=whole_call)
    receive_from_nowhere(cloud)
    assert 0 <= cloud.result("x-1") - 7_200 < 2


def test_a_retry_whose_schedule_failed_is_no_lost_attempt(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.survivor, 1)
    cloud.poll(EVENTS)
    (record,) = cloud.receive(ACTIVITIES)
    backend: AwsBackend = cloud.backend
    task = backend.open_envelope(record["body"]).message
    assert isinstance(task, ActivityTask)
    cloud.sqs.purge_queue(QueueUrl=cloud.url(ACTIVITIES))

    backend.send([Outgoing(task, cloud.clock.ms + 7_200_000)])
    for comebacks in (0, 2):  # a letter is sent back unread twice, and read then
        undelivered(cloud, comebacks=comebacks)
        receive_from_nowhere(cloud)
        cloud.poll(DELAY)
    assert cloud.result("x-1") == "2"
    assert calls["fatal"] == 1
    assert not backend.read_items(task.run)  # which would tell of an attempt that failed
