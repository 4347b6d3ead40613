"""Sweeps: whoever was accepted and never woken is found, whatever lies between; nobody is woken without need."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from moto.sqs.models import sqs_backends

from durably import ExecutionFailedError, Orchestrator
from durably.adapters.aws import keys
from durably.aws import sweeper
from durably.core.errors import StorageError
from tests.aws import programs
from tests.aws.driver import METER, Call, Cloud, Crash, deployed
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
    sweep(cloud)  # no time goes into stalled executions then
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


# --- crowds -------------------------------------------------------------------------------------------------------


def ids_of(shard: int, count: int, prefix: str) -> list[str]:
    every = (f"{prefix}-{n}" for n in range(10_000))
    return [id_ for id_ in every if keys.status_shard(id_) == shard][:count]


@pytest.mark.parametrize("apart_s", [0, 1], ids=["in the same millisecond", "one after the other"])
def test_a_crowd_that_started_together_does_not_hold_up_the_sweep(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, apart_s: int
) -> None:
    crowd = ids_of(0, 6, "crowd")
    monkeypatch.setattr(sweeper, "_MOST", len(crowd) - 1)
    for id_ in crowd:
        cloud.client.start(id_, programs.sleeper, 864_000.0)
        cloud.clock.advance(apart_s)
    while cloud.poll(EVENTS):
        pass
    cloud.clock.advance(3_600)
    for _ in range(2):
        sweep(cloud)
        cloud.clock.advance(300)
    for id_ in (*ids_of(0, 1, "lost"), *ids_of(7, 1, "lost")):
        cloud.client.start(id_, programs.pipeline, 1)
    lose_wakes(cloud)

    cloud.clock.advance(300)
    assert sum(sweep(cloud)["woken"] for _ in range(5)) >= 2


def test_what_appears_late_in_the_index_is_found_though_the_shard_took_many_sweeps(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "_MOST", 2)
    hidden, *others = ids_of(0, 7, "x")
    for id_ in (others[0], hidden, *others[1:]):
        cloud.client.start(id_, programs.pipeline, 1)
        cloud.clock.advance(1)
    lose_wakes(cloud)
    started = cloud.process.backend.started

    def lagging(*args: int, **kwargs: int) -> Any:
        return (record for record in started(*args, **kwargs) if record.execution_id != hidden)

    cloud.clock.advance(100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloud.process.backend, "started", lagging)
        for _ in range(2):
            sweep(cloud)
    assert hidden not in woken(cloud)
    for _ in range(4):
        cloud.clock.advance(50)
        sweep(cloud)
    assert hidden in woken(cloud)


def woken(cloud: Cloud) -> set[str]:
    return {body["execution"] for body in cloud.bodies(EVENTS)}


def test_a_sweep_that_times_out_is_not_in_vain(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_OFTEN", 1)
    for n in range(4):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
    lose_wakes(cloud)
    cloud.clock.advance(301)
    reads: list[str] = []

    def time_out(call: Call) -> None:
        if str(call) == "before dynamodb.GetItem":
            reads.append(str(call))
            if len(reads) == 3:  # after the progress and an execution
                reads.clear()
                raise Crash

    cloud.hook = time_out
    for _ in range(3):
        with pytest.raises(Crash):
            sweep(cloud)
    cloud.hook = None
    assert len(woken(cloud)) == 3


def test_what_was_done_before_a_refusal_is_remembered_and_the_refusal_is_an_error(cloud: Cloud) -> None:
    for n in range(3):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
        cloud.clock.advance(60)
    lose_wakes(cloud)
    cloud.clock.advance(301)
    reads: list[str] = []

    def refuse(call: Call) -> None:
        if str(call) == "before dynamodb.GetItem":
            reads.append(str(call))
            if len(reads) == 3:  # after the progress and an execution
                raise EndpointConnectionError(endpoint_url="https://dynamodb")

    cloud.hook = refuse
    with pytest.raises(StorageError, match="read what the sweeper needs"):
        sweep(cloud)
    cloud.hook = None
    assert sweep(cloud) == {"looked_at": 2, "woken": 2, "stalled": 0}


# --- stalled executions ---------------------------------------------------------------------------------------------


@pytest.fixture
def stalled() -> Iterator[Cloud]:
    """Six executions whose code was changed under them."""
    programs.reset()
    with deployed([*programs.ORCHESTRATORS, programs.before_change], programs.ACTIVITIES) as cloud:
        for n in range(6):
            cloud.client.start(f"x-{n}", programs.before_change, 1)
        cloud.poll(EVENTS)
        deploy(cloud, "v2", programs.after_change)
        cloud.run()
        assert {cloud.status(f"x-{n}") for n in range(6)} == {"stalled"}
        yield cloud


def deploy(cloud: Cloud, version: str, program: Orchestrator[..., Any]) -> None:
    cloud.orchestrators = [*programs.ORCHESTRATORS, program]
    cloud.code_version = version
    cloud.restart()
    cloud.process.backend.list_records = partial(cloud.process.backend.list_records, limit=2)  # type: ignore[method-assign]


def test_all_stalled_executions_are_woken_for_the_newest_code_though_it_changes_between_two_pages(
    stalled: Cloud,
) -> None:
    deploy(stalled, "v3", programs.after_change)  # still bad

    def time_flies(call: Call) -> None:
        stalled.remaining_ms -= 100

    stalled.clock.advance(3_600)
    stalled.hook = time_flies
    assert sweep(stalled)["stalled"] == 2  # one page takes all the time
    stalled.hook, stalled.remaining_ms = None, 10_000
    stalled.run()

    deploy(stalled, "v4", programs.before_change)  # good
    stalled.clock.advance(300)
    assert sweep(stalled)["stalled"] == 6
    stalled.run()
    assert {stalled.status(f"x-{n}") for n in range(6)} == {"completed"}
    assert sweep(stalled)["stalled"] == 0


def test_a_wake_for_newer_code_is_not_taken_for_a_copy_of_the_last_one(stalled: Cloud) -> None:
    ids: list[str] = []
    for version in ("v3", "v4"):
        deploy(stalled, version, programs.before_change)
        sweep(stalled)
        records = [record for _ in range(2) for record in stalled.receive(EVENTS)]
        ids += [record["attributes"]["MessageDeduplicationId"] for record in records]
        lose_wakes(stalled)
        stalled.clock.advance(61)
    assert len(set(ids)) == 12
