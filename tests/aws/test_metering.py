"""What a step costs: one write unit, nothing read while warm, one message there and one back."""

from __future__ import annotations

from durably.adapters.aws.metering import Bill
from tests.aws import programs
from tests.aws.driver import METER, Cloud
from tests.aws.payloads import ACTIVITIES, EVENTS

STEPS = 12


def metered(cloud: Cloud, queue: str) -> Bill:
    with METER.measured() as bill:
        assert cloud.poll(queue) == 1
    return bill


def test_a_warm_step_costs_one_write_unit_no_read_unit_and_two_messages(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1, STEPS)
    first = metered(cloud, EVENTS)
    assert (first.write_units, first.requests["dynamodb.PutItem"]) == (1, 1)
    for _ in range(STEPS - 1):
        activity = metered(cloud, ACTIVITIES)
        assert dict(activity.requests) == {"sqs.SendMessageBatch": 1}
        assert (activity.write_units, activity.read_units, activity.messages) == (0, 0, 1)
        turn = metered(cloud, EVENTS)
        assert dict(turn.requests) == {"dynamodb.PutItem": 1, "sqs.SendMessageBatch": 1}
        assert (turn.write_units, turn.read_units, turn.messages, turn.index_units) == (1, 0, 1, 0)
    metered(cloud, ACTIVITIES)
    last = metered(cloud, EVENTS)
    assert dict(last.requests) == {"dynamodb.PutItem": 1, "dynamodb.UpdateItem": 1}
    assert cloud.client.wait("x-1", 0) == 2**STEPS


def test_a_cold_turn_reads_what_its_history_demands_and_no_more(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1, STEPS)
    cloud.poll(EVENTS)
    for _ in range(STEPS - 1):
        cloud.poll(ACTIVITIES)
        cloud.poll(EVENTS)
    items = cloud.dynamodb.scan(TableName="table")["Items"]
    stored = sum(len(name) + len(next(iter(value.values()))) for item in items for name, value in item.items())
    cloud.restart()
    cloud.poll(ACTIVITIES)
    turn = metered(cloud, EVENTS)

    assert turn.requests["dynamodb.GetItem"] == turn.requests["dynamodb.Query"] == 1
    assert turn.read_units <= 1 + -(-stored // 4096)
    assert turn.write_units == 1 + 1  # the turn, and the record that closes


def test_a_retry_costs_the_orchestrator_nothing(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.mixed, 1)
    cloud.result("x-1")

    assert cloud.invocations.count("orchestrator") == 4
    assert cloud.invocations.count("activities") == 5


def test_messages_of_many_executions_share_their_requests(cloud: Cloud) -> None:
    for n in range(10):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
    with METER.measured() as bill:
        assert cloud.poll(EVENTS) == 10

    assert bill.requests["sqs.SendMessageBatch"] == 1
    assert bill.write_units == 10
