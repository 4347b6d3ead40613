"""Sources of triggers as `durably template` writes them: what arrives from outside starts an execution."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.cloud.stack import Stack, eventually, request


def told(stack: Stack, orchestrator: str) -> list[Any]:
    """What the executions of an orchestrator said, once there is one, and all have completed."""

    def look() -> list[Any] | None:
        answer = request("GET", f"{stack.url}/executions?orchestrator={orchestrator}")
        assert answer.status == 200, answer
        found = answer.body["executions"]
        done = all(each["status"] == "completed" for each in found)
        return [each["custom_status"] for each in found] if done else None

    found = eventually(look, what=f"the end of {orchestrator}")
    assert found is not None
    return found


def test_a_message_of_a_topic_starts_an_execution(stories: Stack) -> None:
    topic = stories.deployment.parameters["IsAnnouncedTopic"]
    stories.client("sns").publish(TopicArn=topic, Message="hello")
    assert told(stories, "is_announced") == ["hello"]


def test_an_event_of_a_bus_starts_an_execution_if_it_is_one_that_is_wanted(stories: Stack) -> None:
    kinds = [("shop.eu", "OrderPlaced", "1"), ("shop.eu", "OrderLost", "2"), ("shopping", "OrderPlaced", "3")]
    entries = [
        {"Source": source, "DetailType": kind, "Detail": json.dumps({"order_id": id_})} for source, kind, id_ in kinds
    ]
    stories.client("events").put_events(Entries=entries)
    assert told(stories, "is_placed") == ["1"]


def test_a_message_of_a_queue_starts_an_execution(stories: Stack) -> None:
    sqs = stories.client("sqs")
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName="arrivals-inbox")["QueueUrl"], MessageBody="hello")
    assert told(stories, "is_queued") == ["hello"]


def test_an_instant_of_a_schedule_starts_an_execution(stories: Stack) -> None:
    scheduler = stories.client("scheduler")
    (found,) = (each for each in scheduler.list_schedules()["Schedules"] if each["Name"] == "nightly")
    schedule = scheduler.get_schedule(GroupName=found["GroupName"], Name="nightly")
    kept = {name: schedule[name] for name in ("GroupName", "Name", "Target", "FlexibleTimeWindow")}
    now = f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})"
    scheduler.update_schedule(**kept, ScheduleExpression=now, ScheduleExpressionTimezone="UTC")
    assert told(stories, "is_cleaned_up") == ["nightly"]
