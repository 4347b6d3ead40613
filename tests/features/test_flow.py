"""Side work, many items, and the first of several."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durably import (
    ActivityError,
    Callback,
    Context,
    ExecutionFailedError,
    RetryPolicy,
    Signal,
    activity,
    attempt_info,
    callback_activity,
    orchestrator,
)
from tests.features.places import Place

GO = Signal[int]("go")
HOUR = timedelta(hours=1)
ONCE = RetryPolicy(max_attempts=1)


@activity
def double(number: int) -> int:
    return 2 * number


@activity(retry=ONCE)
def fussy(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@callback_activity
def ask(callback: Callback[int], number: int) -> None: ...


# --- local activities ------------------------------------------------------------------------------------------------


def test_a_local_activity_runs_beside_the_turn_and_is_recorded_like_any_other(place: Place) -> None:
    ran: list[int] = []

    @activity(local=True, retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
    def look_up(number: int) -> int:
        ran.append(number)
        if number == 2 and attempt_info().attempt == 1:
            raise OSError("not yet")
        return 10 * number

    @orchestrator
    async def mixed(ctx: Context) -> list[int]:
        first = await look_up(1)
        return [first, *await asyncio.gather(look_up(2), double(3)), await ctx.receive(GO)]

    client = place.deploy(mixed, look_up, double)
    client.start("x", mixed)
    place.settle()
    client = place.deploy(mixed, look_up, double)
    client.signal("x", GO, 4)
    assert place.result("x") == [10, 20, 6, 4]
    assert ran == [1, 2, 2]
    assert place.kinds("x").count("ActivityCompleted") == 3


# --- map -------------------------------------------------------------------------------------------------------------


def test_results_of_a_map_stand_in_the_order_of_its_items(place: Place) -> None:
    @orchestrator
    async def squares(ctx: Context, count: int) -> list[int]:
        return await ctx.map(double, range(count), concurrency=4)

    client = place.deploy(squares, double)
    client.start("x", squares, 12)
    assert place.result("x") == [2 * number for number in range(12)]


def test_at_most_so_many_items_are_worked_on_at_a_time(place: Place) -> None:
    @orchestrator
    async def bounded(ctx: Context) -> list[int]:
        return await ctx.map(ask, range(5), concurrency=2)

    client = place.deploy(bounded, ask)
    client.start("x", bounded)
    for number in range(1, 6):
        place.settle()
        assert len(client.describe("x").activities) == min(2, 6 - number)
        client.complete_activity("x", number, 10 * number)
    assert place.result("x") == [10, 20, 30, 40, 50]


def test_tolerated_failures_stand_among_the_results(place: Place) -> None:
    @orchestrator
    async def tolerant(ctx: Context, items: list[int], tolerated: float) -> list[str]:
        found = await ctx.map(fussy, items, concurrency=2, tolerated_failures=tolerated)
        return [type(each).__name__ for each in found]

    client = place.deploy(tolerant, fussy)
    client.start("x", tolerant, [0, 1, 2, 4], 0.25)
    assert place.result("x") == ["int", "ActivityError", "int", "int"]
    client.start("y", tolerant, [0, 1, 2, 3], 0.25)
    with pytest.raises(ExecutionFailedError, match="2 of 4 items failed") as caught:
        place.result("y")
    assert [member.type.rpartition(".")[2] for member in caught.value.failure.members] == ["ActivityError"] * 2


def test_children_are_mapped_over_like_activities(place: Place) -> None:
    @orchestrator
    async def child(ctx: Context, number: int) -> int:
        return await double(number)

    @orchestrator
    async def parent(ctx: Context) -> list[int]:
        return await ctx.map(child, [1, 2, 3], concurrency=2)

    client = place.deploy(parent, child, double)
    client.start("x", parent)
    assert place.result("x") == [2, 4, 6]


# --- race ------------------------------------------------------------------------------------------------------------


@orchestrator
async def either(ctx: Context) -> int:
    return await ctx.race(ask(1), ask(2), asyncio.sleep(1800, 0))


def test_the_first_result_wins_and_losers_are_cancelled(place: Place) -> None:
    client = place.deploy(either, ask)
    client.start("x", either)
    place.settle()
    client.complete_activity("x", 2, 7)
    assert place.result("x") == 7
    assert "ActivityCancelRequested" in place.kinds("x")


def test_a_timer_may_win_a_race(place: Place) -> None:
    @orchestrator
    async def deadline(ctx: Context) -> int:
        first = await either.fn(ctx)
        return first + await ctx.receive(GO)

    client = place.deploy(deadline, ask)
    client.start("x", deadline)
    place.advance(HOUR)
    assert client.heartbeat_activity("x", 1)  # nobody waits for it any more
    client.signal("x", GO, 5)
    assert place.result("x") == 5


def test_the_failure_of_the_first_is_the_races(place: Place) -> None:
    @orchestrator
    async def unlucky(ctx: Context) -> str:
        try:
            return str(await ctx.race(fussy(1), ask(2)))
        except ActivityError as error:
            return error.failure.message

    client = place.deploy(unlucky, fussy, ask)
    client.start("x", unlucky)
    assert place.result("x") == "1 is odd"
