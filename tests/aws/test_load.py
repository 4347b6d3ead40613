"""One execution under thousands of messages: nothing is lost, and the others hardly notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import pytest
from moto.sqs.models import SQSBackend, sqs_backends

from durably.adapters.aws.bodies import Reference
from durably.adapters.aws.envelopes import seal
from durably.core.events import ActivityCompleted, ActivityScheduled, SignalReceived
from durably.core.keys import RunKey
from durably.ports.messages import EventMessage, Outgoing
from tests.aws import programs
from tests.aws.driver import Cloud, deployed
from tests.aws.payloads import ACCOUNT, ACTIVITIES, EVENTS, REGION

pytestmark = pytest.mark.slow
WIDTH = 40
COPIES = 5  # of each completion
STRAYS = 1_800  # answers that nobody asked for
SIGNALS = 10_000


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    programs.reset()
    # moto counts all messages several times for each one that it hands out, to learn how long they are retained
    monkeypatch.setattr(SQSBackend, "is_message_valid_based_on_retention_period", lambda *_: True)
    with deployed(programs.ORCHESTRATORS, programs.ACTIVITIES, local=[programs.near]) as cloud:
        yield cloud


def answers_recorded(cloud: Cloud, run: RunKey) -> Counter[int]:
    return Counter(
        event.seq
        for turn in cloud.backend.load_turns(run)
        for event in turn.inbound
        if isinstance(event, ActivityCompleted)
    )


def flood(cloud: Cloud, run: RunKey, seqs: list[int]) -> int:
    """Send each activity's completion several times, and strays, in an order of chance."""
    asked = [
        EventMessage(run=run, event=ActivityCompleted(seq=seq, result=str(2 * n), attempt=attempt))
        for n, seq in enumerate(seqs)
        for attempt in range(1, COPIES + 1)  # of other attempts, so that SQS does not take them for copies
    ]
    strays = [
        EventMessage(run=run, event=ActivityCompleted(seq=100_000 + n, result="0", attempt=1)) for n in range(STRAYS)
    ]
    messages = [*asked, *strays]
    Random(1).shuffle(messages)
    queue_all(cloud, messages)
    return len(messages)


def queue_all(cloud: Cloud, messages: Sequence[EventMessage]) -> None:
    """Put messages of one execution on the queue of events, without the time that moto takes for each."""
    cloud.backend.send([Outgoing(messages[0])])
    queue = sqs_backends[ACCOUNT][REGION].queues[EVENTS]  # moto counts the whole queue for each message that it takes
    for index, message in enumerate(messages[1:]):
        another = deepcopy(queue._messages[0])
        another.id, another.deduplication_id = f"flood-{index}", message.id
        another.body = seal(Outgoing(message), _no_body)
        queue._messages.append(another)


def _no_body(gen: str, raw: bytes) -> Reference:
    raise AssertionError("these messages are small")


def test_thousands_of_messages_to_one_execution_lose_nothing_and_hold_up_no_other(cloud: Cloud) -> None:
    cloud.client.start("crowded", programs.fan_out, WIDTH)
    cloud.poll(EVENTS)
    run = cloud.run_of("crowded")
    seqs = [
        event.seq
        for turn in cloud.backend.load_turns(run)
        for event in turn.outbound
        if isinstance(event, ActivityScheduled)
    ]
    cloud.sqs.purge_queue(QueueUrl=cloud.url(ACTIVITIES))  # only the flood answers
    assert flood(cloud, run, seqs) == WIDTH * COPIES + STRAYS

    others = [f"other-{n}" for n in range(3)]
    for n, execution_id in enumerate(others):
        cloud.client.start(execution_id, programs.pipeline, n)
    rounds = 0
    while not cloud.closed(*others):
        rounds += 1
        crowd = cloud.receive(EVENTS)  # one function holds the group; another gets what is behind it
        assert {record["attributes"]["MessageGroupId"] for record in crowd} == {"crowded"}
        cloud.poll(EVENTS)
        while cloud.poll(ACTIVITIES):  # there are as many of these functions as tasks
            pass
        cloud.deliver(EVENTS, crowd)
    assert rounds == 4  # a turn for the start, and one for each of three activities: as without the crowd
    assert cloud.size(EVENTS) > WIDTH * COPIES + STRAYS - 10 * (rounds + 1)

    assert cloud.result("crowded") == 2 * sum(range(WIDTH))
    cloud.run()
    assert answers_recorded(cloud, run) == Counter(dict.fromkeys(seqs, 1))
    assert not cloud.size(EVENTS)
    assert not cloud.size("events-dead.fifo")


