"""Sagas: what was done is undone, in reverse, whatever ended it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durably import (
    Callback,
    Context,
    ExecutionCancelledError,
    ExecutionFailedError,
    RetryPolicy,
    Signal,
    activity,
    callback_activity,
    orchestrator,
)
from durably.core.events import ActivityScheduled
from tests.features.places import Place

PAID = Signal[int]("paid")
ONCE = RetryPolicy(max_attempts=1)

done: list[str] = []


@activity(retry=ONCE)
def book(what: str) -> None:
    if what == "flight":
        raise LookupError("no flight")
    done.append(what)


@activity(retry=ONCE)
def cancel(what: str) -> None:
    if what == "insurance":
        raise PermissionError("it cannot be cancelled")
    done.append(f"no {what}")


@orchestrator
async def cancel_by_child(ctx: Context, what: str) -> None:
    await cancel(what)


@orchestrator
async def trip(ctx: Context, what: list[str], parallel: bool = False) -> int:
    async with ctx.saga(parallel=parallel) as saga:
        saga.compensate(cancel_by_child, "car")
        await book("car")
        for each in what:
            saga.compensate(cancel, each)
            await book(each)
        return await ctx.receive(PAID)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    done.clear()


def test_what_reaches_its_end_is_not_undone(place: Place) -> None:
    client = place.deploy(trip, cancel_by_child, book, cancel)
    client.start("x", trip, ["hotel"])
    client.signal("x", PAID, 7)
    assert place.result("x") == 7
    assert done == ["car", "hotel"]


def test_compensations_run_in_reverse_and_the_error_goes_on(place: Place) -> None:
    client = place.deploy(trip, cancel_by_child, book, cancel)
    client.start("x", trip, ["hotel", "flight"])
    with pytest.raises(ExecutionFailedError, match="no flight"):
        place.result("x")
    assert done == ["car", "hotel", "no flight", "no hotel", "no car"]


def test_compensations_run_also_after_a_cancellation(place: Place) -> None:
    client = place.deploy(trip, cancel_by_child, book, cancel)
    client.start("x", trip, ["hotel"])
    place.settle()
    with place.asleep() as outside:
        outside.cancel("x", "no holidays")
        outside.cancel("x", "really")  # which interrupts nothing
    with pytest.raises(ExecutionCancelledError, match="no holidays"):
        place.result("x")
    assert done == ["car", "hotel", "no hotel", "no car"]


def test_a_compensation_that_fails_is_recorded_and_the_rest_still_run(place: Place) -> None:
    client = place.deploy(trip, cancel_by_child, book, cancel)
    client.start("x", trip, ["hotel", "insurance", "flight"])
    with pytest.raises(ExecutionFailedError) as caught:
        place.result("x")
    assert done == ["car", "hotel", "insurance", "no flight", "no hotel", "no car"]
    failure = caught.value.failure
    assert failure.type.endswith("SagaCompensationError")
    assert "it cannot be cancelled" in str(failure.members[0])
    assert "no flight" in str(failure.cause)
    assert place.kinds("x").count("ActivityFailed") == 2


def test_compensations_may_run_at_once(place: Place) -> None:
    client = place.deploy(trip, cancel_by_child, book, cancel)
    client.start("x", trip, ["hotel", "flight"], parallel=True)
    assert place.status("x") == "failed"
    assert sorted(done[2:]) == ["no car", "no flight", "no hotel"]
    events = [entry.event for entry in client.history("x")]
    causes = {one.cause for one in events if isinstance(one, ActivityScheduled) and one.name == "cancel"}
    assert len(causes) == 1


@callback_activity
def ask(callback: Callback[None], what: str) -> None:
    done.append(f"asked to cancel {what}")


def test_compensations_are_durable(place: Place) -> None:
    @orchestrator
    async def lasting(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.compensate(ask, "hotel")
            await book("hotel")
            await book("flight")

    client = place.deploy(lasting, book, ask)
    client.start("x", lasting)
    place.settle()
    client = place.deploy(lasting, book, ask)  # whatever process is there goes on
    place.advance(timedelta(days=1))
    assert done == ["hotel", "asked to cancel hotel"]
    assert place.status("x") == "running"
    client.complete_activity("x", 3, None)
    assert place.status("x") == "failed"
