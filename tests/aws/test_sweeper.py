"""Sweeps: whoever was accepted and never woken is found, whatever lies between; nobody is woken without need."""

from __future__ import annotations

from copy import copy

import pytest
from moto.sqs.models import sqs_backends

from durably import ExecutionFailedError
from tests.aws import programs
from tests.aws.driver import METER, Cloud
from tests.aws.payloads import ACCOUNT, EVENTS, REGION


def lose_wakes(cloud: Cloud) -> None:
    cloud.sqs.purge_queue(QueueUrl=cloud.url(EVENTS))


def sweep(cloud: Cloud) -> dict[str, int]:
    found: dict[str, int] = cloud.invoke("sweeper", {})
    return found


def test_starts_whose_wake_was_lost_are_woken_once(cloud: Cloud) -> None:
    for n in range(5):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
    lose_wakes(cloud)
    assert sweep(cloud)["woken"] == 0  # they may still be on their way
    cloud.clock.advance(301)

    assert sweep(cloud) == {"looked_at": 5, "woken": 5, "stalled": 0}
    for n in range(5):
        assert cloud.result(f"x-{n}") == 8 * n
    cloud.clock.advance(301)
    assert sweep(cloud)["woken"] == 0


def test_those_that_took_a_turn_are_left_alone(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.sleeper, 86_400.0)
    cloud.poll(EVENTS)
    cloud.clock.advance(301)

    assert sweep(cloud) == {"looked_at": 1, "woken": 0, "stalled": 0}
    cloud.clock.advance(3_600)
    assert sweep(cloud)["looked_at"] == 1  # the overlap
    cloud.clock.advance(3_600)
    assert sweep(cloud)["looked_at"] == 0


def test_a_sweep_is_bounded_and_the_next_one_goes_on(cloud: Cloud) -> None:
    for n in range(6):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
    lose_wakes(cloud)
    cloud.clock.advance(301)

    def time_flies(call: object) -> None:
        cloud.remaining_ms -= 400

    cloud.hook, cloud.remaining_ms = time_flies, 12_000
    first = sweep(cloud)
    assert 0 < first["woken"] < 6
    cloud.hook, cloud.remaining_ms = None, 10_000
    sweep(cloud)
    for n in range(6):
        assert cloud.result(f"x-{n}") == 8 * n


def test_a_backlog_explains_everything_and_nobody_is_woken(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    backlog = sqs_backends[ACCOUNT][REGION].queues[EVENTS]
    [wake] = backlog._messages
    backlog._messages += [copy(wake) for _ in range(1_000)]
    cloud.clock.advance(301)
    with METER.measured() as bill:
        assert sweep(cloud) == {"looked_at": 0, "woken": 0, "stalled": 0}
    assert bill.messages == 0


def test_an_idle_sweep_costs_next_to_nothing(cloud: Cloud) -> None:
    sweep(cloud)
    cloud.clock.advance(301)
    with METER.measured() as bill:
        sweep(cloud)
    assert bill.read_units <= 32
    assert bill.write_units == 1


def test_closed_executions_are_none_of_its_business(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.failing)
    cloud.run()
    cloud.clock.advance(301)
    assert sweep(cloud)["looked_at"] == 0
    with pytest.raises(ExecutionFailedError, match="on purpose"):
        cloud.client.wait("x-1")
