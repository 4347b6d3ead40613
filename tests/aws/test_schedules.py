"""Schedules on AWS: the same orchestrator, its timers in the delay queue and in EventBridge Scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from durably import Context, orchestrator
from durably.schedules import Cron, Every, Schedules, scheduled_for
from tests.aws.driver import Cloud, deployed


@orchestrator
async def report(ctx: Context, kind: str) -> str:
    instant = scheduled_for(ctx)
    return f"{kind} {None if instant is None else instant.minute}"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with deployed([report], []) as cloud:
        yield cloud


def finished(cloud: Cloud) -> list[str]:
    return [record.execution_id for record in cloud.client.list(orchestrator="report", status="completed")]


@pytest.mark.parametrize("when", [Every(timedelta(minutes=10)), Cron("5/20 * * * *", "Europe/Berlin")])
def test_a_schedule_starts_executions_that_its_users_function_runs(cloud: Cloud, when: Every | Cron) -> None:
    schedules = Schedules(cloud.client)
    schedules.create("s", when, report, "hourly")
    cloud.run(until=lambda: len(finished(cloud)) == 3)
    assert schedules.describe("s").progress.started >= 3
    results = {id_: cloud.client.wait(id_) for id_ in finished(cloud)}
    assert results == {id_: f"hourly {int(id_.split(':')[1])}" for id_ in results}
    schedules.delete("s")
    cloud.run()
    assert not list(schedules.list())


def test_a_redelivered_timer_starts_nothing_twice(cloud: Cloud) -> None:
    schedules = Schedules(cloud.client)
    schedules.create("s", Every(timedelta(minutes=10)), report, "x")
    cloud.run(until=lambda: len(finished(cloud)) == 1)
    cloud.restart()
    cloud.run(until=lambda: len(finished(cloud)) == 2)
    assert schedules.describe("s").progress.started == 2
