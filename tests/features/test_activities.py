"""Activities that take long: heartbeats with details, and completion from outside by token or by number."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durably import (
    ActivityError,
    ActivityNotAwaitedError,
    Callback,
    Context,
    ExecutionClosedError,
    RetryPolicy,
    activity,
    attempt_info,
    callback_activity,
    heartbeat,
    last_heartbeat,
    orchestrator,
)
from tests.features.places import Place

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=timedelta(0), jitter=False)
MINUTE = timedelta(minutes=1)

callbacks: list[Callback[int]] = []
keys: list[str] = []
details: list[object] = []


@callback_activity(retry=AT_ONCE)
def ask(callback: Callback[int]) -> None:
    callbacks.append(callback)
    keys.append(attempt_info().idempotency_key)
    details.append(attempt_info().heartbeat_details)


@orchestrator
async def asker(ctx: Context) -> int:
    return await ask.options(timeout=timedelta(hours=1))()


@orchestrator
async def watched(ctx: Context) -> int:
    return await ask.options(heartbeat_timeout=10 * MINUTE)()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    callbacks.clear()
    keys.clear()
    details.clear()


# --- retries ---------------------------------------------------------------------------------------------------------


def test_what_fails_is_tried_again_as_its_policy_says(place: Place) -> None:
    attempts: list[int] = []

    @activity(retry=RetryPolicy(max_attempts=3, initial_interval=10 * MINUTE, jitter=False))
    def flaky(succeeds_at: int) -> int:
        attempts.append(attempt_info().attempt)
        if attempts[-1] < succeeds_at:
            raise OSError(f"attempt {attempts[-1]} failed")
        return attempts[-1]

    @orchestrator
    async def persistent(ctx: Context, succeeds_at: int) -> str:
        try:
            return str(await flaky(succeeds_at))
        except ActivityError as error:
            return f"{error.matches(OSError)}: {error.failure.message}"

    client = place.deploy(persistent, flaky)
    for succeeds_at, expected in ((3, "3"), (9, "True: attempt 3 failed")):
        attempts.clear()
        client.start(f"x-{succeeds_at}", persistent, succeeds_at)
        place.settle()
        assert attempts == [1]
        [pending] = client.describe(f"x-{succeeds_at}").activities
        assert (pending.attempt, str(pending.last_failure)) == (2, "OSError: attempt 1 failed")
        place.advance(11 * MINUTE)
        assert attempts == [1, 2]
        place.advance(21 * MINUTE)
        assert place.result(f"x-{succeeds_at}") == expected


# --- heartbeats ------------------------------------------------------------------------------------------------------


def test_the_details_of_a_heartbeat_are_handed_to_the_next_attempt(place: Place) -> None:
    @activity(retry=AT_ONCE, heartbeat_timeout=MINUTE)
    def copy(files: int) -> list[int]:
        done = last_heartbeat(list[int]) or []
        for number in range(len(done), files):
            done.append(number)
            heartbeat(done, details_type=list[int])
            if number == attempt_info().attempt < 3:
                raise OSError("the disk is gone")
        return [attempt_info().attempt, *done]

    @orchestrator
    async def backup(ctx: Context) -> list[int]:
        return await copy(4)

    client = place.deploy(backup, copy)
    client.start("x", backup)
    place.advance(MINUTE)
    assert place.result("x") == [3, 0, 1, 2, 3]


def test_an_attempt_whose_heart_stops_is_given_up(place: Place) -> None:
    client = place.deploy(watched, ask)
    client.start("x", watched)
    for _ in range(3):
        place.advance(6 * MINUTE)
        assert not client.heartbeat_activity("x", 1, {"page": len(callbacks)})
    assert details == [None]
    place.advance(12 * MINUTE)
    assert details == [None, {"page": 1}]
    assert callbacks[0].token != callbacks[1].token
    assert place.post(callbacks[1].url, 7) == 200
    assert place.result("x") == 7


# --- completion from outside -----------------------------------------------------------------------------------------


def test_a_task_token_completes_an_activity_over_http(place: Place) -> None:
    client = place.deploy(asker, ask)
    client.start("x", asker)
    place.settle()
    [callback] = callbacks
    assert place.post(callback.url, "seven") == 400
    assert place.post(callback.url, 7) == 200
    assert place.result("x") == 7


def test_late_and_repeated_callbacks_are_answered_truly(place: Place) -> None:
    client = place.deploy(asker, ask)
    client.start("x", asker)
    place.settle()
    [callback] = callbacks
    forged = callback.url[:-4] + ("AAAA" if callback.url[-4:] != "AAAA" else "BBBB")
    assert place.post(forged, 7) == 401
    assert [place.post(callback.url, answer) for answer in (7, 7, 8)] == [200, 200, 409]
    assert place.result("x") == 7
    assert [place.post(callback.url, answer) for answer in (7, 8)] == [200, 409]


def test_a_failure_over_http_leads_to_another_attempt_with_a_token_of_its_own(place: Place) -> None:
    client = place.deploy(asker, ask)
    client.start("x", asker)
    place.settle()
    assert place.post(f"{callbacks[0].url}/failure", {"type": "Busy", "message": "later"}) == 200
    place.settle()
    assert [callback.token == callbacks[0].token for callback in callbacks] == [True, False]
    assert place.post(callbacks[0].url, 6) in (409, 410)
    assert place.post(f"{callbacks[1].url}/heartbeat", {"page": 1}) == 200
    assert place.post(callbacks[1].url, 7) == 200
    assert place.result("x") == 7


def test_a_callback_that_does_not_come_in_time_is_tried_again(place: Place) -> None:
    client = place.deploy(asker, ask)
    client.start("x", asker)
    place.advance(timedelta(minutes=70))
    assert len(callbacks) == 2
    assert place.post(callbacks[0].url, 6) == 410
    assert place.post(callbacks[1].url, 7) == 200
    assert place.result("x") == 7


def test_the_number_of_an_activity_completes_it_without_a_token(place: Place) -> None:
    client = place.deploy(asker, ask)
    for execution_id in ("x", "y"):
        client.start(execution_id, asker)
    place.settle()
    client.complete_activity("x", 1, 7)
    client.complete_activity("x", 1, 7)
    with pytest.raises(ActivityNotAwaitedError):
        client.complete_activity("x", 1, 8)
    assert place.result("x") == 7
    client.fail_activity("y", 1, "busy")
    place.settle()
    client.complete_activity("y", keys[-1], 9)  # or the key that its attempt was given
    assert place.result("y") == 9
    with pytest.raises(ActivityNotAwaitedError):
        client.complete_activity("y", 2, 9)


def test_who_completes_what_nobody_waits_for_is_told(place: Place) -> None:
    client = place.deploy(asker, ask)
    client.start("x", asker)
    place.settle()
    client.terminate("x")
    place.settle()
    assert place.post(callbacks[0].url, 7) == 410
    with pytest.raises(ExecutionClosedError):
        client.complete_activity("x", 1, 7)
