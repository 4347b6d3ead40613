"""Where messages go, how many at once, and what becomes of those that SQS does not take."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from durably.adapters.aws import AwsBackend, keys
from durably.core.errors import StorageError
from durably.core.events import ActivityCompleted, ActivityFailed
from durably.core.keys import ActivityKey
from durably.core.options import ActivityOptions
from durably.ports.backend import TurnCommit
from durably.ports.messages import ActivityTask, CallbackDeadline, EventMessage, Message, Outgoing
from tests.contract.aws import Cloud, SqsSource
from tests.contract.builders import OTHER_GEN, RUN, completed, run_key, task, turn, wake
from tests.contract.harness import START_MS, Harness
from tests.unit.adapters.aws.bodies import noise

SOON = START_MS + 5_500
LATER = START_MS + 900_001


def received(made: Cloud, queue: str) -> list[Any]:
    found: list[Any] = []
    while True:
        answer: Any = made.clients.sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=600, MessageSystemAttributeNames=["All"]
        )
        if "Messages" not in answer:
            return found
        found += answer["Messages"]


def deadline(due_ms: int) -> Outgoing:
    message = task().message
    assert isinstance(message, ActivityTask)
    return Outgoing(CallbackDeadline(task=message), due_ms)


def local(due_ms: int = 0) -> Outgoing:
    message = task().message
    assert isinstance(message, ActivityTask)
    return Outgoing(dataclasses.replace(message, name="nowhere", options=ActivityOptions(mode="local")), due_ms)


def drained(made: Cloud, backend: AwsBackend) -> list[Message]:
    return list(Harness(backend, SqsSource(made, backend), made.clock).drain().values())


@pytest.mark.parametrize(
    ("outgoing", "queue"),
    [
        (completed(), "events"),
        (wake(), "events"),
        (local(), "events"),
        (task(), "act"),
        (task(due_ms=SOON), "act"),
        (completed(due_ms=SOON), "delay"),
        (wake(due_ms=SOON), "delay"),
        (local(SOON), "delay"),
        (deadline(0), "delay"),
        (deadline(SOON), "delay"),
        (completed(due_ms=LATER), ""),
        (task(due_ms=LATER), ""),
        (local(LATER), ""),
        (deadline(LATER), ""),
    ],
)
def test_each_message_goes_to_its_queue(made: Cloud, backend: AwsBackend, outgoing: Outgoing, queue: str) -> None:
    urls = {"events": made.settings.events_queue, "delay": made.settings.delay_queue}
    urls["act"] = made.settings.activity_queues["act"]
    backend.send([outgoing])
    made.clock.advance(6_000)
    found = {name: len(received(made, url)) for name, url in urls.items()}
    assert found == {name: int(name == queue) for name in urls}
    schedules = made.clients.scheduler.list_schedules(GroupName="durably")["Schedules"]
    assert len(schedules) == int(queue == "")


def test_events_travel_in_the_group_of_their_execution_under_their_own_id(made: Cloud, backend: AwsBackend) -> None:
    long = run_key("x" * 256, OTHER_GEN)
    backend.send([completed(), Outgoing(EventMessage(run=long, event=ActivityCompleted(seq=1, result="1")))])
    attributes = [message["Attributes"] for message in received(made, made.settings.events_queue)]
    assert attributes[0]["MessageGroupId"] == "packet-42"
    assert attributes[0]["MessageDeduplicationId"] == completed().message.id
    assert len(attributes[1]["MessageGroupId"]) == 64


def test_a_lost_message_that_is_sent_again_is_not_taken_for_its_copy(made: Cloud, backend: AwsBackend) -> None:
    backend.send([wake()])
    backend.send_again([wake()], again="dead-1")
    ids = {found["Attributes"]["MessageDeduplicationId"] for found in received(made, made.settings.events_queue)}
    assert ids == {wake().message.id, f"{wake().message.id}.dead-1"}


def test_two_hundred_messages_take_twenty_requests_and_all_arrive(made: Cloud, backend: AwsBackend) -> None:
    backend.send([task(seq=seq) for seq in range(1, 201)])
    assert made.meter.bill.requests == {"sqs.SendMessageBatch": 20}
    bodies = [json.loads(found["Body"]) for found in received(made, made.settings.activity_queues["act"])]
    assert {body["id"] for body in bodies} == {task(seq=seq).message.id for seq in range(1, 201)}


def test_a_batch_stays_below_one_mebibyte(made: Cloud, backend: AwsBackend) -> None:
    sizes: list[int] = []

    def weigh(params: Any, **_: Any) -> None:
        sizes.append(sum(len(entry["MessageBody"]) for entry in params["Entries"]))

    made.clients.sqs.meta.events.register("before-parameter-build.sqs.SendMessageBatch", weigh, unique_id="weigh")
    backend.send([task(seq=seq, payload=noise(190_000)) for seq in range(1, 13)])
    made.clients.sqs.meta.events.unregister("before-parameter-build.sqs.SendMessageBatch", unique_id="weigh")
    assert len(sizes) == 3
    assert max(sizes) <= 1024 * 1024
    assert len(drained(made, backend)) == 12


def test_a_message_over_200_kb_travels_by_reference(made: Cloud, backend: AwsBackend) -> None:
    big = task(payload=noise(300_000))
    backend.send([big])
    assert made.meter.bill.requests == {"s3.PutObject": 1, "sqs.SendMessageBatch": 1}
    assert sum(made.meter.bill.queue_units.values()) == 1
    assert drained(made, backend) == [big.message]


def test_characters_that_sqs_refuses_arrive(made: Cloud, backend: AwsBackend) -> None:
    odd = Outgoing(EventMessage(run=RUN, event=ActivityCompleted(seq=1, result='"\ufffe\uffff\\u0000\x7f☃"')))
    backend.send([odd])
    assert "\uffff" not in received(made, made.settings.events_queue)[0]["Body"]
    made.clock.advance(600_000)
    assert drained(made, backend) == [odd.message]


# --- refused entries -----------------------------------------------------------------------------------


class PartOfBatch:
    """Lets SQS refuse the entries of some messages in the next answers."""

    def __init__(self, made: Cloud, codes: dict[str, tuple[str, bool]], *, answers: int) -> None:
        self.codes, self.answers = codes, answers
        self.events: Any = made.clients.sqs.meta.events

    def __enter__(self) -> None:
        self.events.register("after-call.sqs.SendMessageBatch", self.refuse)
        self.events.register("before-parameter-build.sqs.SendMessageBatch", self.remember)

    def __exit__(self, *_: object) -> None:
        self.events.unregister("after-call.sqs.SendMessageBatch", self.refuse)
        self.events.unregister("before-parameter-build.sqs.SendMessageBatch", self.remember)

    def remember(self, params: Any, context: Any, **_: Any) -> None:
        context["ids"] = {entry["Id"]: json.loads(entry["MessageBody"])["id"] for entry in params["Entries"]}

    def refuse(self, parsed: Any, context: Any, **_: Any) -> None:
        if not self.answers:
            return
        self.answers -= 1
        for entry in parsed["Successful"].copy():
            code, sender_fault = self.codes.get(context["ids"][entry["Id"]], ("", False))
            if code:
                parsed["Successful"].remove(entry)
                failed = {"Id": entry["Id"], "Code": code, "SenderFault": sender_fault, "Message": "as planned"}
                parsed.setdefault("Failed", []).append(failed)


def test_entries_that_sqs_did_not_take_are_sent_again_alone(made: Cloud, backend: AwsBackend) -> None:
    messages = [task(seq=seq) for seq in range(1, 6)]
    refused = {task(seq=seq).message.id: ("InternalError", False) for seq in (2, 4)}
    with PartOfBatch(made, refused, answers=2):
        backend.send(messages)
    assert made.meter.bill.requests["sqs.SendMessageBatch"] == 3
    assert made.meter.bill.messages == 5 + 2 + 2


def test_entries_that_sqs_never_takes_are_told_and_the_others_are_sent(made: Cloud, backend: AwsBackend) -> None:
    with (
        PartOfBatch(made, {task(seq=2).message.id: ("InternalError", False)}, answers=99),
        pytest.raises(StorageError, match=r"task\.2\.1 in 5 attempts"),
    ):
        backend.send([task(seq=1), task(seq=2), completed()])
    assert len(made.slept) == 4
    assert 0.5 < sum(made.slept) < 2
    ids = {message.id for message in drained(made, backend)}
    assert {task(seq=1).message.id, completed().message.id} <= ids


def test_a_message_that_sqs_can_never_take_becomes_the_activitys_failure(made: Cloud, backend: AwsBackend) -> None:
    with PartOfBatch(made, {task(seq=2).message.id: ("InvalidMessageContents", True)}, answers=1):
        backend.send([task(seq=1), task(seq=2, attempt=1)])
    (failed,) = [message for message in drained(made, backend) if isinstance(message, EventMessage)]
    assert isinstance(failed.event, ActivityFailed)
    assert (failed.event.seq, failed.event.attempt, failed.event.failure.non_retryable) == (2, 1, True)
    assert "InvalidMessageContents" in failed.event.failure.message


def test_a_deleted_queue_becomes_the_activitys_failure_and_the_others_are_sent(
    made: Cloud, backend: AwsBackend
) -> None:
    made.clients.sqs.delete_queue(QueueUrl=made.settings.activity_queues["other"])
    first = task(seq=1).message
    assert isinstance(first, ActivityTask)
    backend.send([Outgoing(dataclasses.replace(first, name="other")), task(seq=2)])
    events = received(made, made.settings.events_queue)
    assert [json.loads(found["Body"])["id"] for found in events] == [f"{RUN.gen}.1.failed.1.1"]
    assert len(received(made, made.settings.activity_queues["act"])) == 1


def test_an_activity_without_a_queue_fails_and_says_what_to_do(made: Cloud, backend: AwsBackend) -> None:
    message = task(attempt=2).message
    assert isinstance(message, ActivityTask)
    backend.send([Outgoing(dataclasses.replace(message, name="forgotten"), LATER)])
    (failed,) = drained(made, backend)
    assert isinstance(failed, EventMessage)
    assert isinstance(failed.event, ActivityFailed)
    assert (failed.event.seq, failed.event.attempt) == (1, 2)
    assert "DURABLY_ACTIVITY_QUEUES" in failed.event.failure.message


@pytest.mark.parametrize("too_large", [task, completed], ids=["input", "result"])
def test_a_payload_of_ten_megabytes_becomes_the_activitys_failure(
    made: Cloud, backend: AwsBackend, too_large: Any
) -> None:
    message = too_large().message
    payload = f'"{"x" * 10_000_000}"'
    if isinstance(message, ActivityTask):
        message = dataclasses.replace(message, input=payload)
    else:
        message = EventMessage(run=RUN, event=ActivityCompleted(seq=1, result=payload))
    backend.send([Outgoing(message)])
    (failed,) = drained(made, backend)
    assert isinstance(failed, EventMessage)
    assert isinstance(failed.event, ActivityFailed)
    assert failed.event.failure.type.endswith("PayloadError")
    assert made.meter.bill.requests["s3.PutObject"] == 0


@pytest.mark.parametrize("lost", ["events_queue", "delay_queue"])
def test_a_queue_that_all_need_is_the_operators_matter(made: Cloud, backend: AwsBackend, lost: str) -> None:
    made.clients.sqs.delete_queue(QueueUrl=getattr(made.settings, lost))
    with pytest.raises(StorageError, match="DURABLY_"):
        backend.send([wake() if lost == "events_queue" else deadline(SOON)])
    assert made.meter.bill.messages == 1  # no failure event instead


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"due_ms": "soon"}',
        '{"due_ms": 0, "message": {}}',
        '{"due_ms": 0, "gen": "G", "ref": "x"}',
    ],
)
def test_what_is_no_message_of_ours_is_called_so(backend: AwsBackend, body: str) -> None:
    with pytest.raises(StorageError):
        backend.open_envelope(body)


def test_every_group_of_characters_fits_sqs() -> None:
    group = keys.message_group(wake(run_key("A._:/@=+-z")).message)
    assert group == "A._:/@=+-z"


@contextmanager
def at_once(client: Any, operation: str, count: int, *, of: Callable[[Any], bool]) -> Iterator[None]:
    """Requests get through `count` at a time, or not at all."""
    barrier = Barrier(count)

    def meet(params: Any, **_: Any) -> None:
        if of(params):
            barrier.wait(timeout=30)

    event = f"before-parameter-build.{operation}"
    client.meta.events.register(event, meet, unique_id="meet")
    try:
        yield
    finally:
        client.meta.events.unregister(event, unique_id="meet")


def test_large_bodies_are_stored_several_at_once(made: Cloud, backend: AwsBackend) -> None:
    with at_once(made.clients.s3, "s3.PutObject", 4, of=lambda _: True):
        backend.send([task(seq=seq, payload=noise(210_000)) for seq in range(1, 13)])
    assert len(drained(made, backend)) == 12


def test_items_are_cancelled_several_at_once(made: Cloud, backend: AwsBackend) -> None:
    cancel = tuple(ActivityKey(RUN, seq) for seq in range(1, 9))
    items = {keys.item_key(key)[1] for key in cancel}
    with at_once(made.clients.dynamodb, "dynamodb.PutItem", 4, of=lambda params: params["Item"]["sk"]["S"] in items):
        backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=cancel)])
    assert [item.state for item in backend.read_items(RUN)] == ["cancelled"] * 8


def test_an_item_that_cannot_be_cancelled_leaves_its_turn_unacknowledged_and_no_other(
    made: Cloud, backend: AwsBackend
) -> None:
    other = run_key("other", OTHER_GEN)
    unlucky = TurnCommit(run=RUN, turn=turn(1), cancel=(ActivityKey(RUN, 1),), acknowledge=("unlucky",))
    lucky = TurnCommit(run=other, turn=turn(1), cancel=(ActivityKey(other, 1),), acknowledge=("lucky",))

    def refuse(params: Any, **_: Any) -> None:
        if params["Item"]["sk"]["S"] == keys.item_key(ActivityKey(RUN, 1))[1] and RUN.gen in params["Item"]["pk"]["S"]:
            raise EndpointConnectionError(endpoint_url="https://dynamodb")

    made.clients.dynamodb.meta.events.register("before-parameter-build.dynamodb.PutItem", refuse, unique_id="refuse")
    try:
        with pytest.raises(StorageError):
            backend.commit([unlucky, lucky])
    finally:
        made.clients.dynamodb.meta.events.unregister("before-parameter-build.dynamodb.PutItem", unique_id="refuse")
    assert backend.acknowledged == {"lucky"}


def test_more_than_a_hundred_schedules_at_once_are_left_to_the_delay_queue(made: Cloud, backend: AwsBackend) -> None:
    far = [completed(seq=seq, due_ms=LATER) for seq in range(1, 102)]
    backend.send([*far, completed(seq=200, due_ms=SOON)])
    assert "scheduler.CreateSchedule" not in made.meter.bill.requests
    due = [json.loads(found["Body"])["due_ms"] for found in received(made, made.settings.delay_queue)]
    assert due == [LATER] * len(far)


def test_a_message_that_is_kept_is_not_sent(made: Cloud, backend: AwsBackend) -> None:
    kept: list[Outgoing] = []

    def keeps(outgoing: Outgoing) -> bool:
        if isinstance(outgoing.message, ActivityTask):
            kept.append(outgoing)
        return isinstance(outgoing.message, ActivityTask)

    keeping = backend.keeping(keeps)
    keeping.send([task(seq=1)])
    keeping.commit([TurnCommit(run=RUN, turn=turn(1), send=(task(seq=2), completed()), acknowledge=("receipt",))])
    keeping.commit([TurnCommit(run=RUN, turn=turn(1, nonce="another"), send=(task(seq=3),))])  # which loses
    assert kept == [task(seq=1), task(seq=2)]
    assert backend.acknowledged == {"receipt"}
    assert drained(made, backend) == [completed().message]
