"""Seconds in which DynamoDB takes nothing: they cost seconds, and nobody is taken for deadly or sent again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from durably import Context, orchestrator
from tests.aws import programs
from tests.aws.driver import Call, Cloud, deployed
from tests.aws.payloads import ACTIVITIES, EVENTS
from tests.aws.programs import calls


def throttled(call: Call) -> None:
    error: Any = {"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "simulated"}}
    raise ClientError(error, call.operation.partition(".")[2])


def turns_refused(cloud: Cloud, when: Callable[[], bool]) -> Callable[[Call], None]:
    """A hook that refuses writes of the orchestrator's function."""

    def hook(call: Call) -> None:
        if call.function == "orchestrator" and str(call) == "before dynamodb.PutItem" and when():
            throttled(call)

    return hook


def second_time() -> Callable[[], bool]:
    count = itertools.count(1)
    return lambda: next(count) == 2


@pytest.mark.parametrize("seconds", [2.5, 14, 34])
def test_throttling_stalls_nobody_and_is_soon_forgotten(cloud: Cloud, seconds: float) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    until_ms = cloud.clock.ms + round(seconds * 1000)
    cloud.hook = turns_refused(cloud, lambda: cloud.clock.ms < until_ms)
    statuses: set[str] = set()

    def closed() -> bool:
        statuses.add(cloud.status("x-1"))
        return cloud.closed("x-1")

    cloud.run(until=closed)
    assert cloud.client.wait("x-1", 0) == 8
    assert statuses == {"running", "completed"}
    assert cloud.clock.ms - until_ms < max(5, seconds) * 1000  # the next try is never later than twice the trouble


def test_a_neighbour_whose_turn_is_refused_makes_nobody_run_twice(cloud: Cloud) -> None:
    for n in range(4):
        cloud.client.start(f"x-{n}", programs.fan_out, 5)
    cloud.hook = turns_refused(cloud, second_time())
    cloud.poll(EVENTS)
    assert cloud.calls.count(("orchestrator", "dynamodb.PutItem")) == 4 + 1  # one was refused, and stored for itself
    assert cloud.size(ACTIVITIES) == 4 * 5
    while cloud.poll(ACTIVITIES):  # there are as many of these functions as tasks
        pass
    for n in range(4):
        assert cloud.result(f"x-{n}") == 20
    assert calls["double"] == 4 * 5


def test_a_neighbour_whose_turn_is_refused_leaves_local_activities_to_their_turn(cloud: Cloud) -> None:
    for n in range(3):
        cloud.client.start(f"x-{n}", programs.neighbour, 1)
    cloud.hook = turns_refused(cloud, second_time())
    cloud.poll(EVENTS)
    assert calls["near"] == 3 * 3  # each began, and went on, in the invocation that took its first turn
    for n in range(3):
        assert cloud.result(f"x-{n}") == 8
    assert calls["near"] == 3 * 3


@orchestrator
async def busy(ctx: Context) -> int:
    """30 ms of honest work."""
    until = time.monotonic() + 0.03
    while time.monotonic() < until:
        pass
    return 1


@orchestrator
async def loops(ctx: Context) -> None:
    while True:
        pass


@pytest.fixture
def short_of_time() -> Iterator[Cloud]:
    """A deployment whose functions are told how much time is left."""
    programs.reset()
    with deployed([busy, loops], [], turn_seconds=5.0) as cloud:
        yield cloud


def test_endless_neighbours_leave_a_healthy_execution_its_time(
    short_of_time: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = short_of_time
    for n in range(9):
        cloud.client.start(f"loops-{n}", loops)
    cloud.client.start("busy", busy)
    began = time.monotonic()
    left = property(lambda _: max(0, 6_000 - round((time.monotonic() - began) * 1000)), lambda _, value: None)
    monkeypatch.setattr(Cloud, "remaining_ms", left, raising=False)
    cloud.poll(EVENTS)
    assert cloud.status("busy") == "completed"
    assert {cloud.status(f"loops-{n}") for n in range(9)} == {"stalled"}
    assert time.monotonic() - began < 10
