"""A poison execution hurts itself only (P6), and resumes by itself once its code is mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from durably import Orchestrator
from tests.aws import programs
from tests.aws.driver import MAX_RECEIVES, Cloud, Crash, deployed
from tests.aws.payloads import EVENTS
from tests.aws.programs import calls, deadly


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    programs.reset()
    with deployed(
        [*programs.ORCHESTRATORS, programs.before_change], programs.ACTIVITIES, local=[programs.near], turn_seconds=0.1
    ) as cloud:
        yield cloud


def start_beside_healthy_ones(cloud: Cloud) -> None:
    for n in range(4):
        cloud.client.start(f"healthy-{n}", programs.pipeline, n)


def redeploy(cloud: Cloud, version: str) -> None:
    cloud.code_version = version
    cloud.restart()
    cloud.clock.advance(300)
    cloud.invoke("sweeper", {})


def check_healthy_ones(cloud: Cloud, *, within_s: float) -> None:
    started_ms = cloud.clock.ms
    for n in range(4):
        assert cloud.result(f"healthy-{n}") == 8 * n
    assert cloud.clock.ms - started_ms <= within_s * 1000


def test_an_endless_loop_stalls_its_execution_and_delays_nobody(cloud: Cloud) -> None:
    cloud.client.start("poison", programs.endless)
    start_beside_healthy_ones(cloud)

    check_healthy_ones(cloud, within_s=5)
    cloud.run()
    described = cloud.client.describe("poison")
    assert described.status == "stalled"
    assert described.failure is not None
    assert "loops or computes for long" in described.failure.message


def test_a_process_that_dies_at_every_try_costs_its_neighbours_a_visibility_timeout_at_most(cloud: Cloud) -> None:
    deadly.add("killer")
    cloud.client.start("poison", programs.killer)
    cloud.run(until=lambda: calls["double"] == 1)  # its next turn is the deadly one
    start_beside_healthy_ones(cloud)

    check_healthy_ones(cloud, within_s=250)
    cloud.run()
    assert cloud.status("poison") == "stalled"
    assert cloud.crashes >= 2

    deadly.clear()
    cloud.invoke("sweeper", {})
    assert not cloud.size(EVENTS)  # there is no other code to try
    redeploy(cloud, "v2")
    assert cloud.result("poison") == 2


def test_a_turn_that_no_longer_ends_its_process_is_taken_at_the_next_wake_without_anybody_asking(cloud: Cloud) -> None:
    deadly.add("killer")
    cloud.client.start("poison", programs.killer)
    cloud.run(until=lambda: cloud.status("poison") == "stalled")
    stalled_ms = cloud.clock.ms
    deadly.clear()

    assert cloud.result("poison") == 2
    assert cloud.clock.ms - stalled_ms < 70_000


def test_changed_code_stalls_and_mended_code_resumes_without_anybody_asking(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.before_change, 1)
    cloud.poll(EVENTS)
    edited: list[Orchestrator[..., Any]] = [*programs.ORCHESTRATORS, programs.after_change]
    mended, cloud.orchestrators = cloud.orchestrators, edited
    redeploy(cloud, "v2")
    start_beside_healthy_ones(cloud)
    check_healthy_ones(cloud, within_s=5)
    cloud.run()
    failure = cloud.client.describe("x-1").failure
    assert failure is not None
    assert "history recorded double" in failure.message
    assert "the code now asks for triple" in failure.message

    cloud.orchestrators = mended
    redeploy(cloud, "v3")
    assert cloud.result("x-1") == 4


def test_an_activity_that_ends_its_process_at_every_try_fails_through_its_policy(cloud: Cloud) -> None:
    deadly.add("fatal")
    cloud.client.start("x-1", programs.survivor, 1)
    start_beside_healthy_ones(cloud)

    check_healthy_ones(cloud, within_s=70)
    assert cloud.result("x-1") == "durably.core.errors.AttemptLostError"
    assert calls["fatal"] == 3 * MAX_RECEIVES  # attempts times receives; receives alone are never attempts


def test_an_activity_that_recovers_goes_on_where_its_attempts_stand(cloud: Cloud) -> None:
    deadly.add("fatal")
    cloud.client.start("x-1", programs.survivor, 1)
    cloud.run(until=lambda: calls["fatal"] == 6)
    deadly.clear()

    assert cloud.result("x-1") == "2"


def test_at_most_once_is_claimed_before_it_runs(cloud: Cloud) -> None:
    deadly.add("once")
    cloud.client.start("x-1", programs.careful, 1)

    assert cloud.result("x-1") == "durably.core.errors.AttemptLostError"
    assert calls["once"] == 2  # two attempts, each run once however often it was received


def test_a_local_activity_that_ends_its_process_at_every_try_fails_through_its_policy(cloud: Cloud) -> None:
    deadly.add("near")
    cloud.client.start("x-1", programs.near_survivor, 1)
    start_beside_healthy_ones(cloud)

    check_healthy_ones(cloud, within_s=130)
    assert cloud.result("x-1") == "durably.core.errors.AttemptLostError"
    assert calls["near"] <= 3 * 2 * 4  # attempts, times the deaths of which one is learnt to be deadly
    cloud.run()
    assert not cloud.size(EVENTS)


def test_a_local_activity_that_recovers_goes_on_where_its_attempts_stand(cloud: Cloud) -> None:
    deadly.add("near")
    cloud.client.start("x-1", programs.near_survivor, 2)  # which fails at its first attempt in any case
    cloud.run(until=lambda: calls["near"] == 6)
    deadly.clear()

    assert cloud.result("x-1") == "3"


def test_a_turn_that_dies_of_the_news_that_a_local_activity_is_lost_is_noticed(cloud: Cloud) -> None:
    deadly.update({"near", "near_survivor"})
    cloud.client.start("x-1", programs.near_survivor, 1)
    cloud.run(until=lambda: cloud.status("x-1") == "stalled")

    deadly.clear()
    assert cloud.result("x-1") == "durably.core.errors.AttemptLostError"


def test_a_dead_event_comes_back_under_a_new_deduplication_id(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    for _ in range(MAX_RECEIVES):
        assert cloud.receive(EVENTS)  # by a consumer that never answers
        cloud.clock.advance(61)
    assert not cloud.receive(EVENTS)
    assert cloud.size("events-dead.fifo") == 1

    cloud.poll("events-dead.fifo")
    (record,) = cloud.receive(EVENTS)
    assert record["attributes"]["MessageDeduplicationId"] != record["attributes"]["MessageGroupId"]
    assert record["messageAttributes"]["durably-comebacks"]["stringValue"] == "1"
    cloud.clock.advance(61)
    assert cloud.result("x-1") == 8


def test_one_message_that_cannot_be_stored_does_not_hold_up_the_batch(cloud: Cloud) -> None:
    start_beside_healthy_ones(cloud)
    struck: list[str] = []

    def refuse(call: object) -> None:
        if "PutItem" in str(call) and "before" in str(call) and len(struck) < 3:
            struck.append(str(call))
            raise EndpointConnectionError(endpoint_url="https://dynamodb")

    cloud.hook = refuse
    check_healthy_ones(cloud, within_s=10)
    assert len(struck) == 3


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_done_is_deleted_before_anything_runs_that_came_before(cloud: Cloud, refused: bool) -> None:
    start_beside_healthy_ones(cloud)
    assert cloud.receive(EVENTS)  # by a process that dies
    cloud.clock.advance(61)
    left: list[int] = []

    def look(call: object) -> None:
        if str(call) == "before sqs.DeleteMessage" and refused:
            raise EndpointConnectionError(endpoint_url="https://sqs")
        if str(call) == "before dynamodb.PutItem":
            left.append(cloud.size(EVENTS))

    cloud.hook = look
    cloud.poll(EVENTS)
    assert left == ([4, 4, 4, 4] if refused else [4, 3, 2, 1])
    assert cloud.size(EVENTS) == 0
    check_healthy_ones(cloud, within_s=5)


def test_a_crash_is_no_exception_that_code_could_swallow() -> None:
    assert not issubclass(Crash, Exception)
