"""Turns that ask for so much that carrying it out one by one would outlast the function, and start over for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from durably import Context, RetryPolicy, activity, orchestrator
from durably.core.events import ActivityFailed
from durably.core.failures import failure_of
from durably.ports.messages import EventMessage, Outgoing
from tests.aws import programs
from tests.aws.driver import Call, Cloud, Crash, deployed
from tests.aws.payloads import DELAY, EVENTS
from tests.aws.programs import double

pytestmark = pytest.mark.slow
TIMEOUT_MS = 10_000
PARALLEL = 16  # requests under way at once; that they are is tested beside the adapter
LATENCY_MS = {  # about what the services take
    "dynamodb.PutItem": 4,
    "dynamodb.Query": 10,
    "s3.PutObject": 30,
    "scheduler.CreateSchedule": 40,
    "scheduler.DeleteSchedule": 40,
    "sqs.SendMessageBatch": 10,
}


@activity(retry=RetryPolicy(max_attempts=1))
def breaks(n: int) -> int:
    raise AssertionError("the test answers for it")


@activity
def size(text: str, n: int) -> int:
    return len(text)


@orchestrator
async def many_far_timers(ctx: Context, count: int) -> None:
    await asyncio.gather(*(asyncio.sleep(3_600 + n) for n in range(count)))


@orchestrator
async def group_that_breaks(ctx: Context, width: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(breaks(1))
        for n in range(width):
            tasks.create_task(double(n))


@orchestrator
async def large_inputs(ctx: Context, count: int) -> int:
    return sum(await asyncio.gather(*(size("x" * 220_000, n) for n in range(count))))


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    programs.reset()
    with deployed([many_far_timers, group_that_breaks, large_inputs], [double, breaks, size]) as cloud:
        yield cloud


class Timeout:
    """Ends an invocation of the orchestrator's function whose requests would have taken longer than it may."""

    def __init__(self, cloud: Cloud) -> None:
        self.ended = 0
        self._cloud = cloud
        self._invocation = -1
        self._used_ms = 0.0

    def __call__(self, call: Call) -> None:
        if call.function != "orchestrator" or call.moment != "before":
            return
        if len(self._cloud.invocations) != self._invocation:
            self._invocation, self._used_ms = len(self._cloud.invocations), 0.0
        self._used_ms += LATENCY_MS.get(call.operation, 5) / PARALLEL
        if self._used_ms > TIMEOUT_MS:
            self.ended += 1
            raise Crash


def take_turns(cloud: Cloud) -> Timeout:
    """A few deliveries of what waits for the orchestrator's function."""
    timeout = Timeout(cloud)
    cloud.hook = timeout
    for _ in range(3):
        cloud.poll(EVENTS)
        cloud.clock.advance(61)
    cloud.hook = None
    assert cloud.size(EVENTS) == 0
    return timeout


def test_thousands_of_far_timers_are_started_by_those_who_serve_the_delay_queue(cloud: Cloud) -> None:
    cloud.client.start("x-1", many_far_timers, 4_500)
    assert take_turns(cloud).ended == 0
    assert (cloud.size(DELAY), cloud.schedules()) == (4_500, [])
    cloud.poll(DELAY)
    assert len(cloud.schedules()) == 10


def test_a_hundred_far_timers_go_to_the_scheduler_at_once(cloud: Cloud) -> None:
    cloud.client.start("x-1", many_far_timers, 100)
    take_turns(cloud)
    assert cloud.size(DELAY) == 0
    assert len(scheduled(cloud)) == 100


def scheduled(cloud: Cloud) -> list[Any]:
    pages = cloud.scheduler.get_paginator("list_schedules").paginate(GroupName="schedules")
    return [schedule for page in pages for schedule in page["Schedules"]]


def test_a_group_of_thousands_is_cancelled(cloud: Cloud) -> None:
    cloud.client.start("x-1", group_that_breaks, 3_000)
    cloud.poll(EVENTS)
    run = cloud.run_of("x-1")
    broken = ActivityFailed(seq=1, failure=failure_of(ValueError("no")))
    cloud.backend.send([Outgoing(EventMessage(run=run, event=broken))])

    assert take_turns(cloud).ended == 0
    assert cloud.status("x-1") == "failed"
    items = cloud.backend.read_items(run)
    assert {item.state for item in items} == {"cancelled"}
    assert len(items) == 999  # those that were sent, but for the one that broke


def test_hundreds_of_large_inputs_are_sent(cloud: Cloud) -> None:
    cloud.client.start("x-1", large_inputs, 400)
    assert take_turns(cloud).ended == 0
    assert cloud.size("activities") == 400
