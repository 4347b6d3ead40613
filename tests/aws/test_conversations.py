"""Signals, updates, queries, children and runs through the real handlers on moto."""

from __future__ import annotations

import pytest

from durably import ExecutionCancelledError, UpdateRejectedError
from durably.core.errors import ExecutionClosedError
from tests.aws import programs
from tests.aws.driver import MAPPINGS, Cloud
from tests.aws.programs import ADD, GO, TOTAL, calls


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


def test_an_update_is_answered_or_refused(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.account, 5)
    cloud.run()
    assert cloud.client.update("x-1", ADD, 3, request_id="u-1") == 6
    assert cloud.client.update("x-1", ADD, 3, request_id="u-1") == 6
    assert cloud.result("x-1") == 6
    with pytest.raises(ExecutionClosedError):
        cloud.client.update("x-1", ADD, 3, request_id="u-2")


def test_a_refused_update_costs_the_history_nothing(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.account, 5)
    cloud.run()
    turns = len(cloud.backend.load_turns(cloud.run_of("x-1")))
    with pytest.raises(UpdateRejectedError, match="only more is more"):
        cloud.client.update("x-1", ADD, -1)
    assert len(cloud.backend.load_turns(cloud.run_of("x-1"))) == turns


def test_a_cancelled_execution_cleans_up(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.tidy, 1)
    cloud.run()
    cloud.client.cancel("x-1", "enough")
    cloud.run(until=lambda: cloud.closed("x-1"))
    with pytest.raises(ExecutionCancelledError, match="enough"):
        cloud.client.wait("x-1", 0)
    assert calls["double"] == 1


def test_a_suspended_execution_waits_and_goes_on(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.relay, 1)
    cloud.run()
    cloud.client.suspend("x-1")
    cloud.run()
    cloud.client.signal("x-1", GO, 1)
    cloud.run()
    record = cloud.backend.read_record("x-1")
    assert record is not None
    assert record.status == "suspended"
    cloud.client.resume("x-1")
    assert cloud.result("x-1") == 1


def test_a_terminated_execution_is_retried_and_forked(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.run(until=lambda: calls["double"] == 1)
    cloud.client.terminate("x-1")
    cloud.run(until=lambda: cloud.closed("x-1"))
    assert cloud.client.retry("x-1") == 2
    assert cloud.result("x-1") == 8
    cloud.client.fork("x-1", "x-2", to_event=2)
    assert cloud.result("x-2") == 8


def test_signal_with_start_starts_once(cloud: Cloud) -> None:
    for n in (1, 2):
        cloud.client.signal_with_start("x-1", GO, n, programs.relay, 2)
    assert cloud.result("x-1") == 3