def test_ten_thousand_signals_lose_nothing_and_hold_up_no_other(cloud: Cloud) -> None:
    """A tenth of them twice, with others beside them, across runs of a thousand signals each."""
    cloud.client.start("crowded", programs.tally, SIGNALS)
    cloud.poll(EVENTS)
    run = cloud.run_of("crowded")
    signals = [
        EventMessage(run=run, event=SignalReceived(name="go", payload=str(n), request_id=f"s-{n}"))
        for number in range(SIGNALS)
        for n in ((number, number - 500) if number % 10 == 0 and number >= 500 else (number,))
    ]
    queue_all(cloud, signals)

    others = [f"other-{n}" for n in range(3)]
    for n, execution_id in enumerate(others):
        cloud.client.start(execution_id, programs.pipeline, n)
    rounds = 0
    while not cloud.closed(*others):
        rounds += 1
        crowd = cloud.receive(EVENTS)
        assert {record["attributes"]["MessageGroupId"] for record in crowd} == {"crowded"}
        cloud.poll(EVENTS)
        while cloud.poll(ACTIVITIES):
            pass
        cloud.deliver(EVENTS, crowd)
    assert rounds == 4

    assert cloud.result("crowded") == sum(range(SIGNALS))
    cloud.run()
    record = cloud.backend.read_record("crowded")
    assert record is not None
    assert record.run == 1 + SIGNALS // programs.SIGNALS_A_RUN
    assert not cloud.size(EVENTS)
    assert not cloud.size("events-dead.fifo")


def test_an_id_that_is_purged_again_and_again_under_load_keeps_only_its_last_life(cloud: Cloud) -> None:
    """Its tasks are in flight, its messages on the queues, its processes still at work."""
    late: list[dict[str, Any]] = []
    lives: list[RunKey] = []
    for _ in range(6):
        cloud.client.start("x-1", programs.fan_out, 10)
        cloud.poll(EVENTS)
        lives.append(cloud.run_of("x-1"))
        for _ in range(5):
            late += cloud.receive(ACTIVITIES, limit=1)
        cloud.client.terminate("x-1")
        cloud.run(until=lambda: cloud.closed("x-1"))
        cloud.client.purge("x-1")

    cloud.client.start("x-1", programs.fan_out, 10)
    for record in [*late, *late]:
        cloud.deliver(ACTIVITIES, [record])
    assert cloud.result("x-1") == 2 * sum(range(10))
    cloud.run()
    assert set(answers_recorded(cloud, cloud.run_of("x-1")).values()) == {1}
    assert all(cloud.backend.load_turns(run) == [] for run in lives)
    assert [record.gen for record in cloud.client.list()] == [cloud.run_of("x-1").gen]
    assert not any(cloud.size(queue) for queue in (EVENTS, ACTIVITIES))


def test_an_id_that_starts_again_and_again_hears_nothing_of_the_messages_in_flight(cloud: Cloud) -> None:
    again = programs.fan_out.options(id_reuse="allow_if_closed")
    late: list[dict[str, Any]] = []
    gens: list[str] = []
    for _ in range(8):
        cloud.client.start("x-1", again, 10)
        cloud.poll(EVENTS)
        gens.append(cloud.run_of("x-1").gen)
        for _ in range(5):
            late += cloud.receive(ACTIVITIES, limit=1)  # in flight while their execution ends
        cloud.client.terminate("x-1")
        cloud.run(until=lambda: cloud.closed("x-1"))

    cloud.client.start("x-1", again, 10)
    for record in [*late, *late]:  # each once more than SQS promises
        cloud.deliver(ACTIVITIES, [record])
    assert cloud.result("x-1") == 2 * sum(range(10))
    cloud.run()
    assert len(set(gens)) == 8
    recorded = answers_recorded(cloud, cloud.run_of("x-1"))
    assert len(recorded) == 10
    assert set(recorded.values()) == {1}
    assert cloud.run_of("x-1").gen not in gens
