"""AWS in this process: moto behind one lock (it is not thread-safe), its queues on the test's clock, and the receiving
end of the queues, which on AWS is Lambda's.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import RLock
from typing import Any
from unittest.mock import Mock

import botocore.endpoint
import moto.sqs.models
import pytest
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from durably.adapters.aws import AwsBackend, AwsSettings, Clients, keys
from durably.adapters.aws.metering import Bill, Meter
from durably.ports.messages import CallbackDeadline, Delivery, HeartbeatCheck, Outgoing
from tests.contract.aws_faults import REFUSED, Faults
from tests.contract.harness import ManualClock

REGION = "us-east-1"
PROJECTED = ["gen", "orchestrator", "run", "request_id", "code_version", "started_at", "closed_at", "turn"]
ACTIVITIES = ("act", "other")


@dataclass
class Cloud:
    """A deployment's resources, and how to reach them."""

    settings: AwsSettings
    clients: Clients
    clock: ManualClock
    meter: Meter
    faults: Faults
    lock: RLock = field(default_factory=RLock)
    slept: list[float] = field(default_factory=list[float])

    def backend(self) -> AwsBackend:
        return AwsBackend(self.settings, clients=self.clients, clock=self.clock, sleep=self.slept.append)

    @property
    def queues(self) -> list[str]:
        """The delay queue first: what it forwards is then received from the others."""
        activities = dict.fromkeys(self.settings.activity_queues.values())
        return [self.settings.delay_queue, self.settings.events_queue, *activities]


@contextmanager
def cloud(clock: ManualClock, *, observers: tuple[Callable[[Any], None], ...] = (), **settings: Any) -> Iterator[Cloud]:
    """A fresh deployment on moto."""
    lock = RLock()
    ticks = itertools.count()
    process = BotocoreStubber.process_request

    def locked(stubber: BotocoreStubber, request: Any) -> Any:
        if hasattr(request, REFUSED):
            return None
        with lock:
            return process(stubber, request)

    def now_ms() -> float:
        return clock.now_ms() + next(ticks) * 1e-3  # moto asks for "later than", so that no two instants are equal

    with pytest.MonkeyPatch.context() as patch, mock_aws():
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        patch.setattr(BotocoreStubber, "process_request", locked)
        patch.setattr(moto.sqs.models, "unix_time_millis", now_ms)
        patch.setattr(moto.sqs.models, "unix_time", lambda: now_ms() / 1000)
        patch.setattr(botocore.endpoint, "time", Mock(spec=time))  # boto sleeps between its attempts
        clients, meter, faults = made_clients(observers)
        faults.reset()
        deployed = Cloud(deploy(clients, **settings), clients, clock, meter, faults, lock)
        meter.bill = Bill()
        yield deployed


@cache
def made_clients(observers: tuple[Callable[[Any], None], ...]) -> tuple[Clients, Meter, Faults]:
    """Making clients takes a second; moto serves those that exist already, too."""
    meter, faults = Meter(), Faults()
    return Clients(region=REGION, observers=(meter.observe, faults.observe, *observers)), meter, faults


def deploy(clients: Clients, **settings: Any) -> AwsSettings:
    """What the template deploys, as far as the backend sees it."""
    strings = (keys.PARTITION, keys.SORT, keys.STATUS_PARTITION, keys.STATUS_SORT)
    clients.dynamodb.create_table(
        TableName="durably",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in strings],
        KeySchema=[
            {"AttributeName": keys.PARTITION, "KeyType": "HASH"},
            {"AttributeName": keys.SORT, "KeyType": "RANGE"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": keys.STATUS_INDEX,
                "KeySchema": [
                    {"AttributeName": keys.STATUS_PARTITION, "KeyType": "HASH"},
                    {"AttributeName": keys.STATUS_SORT, "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": PROJECTED},
            }
        ],
    )
    clients.s3.create_bucket(Bucket="durably")
    clients.scheduler.create_schedule_group(Name="durably")
    secret = clients.secretsmanager.create_secret(
        Name="durably-tokens", SecretString=json.dumps({"current": "k1", "k1": "1" * 32})
    )
    fifo: Any = {"FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    sqs = clients.sqs
    delay = sqs.create_queue(QueueName="delay")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=delay, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    defaults: dict[str, Any] = {
        "deployment": "test",
        "table": "durably",
        "bucket": "durably",
        "events_queue": sqs.create_queue(QueueName="events.fifo", Attributes=fifo)["QueueUrl"],
        "delay_queue": delay,
        "delay_queue_arn": arn,
        "delay_dead_letters_arn": f"{arn}-dead",
        "schedule_group": "durably",
        "schedule_role": "arn:aws:iam::123456789012:role/durably-schedules",
        "token_secret": secret["ARN"],
        "callback_url": "https://callbacks.example",
        "activity_queues": {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ACTIVITIES},
    }
    return AwsSettings(**(defaults | settings))


class SqsSource:
    """What Lambda's pollers and the timers function do: receive, forward what is due, delete what is acknowledged."""

    def __init__(self, made: Cloud, backend: AwsBackend) -> None:
        self._cloud = made
        self._backend = backend
        self._sqs = made.clients.sqs
        self._held: dict[str, tuple[str, str]] = {}  # queue and message by receipt handle, newest deliveries only

    def receive(self, *, now_ms: int, limit: int, visibility_ms: int, tasks: bool = True) -> list[Delivery]:
        assert tasks, "a queue of SQS holds either"
        with self._cloud.lock:
            self._delete_acknowledged()
            received: list[Delivery] = []
            for queue in self._cloud.queues:
                received += self._receive_from(queue, min(10, limit - len(received)), now_ms, visibility_ms)
            return received

    def release(self, receipt: str, *, due_ms: int) -> None:
        with self._cloud.lock:
            held = self._held.pop(receipt, None)
            if held is not None:
                wait_s = max(0, -(-(due_ms - self._cloud.clock.now_ms()) // 1000))
                self._sqs.change_message_visibility(QueueUrl=held[0], ReceiptHandle=receipt, VisibilityTimeout=wait_s)

    def next_due_ms(self) -> int | None:
        raise NotImplementedError("SQS does not tell")

    def _delete_acknowledged(self) -> None:
        for receipt in self._backend.acknowledged & self._held.keys():
            queue, _ = self._held.pop(receipt)
            self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=receipt)
        self._backend.acknowledged.clear()

    def _receive_from(self, queue: str, limit: int, now_ms: int, visibility_ms: int) -> list[Delivery]:
        if limit < 1:
            return []
        answer: Any = self._sqs.receive_message(
            QueueUrl=queue,
            MaxNumberOfMessages=limit,
            VisibilityTimeout=visibility_ms // 1000,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        received: list[Delivery] = []
        for message in answer.get("Messages", []):
            receipt = message["ReceiptHandle"]
            envelope = self._backend.open_envelope(message["Body"])
            if queue == self._cloud.settings.delay_queue and (
                envelope.due_ms > now_ms or not isinstance(envelope.message, CallbackDeadline | HeartbeatCheck)
            ):
                self._backend.send([Outgoing(envelope.message, envelope.due_ms)])
                self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=receipt)
                continue
            self._held = {old: held for old, held in self._held.items() if held[1] != message["MessageId"]}
            self._held[receipt] = (queue, message["MessageId"])
            receives = int(message["Attributes"]["ApproximateReceiveCount"])
            received.append(Delivery(envelope.message, receipt, receives))
        return received
