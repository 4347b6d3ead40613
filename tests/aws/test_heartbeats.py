"""Heartbeats through the handlers: what they cost, who is given up, who is told to stop, and answers by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    ActivityCancelledError,
    Callback,
    Context,
    RetryPolicy,
    activity,
    attempt_info,
    callback_activity,
    heartbeat,
    orchestrator,
)
from durably.core.errors import ActivityError
from tests.aws import programs
from tests.aws.driver import Cloud, Crash, deployed
from tests.aws.payloads import ACTIVITIES, EVENTS
from tests.aws.programs import calls, seen

AT_ONCE = RetryPolicy(max_attempts=2, initial_interval=timedelta(0))
LAST = RetryPolicy(max_attempts=1)
script: list[Callable[[], None]] = []  # what happens within an attempt


@activity(retry=AT_ONCE, heartbeat_timeout=timedelta(seconds=20))
def scripted() -> Any:
    calls["scripted"] += 1
    if script:
        script.pop(0)()
    return attempt_info().heartbeat_details


@callback_activity(retry=AT_ONCE, heartbeat_timeout=timedelta(seconds=20))
def wonder(callback: Callback[int]) -> None:
    seen[f"wonder/{attempt_info().attempt}"] = callback.url


@callback_activity(retry=LAST)
def trust(callback: Callback[int]) -> None:
    seen["trust"] = callback.url


@orchestrator
async def working(ctx: Context, name: str) -> Any:
    try:
        return await {"scripted": scripted, "wonder": wonder, "trust": trust}[name]()
    except ActivityError as error:
        return [error.attempt, error.failure.message]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    programs.reset()
    script.clear()
    with deployed([working], [scripted, wonder, trust]) as cloud:
        yield cloud


def asked(cloud: Cloud, name: str) -> str:
    """The address of a callback that is awaited."""
    cloud.client.start("x", working, name)
    cloud.run(until=lambda: any(key.startswith(name) for key in seen))
    return next(url for key, url in seen.items() if key.startswith(name))


def wait(cloud: Cloud, seconds: int) -> None:
    """Let time pass, and what comes with it."""
    for _ in range(seconds):
        cloud.clock.advance(1)
        while cloud.step():
            pass


# --- activities ------------------------------------------------------------------------------------------------------


def test_a_stored_heartbeat_is_one_write_and_one_read(cloud: Cloud) -> None:
    def beats() -> None:
        for n in range(100):
            heartbeat(n)
        cloud.clock.advance(5)
        heartbeat("last")

    script.append(beats)
    cloud.client.start("x", working, "scripted")
    assert cloud.result("x") is None
    made = [operation for function, operation in cloud.calls if function == "activities"]
    assert made.count("dynamodb.PutItem") == 4  # it begins, beats twice, ends
    assert made.count("dynamodb.GetItem") == 4  # its record and item; the record at each beat


def test_an_attempt_whose_process_died_is_followed_as_soon_as_it_is_silent_for_too_long(cloud: Cloud) -> None:
    def die() -> None:
        heartbeat({"done": 3})
        raise Crash

    script.append(die)
    started_ms = cloud.clock.ms
    cloud.client.start("x", working, "scripted")
    assert cloud.result("x") == {"done": 3}
    assert cloud.clock.ms - started_ms < 30_000  # the task itself would have returned after a minute
    cloud.run()
    assert calls["scripted"] == 2


def test_a_terminated_executions_activity_is_told_to_stop(cloud: Cloud) -> None:
    told: list[str] = []

    def stop() -> None:
        cloud.client.terminate("x")
        cloud.poll(EVENTS)
        try:
            heartbeat()
        except ActivityCancelledError as error:
            told.append(str(error))
            raise

    script.append(stop)
    cloud.client.start("x", working, "scripted")
    cloud.run()
    assert cloud.status("x") == "terminated"
    assert told == ["Execution x has ended."]
    assert calls["scripted"] == 1


def test_a_heartbeat_timeout_of_hours_is_checked_too() -> None:
    long = scripted.options(heartbeat_timeout=timedelta(hours=2))

    @orchestrator
    async def patient(ctx: Context) -> Any:
        return await long()

    def die() -> None:
        heartbeat("half")
        raise Crash

    programs.reset()
    script[:] = [die]
    with deployed([patient], [scripted]) as cloud:
        cloud.client.start("x", patient)
        cloud.poll(EVENTS)
        cloud.poll(ACTIVITIES)
        assert len(cloud.schedules()) == 1
        cloud.sqs.purge_queue(QueueUrl=cloud.url(ACTIVITIES))  # the task will never come back by itself
        started_ms = cloud.clock.ms
        assert cloud.result("x") == "half"
        assert 7_200_000 <= cloud.clock.ms - started_ms < 7_260_000


# --- callback activities ---------------------------------------------------------------------------------------------


def test_heartbeats_over_http_keep_a_callback_alive_until_they_stop(cloud: Cloud) -> None:
    url = asked(cloud, "wonder")
    for n in range(5):
        wait(cloud, 15)
        status, answer = cloud.call_back(f"{url}/heartbeat", n)
        assert (status, answer) == (200, {"message": "The heartbeat is recorded.", "cancelled": False})
    cloud.run(until=lambda: "wonder/2" in seen)
    assert cloud.call_back(f"{url}/heartbeat", 1)[0] == 410
    assert cloud.call_back(seen["wonder/2"], 7)[0] == 200
    assert cloud.result("x") == 7


def test_a_heartbeat_over_http_is_told_to_stop(cloud: Cloud) -> None:
    url = asked(cloud, "wonder")
    cloud.client.terminate("x")
    cloud.run(until=lambda: cloud.closed("x"))
    status, answer = cloud.call_back(f"{url}/heartbeat", "")
    assert (status, answer["cancelled"]) == (200, True)


@pytest.mark.parametrize(
    ("body", "status"), [("{", 400), ("NaN", 400), ('"\\ud800"', 400), ('"' + "x" * 70_000 + '"', 413), ("", 200)]
)
def test_a_heartbeat_over_http_is_refused_as_any_body_is(cloud: Cloud, body: str, status: int) -> None:
    url = asked(cloud, "wonder")
    assert cloud.call_back(f"{url}/heartbeat", body)[0] == status
    assert cloud.call_back(f"{url[:-1]}/heartbeat", body)[0] in (400, 401, 413)
    assert cloud.call_back(url, 7)[0] == 200
    assert cloud.result("x") == 7


# --- by number -----------------------------------------------------------------------------------------------------


def manage(cloud: Cloud, activity: object, action: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    return cloud.http("api", "POST", f"/executions/x/activities/{activity}/{action}", body)


def test_an_activity_is_completed_by_its_number(cloud: Cloud) -> None:
    asked(cloud, "trust")
    assert manage(cloud, 1, "heartbeat", {"done": 1}) == (
        200,
        {"message": "The heartbeat is recorded.", "cancelled": False},
    )
    assert [manage(cloud, 1, "complete", each)[0] for each in (7, 7, 8)] == [200, 200, 409]
    assert cloud.result("x") == 7
    assert [manage(cloud, 1, "complete", each)[0] for each in (7, 8)] == [200, 409]


def test_an_activity_fails_by_its_idempotency_key(cloud: Cloud) -> None:
    asked(cloud, "trust")
    gen = cloud.run_of("x").gen
    assert manage(cloud, f"{gen}.1.1", "fail", {"type": "shop.Closed", "message": "for good"})[0] == 200
    assert cloud.result("x") == [1, "for good"]


def test_what_cannot_be_completed_is_refused(cloud: Cloud) -> None:
    assert manage(cloud, 1, "complete", 7)[0] == 404
    asked(cloud, "trust")
    for wrong in (0, 2, "x", "1.1.1", "9" * 30, "%20", "1%2F2"):
        status, answer = manage(cloud, wrong, "complete", 7)
        assert (status, "awaits no callback" in answer["message"]) == (404, True)
    assert manage(cloud, 1, "complete", "{")[0] == 400
    assert manage(cloud, 1, "fail", [1])[0] == 400
    assert manage(cloud, 1, "fail", {"surprise": 1})[0] == 400
    assert manage(cloud, 1, "heartbeat", '"' + "x" * 70_000 + '"')[0] == 413
    cloud.client.terminate("x")
    cloud.run(until=lambda: cloud.closed("x"))
    assert manage(cloud, 1, "complete", 7)[0] == 410
    assert manage(cloud, 1, "heartbeat")[1]["cancelled"] is True
