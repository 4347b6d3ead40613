"""Continue-as-new: another run with an empty history, and nothing that was sent is lost."""

from __future__ import annotations

import asyncio

import pytest

from durably import Context, Signal, Update, activity, orchestrator
from durably.core import context
from tests.features.places import Place

GO = Signal[int]("go")
NEVER = Signal[None]("never")
ADD = Update[int, int]("add")


@activity
def half(number: int) -> int:
    return number // 2


def test_an_execution_goes_on_in_another_run_with_an_empty_history(place: Place) -> None:
    @orchestrator
    async def countdown(ctx: Context, left: int, runs: list[int]) -> list[int]:
        ctx.set_status(left)
        if left == 0:
            return [*runs, ctx.info.run]
        return await ctx.continue_as_new(await half(left), [*runs, ctx.info.run])

    client = place.deploy(countdown, half)
    client.start("x", countdown, 6, [])
    assert place.result("x") == [1, 2, 3, 4]
    assert place.kinds("x") == ["ExecutionStarted", "StatusSet", "ExecutionCompleted"]
    described = client.describe("x")
    assert (described.run, described.custom_status) == (4, "0")


def test_signals_and_updates_that_are_pending_go_along(place: Place) -> None:
    @orchestrator
    async def relay(ctx: Context, run: int) -> int:
        done = asyncio.Event()

        async def add(number: int) -> int:
            if run == 1:
                await ctx.receive(NEVER)
            done.set()
            return 100 * run + number

        ctx.on_update(ADD, add)
        first = await ctx.receive(GO)
        if run == 1:
            await ctx.continue_as_new(2)
        await done.wait()
        return first

    client = place.deploy(relay, half)
    client.start("x", relay, 1)
    place.settle()
    with pytest.raises(TimeoutError):
        client.update("x", ADD, 7, request_id="u", timeout=0.2)
    for number in (1, 2):
        client.signal("x", GO, number)
    assert place.result("x") == 2
    assert client.describe("x").run == 2
    assert client.update("x", ADD, 7, request_id="u", timeout=30) == 207


def test_the_parent_of_an_execution_that_goes_on_sees_nothing_of_it(place: Place) -> None:
    @orchestrator
    async def child(ctx: Context, left: int) -> int:
        return ctx.info.run if left == 0 else await ctx.continue_as_new(left - 1)

    @orchestrator
    async def parent(ctx: Context) -> int:
        return await child(3)

    client = place.deploy(parent, child)
    client.start("p", parent)
    assert place.result("p") == 4


def test_a_long_history_is_told_that_another_run_would_be_wise(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    @orchestrator
    async def careful(ctx: Context, total: int) -> int:
        while total < 12:
            if ctx.info.continue_as_new_suggested:
                await ctx.continue_as_new(total)
            total += await ctx.receive(GO)
        return ctx.info.run

    monkeypatch.setattr(context, "_LONG", 5)  # instead of 10,000
    client = place.deploy(careful)
    client.start("x", careful, 0)
    for number in range(12):
        client.signal("x", GO, 1, request_id=str(number))
    assert place.result("x") == 3
