"""Attempts where the services refuse, or deliver twice: what was done is not done again, nor taken for lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from botocore.exceptions import EndpointConnectionError

from durably import Context, RetryPolicy, activity, orchestrator
from durably.core.errors import ActivityError
from tests.aws import programs
from tests.aws.driver import Call, Cloud, deployed
from tests.aws.payloads import ACTIVITIES, EVENTS
from tests.aws.programs import calls

LAST = RetryPolicy(max_attempts=1)


@activity(retry=LAST)
def single(n: int) -> int:
    calls["single"] += 1
    return n + 1


@activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
def stumbling(n: int) -> int:
    calls["stumbling"] += 1
    if calls["stumbling"] == 1:
        raise OSError("once")
    return n + 1


@activity(at_most_once=True, retry=LAST)
def unique(n: int) -> int:
    calls["unique"] += 1
    return n + 1


@orchestrator
async def calling(ctx: Context, name: str) -> int | str:
    try:
        return await {"single": single, "stumbling": stumbling, "unique": unique}[name](1)
    except ActivityError as error:
        return error.failure.type


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    programs.reset()
    with deployed([calling], [single, stumbling, unique]) as cloud:
        yield cloud


def begin_outage(cloud: Cloud, *, seconds: float, at_call: int) -> None:
    """Nothing answers the activities' function, once an activity was called so often."""
    ends_ms: list[int] = []

    def refuse(call: Call) -> None:
        if call.function == "activities" and call.moment == "before" and calls.total() >= at_call:
            if not ends_ms:
                ends_ms.append(cloud.clock.ms + round(seconds * 1000))
            if cloud.clock.ms < ends_ms[0]:
                raise EndpointConnectionError(endpoint_url=f"https://{call.operation}")

    cloud.hook = refuse


@pytest.mark.parametrize(("name", "times"), [("single", 1), ("stumbling", 2), ("unique", 1)])
def test_what_an_attempt_did_is_not_done_again_because_it_could_not_be_told_at_once(
    cloud: Cloud, name: str, times: int
) -> None:
    begin_outage(cloud, seconds=20, at_call=1)
    cloud.client.start("x", calling, name)
    assert cloud.result("x") == 2
    assert calls[name] == times


@pytest.mark.parametrize("name", ["single", "stumbling"])
def test_ten_minutes_of_outage_fail_no_activity(cloud: Cloud, name: str) -> None:
    begin_outage(cloud, seconds=600, at_call=0)
    cloud.client.start("x", calling, name)
    assert cloud.result("x") == 2


def test_no_more_time_is_spent_on_telling_than_there_is(cloud: Cloud) -> None:
    begin_outage(cloud, seconds=20, at_call=1)
    cloud.client.start("x", calling, "single")
    cloud.poll(EVENTS)
    cloud.remaining_ms = 1_100  # all but a tenth of a second is kept back for the end
    before_ms = cloud.clock.ms
    cloud.poll(ACTIVITIES)
    assert calls["single"] == 1
    assert cloud.clock.ms - before_ms < 1_000
    assert cloud.size(ACTIVITIES) == 1


def test_a_second_delivery_of_a_running_at_most_once_attempt_leaves_it_alone_and_comes_back(cloud: Cloud) -> None:
    cloud.client.start("x", calling, "unique")
    cloud.poll(EVENTS)
    (record,) = cloud.receive(ACTIVITIES)
    copy = {**record, "messageId": "copy"}
    answers: list[list[str]] = []

    def deliver_copy(call: Call) -> None:
        if str(call) == "after dynamodb.PutItem":  # the attempt is claimed
            cloud.hook = None
            answers.append(cloud.deliver(ACTIVITIES, [copy]))

    cloud.hook = deliver_copy
    cloud.deliver(ACTIVITIES, [record])
    assert answers == [["copy"]]
    assert cloud.result("x") == 2
    assert cloud.deliver(ACTIVITIES, [copy]) == []  # there is nothing left to do
    assert calls["unique"] == 1
