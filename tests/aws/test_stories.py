"""Whole executions through the real handlers: queues, table, scheduler and bucket on moto."""

from __future__ import annotations

import pytest

from durably import ExecutionFailedError
from durably.core.errors import ExecutionClosedError
from tests.aws import programs
from tests.aws.driver import MAPPINGS, Call, Cloud
from tests.aws.payloads import ACTIVITIES, EVENTS
from tests.aws.programs import calls, seen


def test_activities_sync_and_async_run_through_their_queue(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.mixed, 5)

    assert cloud.result("x-1") == [15, 10, 3]
    assert calls == {"triple": 1, "double": 1, "flaky": 3}


def test_a_retry_waits_in_the_queue_and_costs_the_orchestrator_nothing(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.mixed, 5)
    started_ms = cloud.clock.ms
    cloud.result("x-1")

    turns = cloud.backend.load_turns(cloud.run_of("x-1"))
    assert len(turns) == 5  # start, first, triple, double, flaky
    assert cloud.clock.ms - started_ms >= 6_000  # 2 s, then 4 s


def test_an_overrun_is_interrupted_and_reported_even_if_it_swallows_that(cloud: Cloud) -> None:
    for kind in ("sync", "swallows", "async"):
        cloud.client.start(kind, programs.impatient, kind)

    for kind in ("sync", "swallows", "async"):
        assert cloud.result(kind) == "durably.core.errors.ActivityTimeoutError"
    assert calls == {"oversleep": 2, "oversleep_async": 1}


@pytest.mark.parametrize("seconds", [0.5, 5, 899, 1_200, 30 * 86_400])
def test_a_timer_fires_when_it_is_due_and_not_before(cloud: Cloud, seconds: float) -> None:
    cloud.client.start("x-1", programs.sleeper, seconds)

    assert seconds <= cloud.result("x-1") <= seconds + 3
    cloud.run()
    assert not any(cloud.size(queue) for queue in MAPPINGS)


def test_a_wide_fan_out_comes_together(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.fan_out, 40)

    assert cloud.result("x-1") == 2 * sum(range(40))
    assert calls["double"] == 40


def test_a_callback_resumes_its_execution_and_its_deadline_then_changes_nothing(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.asker, "a")
    cloud.run(until=lambda: "a/1" in seen)

    assert cloud.call_back(seen["a/1"], 42) == (200, {"message": "The result is recorded."})
    assert cloud.result("x-1") == 42
    cloud.run()
    assert cloud.client.wait("x-1") == 42
    assert calls["ask"] == 1


def test_a_callback_that_never_comes_is_asked_for_again_and_then_fails(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.asker, "a")
    cloud.run(until=lambda: cloud.closed("x-1"))

    with pytest.raises(ExecutionFailedError, match="no callback arrived for attempt 2"):
        cloud.client.wait("x-1")
    assert set(seen) == {"a/1", "a/2"}
    assert cloud.call_back(seen["a/1"], 1)[0] == 410
    assert cloud.call_back(seen["a/2"], 1)[0] == 410


def test_a_callback_may_fail_its_attempt(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.asker, "a")
    cloud.run(until=lambda: "a/1" in seen)
    busy = (f"{seen['a/1']}/failure", {"type": "Busy", "message": "later"})
    assert [cloud.call_back(*busy)[0] for _ in range(2)] == [200, 200]
    cloud.run(until=lambda: "a/2" in seen)

    assert cloud.call_back(*busy)[0] == 200
    assert cloud.call_back(seen["a/1"], 1)[0] == 409  # the attempt before has another result
    assert cloud.call_back(seen["a/2"], 2)[0] == 200
    assert cloud.result("x-1") == 2


def test_local_activities_run_beside_the_turn_without_a_queue(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.neighbour, 1)
    cloud.poll(EVENTS)

    assert calls["near"] == 3
    assert cloud.invocations == ["orchestrator"]
    assert cloud.result("x-1") == 2 + 2 + 2 + 2


def test_a_local_activity_is_tried_again_through_the_queues(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.neighbour, 3)

    assert cloud.result("x-1") == 2 + 4 + 6 + 2
    assert calls["near"] == 5
    assert "timers" in cloud.invocations


def test_a_local_activity_for_which_no_time_is_left_goes_through_the_queue(cloud: Cloud) -> None:
    def time_flies(call: Call) -> None:
        cloud.remaining_ms = 1_000

    cloud.client.start("x-1", programs.neighbour, 1)
    cloud.hook = time_flies
    cloud.poll(EVENTS)
    assert calls["near"] == 0
    assert [body["id"].partition(".")[2] for body in cloud.bodies(EVENTS)] == ["1.task.1.1"]

    cloud.hook, cloud.remaining_ms = None, 10_000
    assert cloud.result("x-1") == 8


def test_termination_ends_an_execution_and_what_it_left_behind_changes_nothing(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.poll(EVENTS)
    cloud.client.terminate("x-1", "no longer needed")
    cloud.run()

    with pytest.raises(ExecutionFailedError, match="no longer needed"):
        cloud.client.wait("x-1")
    with pytest.raises(ExecutionClosedError):
        cloud.client.terminate("x-1")


def test_an_id_that_is_used_again_hears_nothing_of_its_former_life(cloud: Cloud) -> None:
    again = programs.pipeline.options(id_reuse="allow_if_closed")
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.poll(EVENTS)
    old_task = cloud.receive(ACTIVITIES)  # in flight while its execution ends
    cloud.client.terminate("x-1")
    cloud.run(until=lambda: cloud.closed("x-1"))

    cloud.client.start("x-1", again, 100)
    first_gen = cloud.client.describe("x-1").gen
    cloud.deliver(ACTIVITIES, old_task)  # its completion carries the former life's gen
    assert cloud.result("x-1") == 800
    assert cloud.client.describe("x-1").gen == first_gen


def test_executions_share_batches_and_do_not_share_their_fate(cloud: Cloud) -> None:
    for n in range(12):
        cloud.client.start(f"x-{n}", programs.pipeline, n)
    cloud.client.start("bad", programs.failing)

    for n in range(12):
        assert cloud.result(f"x-{n}") == 8 * n
    assert cloud.status("bad") == "failed"
    assert cloud.invocations.count("orchestrator") < 40  # 13 executions with 4 turns each, in batches


def test_an_execution_survives_cold_starts_between_all_turns(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.everything, "q")
    for _ in range(200):
        cloud.restart()
        if not cloud.step():
            cloud.clock.advance(1)
        if "q/1" in seen and cloud.call_back(seen["q/1"], 7)[0] == 200 and cloud.closed("x-1"):
            break
    assert cloud.client.wait("x-1") == [2, 2, 7, 2, 2]


def test_bodies_too_large_for_a_message_travel_through_the_bucket(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.asker, "q" * 300_000)
    cloud.run(until=lambda: bool(seen))

    assert cloud.call_back(next(iter(seen.values())), 5)[0] == 200
    assert cloud.result("x-1") == 5
