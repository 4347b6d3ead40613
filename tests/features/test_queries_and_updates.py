"""Queries change nothing and are answered also afterwards; updates are refused, or answered once."""

from __future__ import annotations

import asyncio

import pytest

from durably import (
    Context,
    ExecutionClosedError,
    Query,
    QueryError,
    ReadOnlyError,
    Signal,
    Update,
    UpdateFailedError,
    UpdateRejectedError,
    activity,
    orchestrator,
)
from tests.features.places import Place

GO = Signal[int]("go")
SEEN = Query[list[int]]("seen")
ADD = Update[int, int]("add")
TAKE = Update[int, int]("take")


@activity
def add_up(total: int, number: int) -> int:
    return total + number


@orchestrator
async def guests(ctx: Context, wanted: int) -> int:
    seen: list[int] = []
    ctx.on_query(SEEN, lambda: seen)
    while len(seen) < wanted:
        seen.append(await ctx.receive(GO))
        ctx.set_status({"seen": len(seen)})
    return len(seen)


@orchestrator
async def account(ctx: Context) -> int:
    """Open until it is told to go."""
    balance = 0

    async def add(amount: int) -> int:
        nonlocal balance
        balance = await add_up(balance, amount)
        return balance

    def check(amount: int) -> None:
        if amount <= 0:
            raise ValueError("only more is more")

    def take(amount: int) -> int:
        raise ValueError(f"{amount} is too much")

    ctx.on_update(ADD, add, validate=check)
    ctx.on_update(TAKE, take)
    await ctx.receive(GO)
    return balance


# --- queries ---------------------------------------------------------------------------------------------------------


def test_a_query_is_answered_from_what_is_stored_also_of_a_closed_execution(place: Place) -> None:
    client = place.deploy(guests)
    client.start("x", guests, 2)
    client.signal("x", GO, 1)
    place.settle()
    assert client.query("x", SEEN) == [1]
    client.signal("x", GO, 2)
    assert place.status("x") == "completed"
    before = place.kinds("x")
    assert client.query("x", SEEN) == [1, 2]
    assert place.kinds("x") == before
    with pytest.raises(QueryError, match="answers no query 'unknown'; it answers: seen"):
        client.query("x", Query[int]("unknown"))


def test_a_query_is_answered_as_soon_as_the_execution_is_started(place: Place) -> None:
    place.deploy(guests)
    with place.asleep() as outside:
        outside.start("x", guests, 2)
        assert outside.query("x", SEEN) == []
        outside.signal("x", GO, 1)
    place.settle()
    assert place.client.query("x", SEEN) == [1]


def test_a_query_that_tries_to_change_anything_is_refused(place: Place) -> None:
    tries = {
        "status": lambda ctx: ctx.set_status("changed"),
        "random": lambda ctx: ctx.random.random(),
        "patch": lambda ctx: ctx.patched("new"),
        "activity": lambda ctx: asyncio.get_running_loop().create_task(add_up(1, 2)),
    }

    @orchestrator
    async def curious(ctx: Context) -> None:
        for name, change in tries.items():
            ctx.on_query(Query[str](name), lambda change=change: change(ctx))  # type: ignore[misc]
        await ctx.receive(GO)

    client = place.deploy(curious, add_up)
    client.start("x", curious)
    before = place.kinds("x")
    for name in tries:
        with pytest.raises(QueryError) as caught:
            client.query("x", Query[str](name))
        assert name == "activity" or isinstance(caught.value.__cause__, ReadOnlyError)
    assert place.kinds("x") == before
    assert client.describe("x").custom_status is None


def test_a_custom_status_is_seen_by_whoever_describes_the_execution(place: Place) -> None:
    client = place.deploy(guests)
    client.start("x", guests, 2)
    client.signal("x", GO, 1)
    place.settle()
    assert client.describe("x").custom_status == '{"seen":1}'


# --- updates ---------------------------------------------------------------------------------------------------------


def test_an_update_is_answered_with_what_its_handler_returns(place: Place) -> None:
    client = place.deploy(account, add_up)
    client.start("x", account)
    place.settle()
    assert client.update("x", ADD, 3, timeout=30) == 3
    assert client.update("x", ADD, 4, timeout=30) == 7
    client.signal("x", GO, 1)
    assert place.result("x") == 7
    with pytest.raises(ExecutionClosedError):
        client.update("x", ADD, 1, timeout=30)


def test_a_rejected_update_leaves_nothing_in_the_history(place: Place) -> None:
    client = place.deploy(account, add_up)
    client.start("x", account)
    before = place.kinds("x")
    turns = client.describe("x").turns
    with pytest.raises(UpdateRejectedError, match="only more is more"):
        client.update("x", ADD, -1, timeout=30)
    with pytest.raises(UpdateRejectedError, match="no handler of the update 'unknown'"):
        client.update("x", Update[int, int]("unknown"), 1, timeout=30)
    assert place.kinds("x") == before
    assert client.describe("x").turns == turns


def test_an_update_sent_again_under_its_id_is_handled_once(place: Place) -> None:
    client = place.deploy(account, add_up)
    client.start("x", account)
    place.settle()
    for _ in range(3):
        assert client.update("x", ADD, 3, request_id="one", timeout=30) == 3
    client.signal("x", GO, 1)
    assert place.result("x") == 3
    assert client.update("x", ADD, 3, request_id="one", timeout=30) == 3  # also afterwards
    assert place.kinds("x").count("UpdateAccepted") == 1


def test_an_update_whose_handler_raises_fails_and_hurts_nobody(place: Place) -> None:
    client = place.deploy(account, add_up)
    client.start("x", account)
    place.settle()
    with pytest.raises(UpdateFailedError, match="5 is too much"):
        client.update("x", TAKE, 5, timeout=30)
    assert place.status("x") == "running"
