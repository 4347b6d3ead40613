"""Signals, updates, queries, children and runs through the real handlers on moto."""

from __future__ import annotations

from tests.aws import programs
from tests.aws.driver import MAPPINGS, Cloud
from tests.aws.programs import GO, TOTAL, calls


def test_signals_arrive_once_in_their_order_across_runs(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.relay, 4)
    for n in (1, 2, 3):
        cloud.client.signal("x-1", GO, n, request_id=f"s-{n}")
        cloud.client.signal("x-1", GO, n, request_id=f"s-{n}")
    cloud.run()
    assert cloud.client.query("x-1", TOTAL) == 6
    record = cloud.backend.read_record("x-1")
    assert record is not None
    assert (record.run, record.custom_status) == (4, "6")
    cloud.client.signal("x-1", GO, 4, request_id="an id of any characters: ä / ?" * 4)

    assert cloud.result("x-1") == 10
    assert calls["double"] == 4
    assert not any(cloud.size(queue) for queue in MAPPINGS)


def test_a_family_ends_as_its_parent_says(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.family, 3)

    assert cloud.result("x-1") == [8, 6]
    cloud.run()
    statuses = {record.execution_id: record.status for record in cloud.client.list(orchestrator="member")}
    assert sorted(statuses.values()) == ["cancelled", "completed", "terminated"]


def test_a_terminated_execution_is_retried_and_forked(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.run(until=lambda: calls["double"] == 1)
    cloud.client.terminate("x-1")
    cloud.run(until=lambda: cloud.closed("x-1"))
    assert cloud.client.retry("x-1") == 2
    assert cloud.result("x-1") == 8
    cloud.client.fork("x-1", "x-2", to_event=2)
    assert cloud.result("x-2") == 8
