"""Sources of triggers as `durably template` writes them: what arrives from outside starts an execution."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tests.cloud.stack import Stack, eventually, request


def result(stack: Stack, execution_id: str) -> object:
    """What an execution came to that somebody else starts."""

    def is_there() -> bool:
        return request("GET", f"{stack.url}/executions/{execution_id}").status == 200

    eventually(is_there, what=f"the start of {execution_id}")
    return stack.result(execution_id)


def test_a_message_of_a_topic_starts_an_execution(stories: Stack) -> None:
    stories.client("sns").publish(TopicArn=stories.deployment.parameters["AnnouncedTopic"], Message="hello")
    assert result(stories, "announced") == "hello"


def test_an_event_of_a_bus_starts_an_execution_if_it_is_one_that_is_wanted(stories: Stack) -> None:
    kinds = [("shopping", "OrderPlaced"), ("shop.eu", "OrderLost"), ("shop.eu", "OrderPlaced")]
    entries = [
        {"Source": source, "DetailType": kind, "Detail": json.dumps({"order": number})}
        for number, (source, kind) in enumerate(kinds)
    ]
    stories.client("events").put_events(Entries=entries)
    assert result(stories, "placed-2") == "shop.eu"
    assert [request("GET", f"{stories.url}/executions/placed-{number}").status for number in (0, 1)] == [404, 404]


def test_a_message_of_a_queue_starts_an_execution(stories: Stack) -> None:
    sqs = stories.client("sqs")
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName="arrivals-inbox")["QueueUrl"], MessageBody="hello")
    assert result(stories, "queued") == "hello"


def test_an_instant_of_a_schedule_starts_an_execution(stories: Stack) -> None:
    scheduler = stories.client("scheduler")
    (found,) = (each for each in scheduler.list_schedules()["Schedules"] if each["Name"] == "nightly")
    schedule = scheduler.get_schedule(GroupName=found["GroupName"], Name="nightly")
    kept = {name: schedule[name] for name in ("GroupName", "Name", "Target", "FlexibleTimeWindow")}
    now = f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})"
    scheduler.update_schedule(**kept, ScheduleExpression=now, ScheduleExpressionTimezone="UTC")
    assert result(stories, "cleaned-up") == "nightly"
