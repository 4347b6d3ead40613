from __future__ import annotations

import random
import string
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cloud.stack import Stack, eventually, request


def completed(stack: Stack, execution_id: str) -> Counter[int]:
    """How often each activity's result is recorded, by seq."""
    events = stack.history(execution_id)
    return Counter(event["attributes"]["seq"] for event in events if event["event"] == "ActivityCompleted")


def test_steps_follow_each_other(stories: Stack) -> None:
    stories.start("sums", "sums", count=10)
    assert stories.result("sums") == 55


def test_an_activity_that_fails_is_tried_again(stories: Stack) -> None:
    stories.start("persists", "persists", value=5)
    assert stories.result("persists") == 5


def test_an_activity_that_takes_too_long_times_out(stories: Stack) -> None:
    stories.start("runs_out_of_time", "late")
    assert "Timeout" in stories.result("late")


def test_a_callback_that_does_not_come_times_out_and_then_comes_too_late(stories: Stack, marks: Path) -> None:
    stories.start("waits_in_vain", "in-vain", marks=str(marks))
    assert "Timeout" in stories.result("in-vain")
    assert request("POST", (marks / "url").read_text(), 1, signed=False).status == 410


def test_a_callback_that_comes_takes_its_deadline_along(stories: Stack, marks: Path) -> None:
    scheduler, group = stories.client("scheduler"), stories.outputs["ScheduleGroup"]

    def deadlines() -> int:
        return len(scheduler.list_schedules(GroupName=group)["Schedules"])

    stories.start("waits_for_hours", "for-hours", marks=str(marks))
    eventually((marks / "url").exists, what="the callback's address")
    assert deadlines() == 1
    url = (marks / "url").read_text()
    assert request("POST", url, "no number", signed=False).status == 400
    assert request("POST", url, 12, signed=False).status == 200
    assert stories.result("for-hours") == 12
    assert deadlines() == 0


def test_payloads_too_large_for_their_place_travel_by_reference(stories: Stack) -> None:
    text = "".join(random.Random(1).choices(string.ascii_letters, k=700_000))  # compression does not save it
    stories.start("carries", "large", text=text)
    assert stories.result("large") == 1_400_000
    again = {"orchestrator": "carries", "execution_id": "large", "input": {"text": text}}
    assert request("POST", f"{stories.url}/executions", again).status == 409


def test_a_short_timer_fires_when_it_is_due(stories: Stack) -> None:
    stories.start("naps", "nap", seconds=2.0)
    assert 2.0 <= stories.result("nap") < 30.0


def test_a_timer_beyond_the_delay_queue_becomes_a_schedule_that_leaves_the_rest_to_it(stories: Stack) -> None:
    stories.start("naps", "long-nap", seconds=905.0)
    scheduler, group = stories.client("scheduler"), stories.outputs["ScheduleGroup"]
    names = eventually(lambda: [each["Name"] for each in scheduler.list_schedules(GroupName=group)["Schedules"]])
    assert len(names) == 1
    schedule = scheduler.get_schedule(GroupName=group, Name=names[0])
    assert schedule["ActionAfterCompletion"] == "DELETE"
    time.sleep(5)
    # fire now what would in 13 minutes
    now = f"at({datetime.now(UTC):%Y-%m-%dT%H:%M:%S})"
    kept = {
        name: schedule[name] for name in ("GroupName", "Name", "Target", "FlexibleTimeWindow", "ActionAfterCompletion")
    }
    scheduler.update_schedule(**kept, ScheduleExpression=now, ScheduleExpressionTimezone="UTC")
    eventually(lambda: not scheduler.list_schedules(GroupName=group)["Schedules"], what="the schedule to fire")
    eventually(lambda: stories.waiting("DelayQueue", "Delayed"), what="the rest of the timer")
    assert stories.show("long-nap")["status"] == "running"


def test_a_function_killed_in_mid_activity_costs_delay_only(stories: Stack, marks: Path) -> None:
    stories.start("works", "works", marks=str(marks), seconds=3.0)
    eventually(lambda: list(marks.iterdir()), what="the activity to begin")
    assert stories.kill("StepsActivities") > 0
    assert stories.result("works") == 2
    assert completed(stories, "works") == {1: 1}


def test_a_function_killed_in_mid_turn_costs_delay_only(stories: Stack, marks: Path) -> None:
    stories.start("ponders", "ponders", marks=str(marks))
    eventually(lambda: list(marks.iterdir()), what="the turn to begin")
    assert stories.kill("RoutingOrchestrator") > 0
    assert stories.result("ponders") == 7
    assert completed(stories, "ponders") == {1: 1}


def test_functions_killed_all_the_time_lose_and_repeat_nothing(stories: Stack) -> None:
    for number in range(5):
        stories.start("sums", f"killed-{number}", count=8)
    for function in ("RoutingOrchestrator", "StepsActivities", "RoutingOrchestrator"):
        time.sleep(1.5)
        stories.kill(function)
    for number in range(5):
        assert stories.result(f"killed-{number}", within=180) == 36
        assert set(completed(stories, f"killed-{number}").values()) == {1}


def test_an_endless_loop_stalls_itself_and_nobody_else(stories: Stack) -> None:
    stories.start("spins", "spins")
    for number in range(3):
        stories.start("sums", f"beside-spins-{number}", count=3)
    for number in range(3):
        assert stories.result(f"beside-spins-{number}", within=180) == 6
    assert stories.stalled("spins")["failure"] is not None
    stories.terminate("spins")


def test_a_process_that_dies_at_every_try_stalls_and_harms_nobody_for_long(stories: Stack) -> None:
    stories.start("kills", "kills")
    for number in range(3):
        stories.start("sums", f"beside-kills-{number}", count=3)
    assert stories.stalled("kills", within=180)["failure"] is not None
    for number in range(3):
        assert stories.result(f"beside-kills-{number}", within=180) == 6
    stories.terminate("kills")


def test_what_dead_letters_comes_back_as_a_failure(stories: Stack) -> None:
    sqs, queue = stories.client("sqs"), stories.queue("FragileActivitiesQueue")
    redrive = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    sooner = {"VisibilityTimeout": "2", "RedrivePolicy": redrive.replace('"maxReceiveCount":20', '"maxReceiveCount":2')}
    assert sooner["RedrivePolicy"] != redrive
    sqs.set_queue_attributes(QueueUrl=queue, Attributes=sooner)
    stories.start("loses", "loses")
    assert stories.result("loses") != "nothing"


@pytest.mark.parametrize("count", [1000])
def test_a_thousand_activities_fan_out_and_in(stories: Stack, count: int) -> None:
    stories.start("fans_out", "fans-out", count=count)
    assert stories.result("fans-out", within=400) == count * (count + 1) // 2
    assert completed(stories, "fans-out") == dict.fromkeys(range(1, count + 1), 1)
