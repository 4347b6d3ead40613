"""What operators do: suspend, resume, retry, reset, fork, purge, start again."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from durably import (
    Context,
    ExecutionExistsError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    PayloadError,
    Query,
    RetryPolicy,
    Signal,
    activity,
    orchestrator,
)
from durably.core.errors import ClientError, NothingToRetryError
from tests.features.places import Place

GO = Signal[int]("go")
SEEN = Query[list[int]]("seen")
HOUR = timedelta(hours=1)

booked: Counter[str] = Counter()
vacant: set[str] = set()


@activity(retry=RetryPolicy(max_attempts=1))
def book(what: str) -> str:
    booked[what] += 1
    if what == "hotel" and not vacant:
        raise LookupError("no vacancy")
    return what.upper()


@orchestrator
async def travel(ctx: Context, by: str) -> list[str]:
    return [await book(by), await book("hotel"), await book("museum")]


@orchestrator
async def patient(ctx: Context) -> list[int]:
    seen: list[int] = []
    ctx.on_query(SEEN, lambda: seen)
    await asyncio.sleep(3600)
    while len(seen) < 2:
        seen.append(await ctx.receive(GO))
    return seen


@pytest.fixture(autouse=True)
def _fresh() -> None:
    booked.clear()
    vacant.clear()


def test_a_suspended_execution_keeps_its_events_and_runs_nothing(place: Place) -> None:
    client = place.deploy(patient)
    client.start("x", patient)
    place.settle()
    client.suspend("x", "the bank is closed")
    assert place.status("x") == "suspended"
    client.signal("x", GO, 1)
    place.advance(2 * HOUR)
    client.signal("x", GO, 2)
    assert place.status("x") == "suspended"
    assert client.query("x", SEEN) == []
    assert "TimerFired" in place.kinds("x")
    client.resume("x")
    assert place.result("x") == [1, 2]


def test_a_retry_runs_what_failed_again_and_nothing_that_succeeded(place: Place) -> None:
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    with pytest.raises(ExecutionFailedError, match="no vacancy"):
        place.result("x")
    vacant.add("hotel")
    assert client.retry("x") == 2
    assert place.result("x") == ["TRAIN", "HOTEL", "MUSEUM"]
    assert booked == {"train": 1, "hotel": 2, "museum": 1}
    with pytest.raises(NothingToRetryError):
        client.retry("x")


def test_what_was_cancelled_or_terminated_can_be_retried(place: Place) -> None:
    client = place.deploy(patient)
    for execution_id, end in (("x", client.cancel), ("y", client.terminate)):
        client.start(execution_id, patient)
        client.signal(execution_id, GO, 1)
        client.signal(execution_id, GO, 2)
        place.settle()
        end(execution_id, "too early")
        assert place.status(execution_id) in ("cancelled", "terminated")
        client.retry(execution_id)
        place.advance(2 * HOUR)
        assert place.result(execution_id) == [1, 2]


def test_what_was_retried_can_be_ended_again_at_once(place: Place) -> None:
    client = place.deploy(patient)
    for execution_id, end in (("x", client.cancel), ("y", client.terminate)):
        client.start(execution_id, patient)
        for _ in range(2):
            place.settle()
            end(execution_id, "not now")
            assert place.status(execution_id) in ("cancelled", "terminated")
            client.retry(execution_id)
        assert place.status(execution_id) == "running"
        assert client.describe(execution_id).run == 3


def test_a_reset_goes_back_to_an_event_in_a_new_run(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    assert place.kinds("x")[:5] == ["ExecutionStarted", *["ActivityScheduled", "ActivityCompleted"] * 2]
    assert client.reset("x", to_event=3) == 2  # the train is booked
    assert place.result("x") == ["TRAIN", "HOTEL", "MUSEUM"]
    assert booked == {"train": 1, "hotel": 2, "museum": 2}
    with pytest.raises(ClientError, match="no applied event 99"):
        client.reset("x", to_event=99)


def test_a_reset_to_the_start_may_have_another_input(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    place.settle()
    assert client.reset("x", to_event=1, input_='{"by": "boat"}') == 2
    assert place.result("x") == ["BOAT", "HOTEL", "MUSEUM"]
    with pytest.raises(ClientError, match="use event 1"):
        client.reset("x", to_event=3, input_='{"by": "boat"}')
    with pytest.raises(PayloadError):
        client.reset("x", to_event=1, input_='{"by": 7}')


def test_what_an_operator_repeats_under_its_request_id_happens_once(place: Place) -> None:
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    place.settle()
    vacant.add("hotel")
    for _ in range(2):
        assert client.retry("x", request_id="again") == 2
        assert place.status("x") == "completed"
    for _ in range(2):
        assert client.reset("x", to_event=1, request_id="back") == 3
        client.fork("x", "y", request_id="other")
        place.settle()
    assert place.result("y") == ["TRAIN", "HOTEL", "MUSEUM"]


def test_a_reset_keeps_the_signals_that_came_later(place: Place) -> None:
    client = place.deploy(patient)
    client.start("x", patient)
    place.advance(2 * HOUR)
    client.signal("x", GO, 1)
    place.settle()
    client.reset("x", to_event=1)
    place.advance(2 * HOUR)
    client.signal("x", GO, 2)
    assert place.result("x") == [1, 2]


def test_a_fork_goes_its_own_way_from_an_event(place: Place) -> None:
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    assert place.status("x") == "failed"
    vacant.add("hotel")
    client.fork("x", "y", to_event=3)
    assert place.result("y") == ["TRAIN", "HOTEL", "MUSEUM"]
    assert booked["train"] == 1
    assert place.status("x") == "failed"
    with pytest.raises(ExecutionExistsError):
        client.fork("x", "y")


def test_a_fork_may_begin_at_any_event(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    for number in range(1, len(place.kinds("x")) + 1):
        client.fork("x", f"y-{number}", to_event=number)
        assert place.result(f"y-{number}") == ["TRAIN", "HOTEL", "MUSEUM"]
    assert booked == {"train": 3, "hotel": 5, "museum": 7}


def test_a_fork_from_the_start_may_have_another_input(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    place.settle()
    client.fork("x", "y", input_='{"by": "boat"}')
    assert place.result("y") == ["BOAT", "HOTEL", "MUSEUM"]
    assert place.result("x") == ["TRAIN", "HOTEL", "MUSEUM"]
    with pytest.raises(ClientError, match="use event 1"):
        client.fork("x", "z", to_event=3, input_='{"by": "boat"}')


def test_an_id_lives_again_only_where_that_is_said(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    for reuse in (travel, travel.options(id_reuse="allow_if_closed")):
        with pytest.raises(ExecutionExistsError):
            client.start("x", reuse, "boat")
    client.start("x", travel.options(id_reuse="use_existing"), "boat")
    assert place.result("x") == ["TRAIN", "HOTEL", "MUSEUM"]
    client.start("x", travel.options(id_reuse="allow_if_closed"), "boat")
    assert place.result("x") == ["BOAT", "HOTEL", "MUSEUM"]


def test_a_start_sent_again_under_its_request_id_starts_once(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    for _ in range(2):
        client.start("x", travel.options(request_id="mine"), "train")
        place.settle()
    assert booked == {"train": 1, "hotel": 1, "museum": 1}


def test_what_is_purged_is_gone_and_its_id_is_free(place: Place) -> None:
    vacant.add("hotel")
    client = place.deploy(travel, book)
    client.start("x", travel, "train")
    with pytest.raises(ClientError, match="erminate it first"):
        client.purge("x")
    place.settle()
    client.purge("x")
    with pytest.raises(ExecutionNotFoundError, match="It was purged"):
        client.describe("x")
    assert [record.execution_id for record in client.list()] == []
    client.start("x", travel.options(id_reuse="allow_if_closed"), "boat")
    assert place.result("x") == ["BOAT", "HOTEL", "MUSEUM"]
