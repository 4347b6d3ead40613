"""Cancellation in asyncio's own way, with time to clean up; termination without."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durably import (
    ActivityCancelledError,
    Callback,
    Context,
    ExecutionCancelledError,
    ExecutionFailedError,
    Signal,
    activity,
    callback_activity,
    heartbeat,
    orchestrator,
)
from tests.features.places import Place

GO = Signal[int]("go")
HOUR = timedelta(hours=1)


@activity
def release(what: str) -> str:
    return f"released {what}"


@activity
def work() -> int:
    return 3


@callback_activity
def ask(callback: Callback[int]) -> None: ...


@orchestrator
async def reservation(ctx: Context) -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        ctx.set_status(await release("the table"))  # cleaning up may take its time
        raise


def test_a_cancelled_execution_cleans_up_and_is_cancelled(place: Place) -> None:
    client = place.deploy(reservation, release)
    client.start("x", reservation)
    place.settle()
    client.cancel("x", "the guest is ill")
    with pytest.raises(ExecutionCancelledError, match="the guest is ill"):
        place.result("x")
    assert client.describe("x").custom_status == '"released the table"'


def test_cancelling_twice_is_harmless(place: Place) -> None:
    client = place.deploy(reservation, release)
    client.start("x", reservation)
    place.settle()
    with place.asleep() as outside:
        outside.cancel("x", "once")
        outside.cancel("x", "twice")
    assert place.status("x") == "cancelled"
    assert place.client.describe("x").custom_status == '"released the table"'
    assert place.kinds("x").count("ActivityScheduled") == 1


def test_cancelling_before_the_first_turn_works(place: Place) -> None:
    place.deploy(reservation, release)
    with place.asleep() as outside:
        outside.start("x", reservation)
        outside.cancel("x")
    assert place.status("x") == "cancelled"
    assert place.client.describe("x").custom_status == '"released the table"'


def test_activities_timers_and_children_under_it_are_cancelled(place: Place) -> None:
    @orchestrator
    async def busy(ctx: Context) -> None:
        await asyncio.gather(ask(), asyncio.sleep(3600), reservation())

    client = place.deploy(busy, reservation, ask, release)
    client.start("x", busy)
    place.settle()
    assert not client.heartbeat_activity("x", 1)
    client.cancel("x")
    assert place.status("x") == "cancelled"
    assert place.status("x/1.3") == "cancelled"
    assert {"ActivityCancelRequested", "ChildCancelRequested"} <= set(place.kinds("x"))
    before = place.kinds("x")
    place.advance(2 * HOUR)
    assert place.kinds("x") == before


def test_a_running_activity_learns_it_at_its_next_heartbeat(place: Place) -> None:
    learned: list[str] = []

    @activity(heartbeat_timeout=timedelta(seconds=2))
    def long_work() -> None:
        heartbeat("half-way")
        place.client.cancel("x")
        place.meanwhile()
        place.tick(timedelta(seconds=1))
        try:
            heartbeat("done")
        except ActivityCancelledError as error:
            learned.append(str(error))
            raise

    @orchestrator
    async def waits(ctx: Context) -> None:
        try:
            await long_work()
        except asyncio.CancelledError:
            await ctx.receive(GO)

    client = place.deploy(waits, long_work)
    client.start("x", waits)
    place.settle()
    assert learned == ["long_work was cancelled."]
    client.signal("x", GO, 1)
    assert place.status("x") == "completed"


def test_shield_keeps_a_cancellation_away(place: Place) -> None:
    @orchestrator
    async def shielded(ctx: Context) -> int:
        inner = asyncio.ensure_future(ask())
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            return await inner

    client = place.deploy(shielded, ask)
    client.start("x", shielded)
    place.settle()
    client.cancel("x")
    place.settle()
    client.complete_activity("x", 1, 3)
    assert place.result("x") == 3


def test_a_timeout_cancels_what_it_is_around_and_nothing_else(place: Place) -> None:
    @orchestrator
    async def impatient(ctx: Context) -> str:
        try:
            async with asyncio.timeout(1800):
                await ask()
        except TimeoutError:
            return await release("the line")
        return "answered"

    client = place.deploy(impatient, ask, release)
    client.start("x", impatient)
    assert place.status("x") == "running"
    place.advance(HOUR)
    assert place.result("x") == "released the line"


def test_termination_ends_at_once_without_asking_the_code(place: Place) -> None:
    client = place.deploy(reservation, release)
    client.start("x", reservation)
    place.settle()
    client.terminate("x", "enough")
    with pytest.raises(ExecutionFailedError, match="enough"):
        place.result("x")
    assert client.describe("x").status == "terminated"
    assert "ActivityScheduled" not in place.kinds("x")
