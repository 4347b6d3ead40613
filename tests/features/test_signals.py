"""Signals: kept until somebody asks for them, in order, once, and never lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from durably import (
    Callback,
    Context,
    ExecutionClosedError,
    ExecutionNotFoundError,
    Signal,
    SignalError,
    activity,
    callback_activity,
    orchestrator,
)
from tests.features.places import Place


@dataclass
class Approval:
    by: str


APPROVED = Signal[Approval]("approved")
GO = Signal[int]("go")


@activity
def prepare() -> int:
    return 0


@orchestrator
async def collect(ctx: Context, wanted: int) -> list[int]:
    """Asks for signals once it is prepared."""
    await prepare()
    return [await ctx.receive(GO) for _ in range(wanted)]


def test_a_signal_wakes_who_waits_for_it(place: Place) -> None:
    @orchestrator
    async def payout(ctx: Context, amount: int) -> str:
        return f"{amount}, approved by {(await ctx.receive(APPROVED)).by}"

    client = place.deploy(payout)
    client.start("x", payout, 100)
    assert place.status("x") == "running"
    client.signal("x", APPROVED, Approval("ann"))
    assert place.result("x") == "100, approved by ann"


def test_signals_are_kept_until_they_are_asked_for_in_the_order_of_their_arrival(place: Place) -> None:
    client = place.deploy(collect, prepare)
    client.start("x", collect, 3)
    for number in (3, 1, 2):
        client.signal("x", GO, number)
    assert place.result("x") == [3, 1, 2]


def test_several_wait_for_the_same_signal_and_get_one_each_in_order(place: Place) -> None:
    @orchestrator
    async def three(ctx: Context) -> list[int]:
        return await asyncio.gather(*(ctx.receive(GO) for _ in range(3)))

    client = place.deploy(three)
    client.start("x", three)
    for number in (1, 2, 3):
        place.settle()
        client.signal("x", GO, number)
    assert place.result("x") == [1, 2, 3]


def test_signals_can_be_iterated_over(place: Place) -> None:
    @orchestrator
    async def until_zero(ctx: Context) -> int:
        total = 0
        async for number in ctx.signals(GO):
            total += number
            if number == 0:
                break
        return total

    client = place.deploy(until_zero)
    client.start("x", until_zero)
    for number in (5, 7, 0):
        client.signal("x", GO, number)
    assert place.result("x") == 12


def test_a_signal_sent_again_under_its_id_arrives_once(place: Place) -> None:
    client = place.deploy(collect, prepare)
    client.start("x", collect, 2)
    for _ in range(2):
        client.signal("x", GO, 1, request_id="one")
    place.settle()
    client.signal("x", GO, 1, request_id="one")  # also when it has been read
    place.settle()
    client.signal("x", GO, 2, request_id="two")
    assert place.result("x") == [1, 2]


@orchestrator
async def relay(ctx: Context, wanted: int, got: list[int]) -> list[int]:
    """A run for each signal."""
    got = [*got, await ctx.receive(GO)]
    return got if len(got) == wanted else await ctx.continue_as_new(wanted, got)


def test_no_signal_is_lost_or_doubled_across_continue_as_new(place: Place) -> None:
    client = place.deploy(relay)
    client.start("x", relay, 5, [])
    for number in (1, 2, 3):
        client.signal("x", GO, number, request_id=f"id-{number}")
    place.settle()
    assert client.describe("x").run == 4
    for number in (3, 4, 1, 5):  # two of them were read by earlier runs
        client.signal("x", GO, number, request_id=f"id-{number}")
    assert place.result("x") == [1, 2, 3, 4, 5]


def test_no_signal_is_lost_while_a_turn_is_taken(place: Place) -> None:
    sent: list[int] = []

    @orchestrator
    async def interrupted(ctx: Context) -> list[int]:
        for number in (1, 2):
            await prepare()
            if number not in sent:  # not part of the program: somebody does it while the turn is taken
                sent.append(number)
                place.client.signal("x", GO, number)
        return [await ctx.receive(GO), await ctx.receive(GO)]

    client = place.deploy(interrupted, prepare)
    client.start("x", interrupted)
    assert place.result("x") == [1, 2]


@callback_activity
def ask(callback: Callback[str]) -> None: ...


def test_a_signal_that_comes_with_the_end_is_seen_before_it(place: Place) -> None:
    @orchestrator
    async def last_call(ctx: Context) -> list[int]:
        late: list[int] = []

        async def listen() -> None:
            while True:
                late.append(await ctx.receive(GO))

        listening = asyncio.create_task(listen())
        await ask()
        listening.cancel()
        return late

    client = place.deploy(last_call, ask)
    client.start("x", last_call)
    place.settle()
    with place.asleep() as outside:
        outside.complete_activity("x", 1, "enough")
        outside.signal("x", GO, 5)
    assert place.result("x") == [5]


def test_a_signal_that_comes_too_late_is_not_dropped_silently(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    sent: list[int] = []

    @orchestrator
    async def hasty(ctx: Context) -> None:
        await prepare()
        if not sent:  # not part of the program: somebody does it while the last turn is taken
            sent.append(1)
            place.client.signal("x", GO, 1)

    client = place.deploy(hasty, prepare)
    client.start("x", hasty)
    assert place.status("x") == "completed"
    assert "the signal 'go' came after the end of x: nobody gets it" in caplog.messages


def test_signals_to_nobody_are_refused(place: Place) -> None:
    client = place.deploy(collect, prepare)
    with pytest.raises(ExecutionNotFoundError):
        client.signal("x", GO, 1)
    client.start("x", collect, 0)
    assert place.result("x") == []
    with pytest.raises(ExecutionClosedError):
        client.signal("x", GO, 1)


def test_signal_with_start_starts_once_and_signals_always(place: Place) -> None:
    client = place.deploy(collect, prepare)
    for number in (1, 2):
        client.signal_with_start("x", GO, number, collect, 2)
    for _ in range(2):  # the same, repeated
        client.signal_with_start("y", GO, 3, collect.options(request_id="once"), 2)
    assert place.result("x") == [1, 2]
    assert place.status("y") == "running"
    again = collect.options(id_reuse="allow_if_closed")
    client.signal_with_start("x", GO, 4, again, 1)
    assert place.result("x") == [4]


def test_an_execution_signals_another_and_learns_whether_it_is_there(place: Place) -> None:
    @orchestrator
    async def sender(ctx: Context, to: str) -> str:
        try:
            await ctx.signal(to, GO, 9)
        except SignalError as error:
            return str(error)
        return "sent"

    client = place.deploy(sender, collect, prepare)
    client.start("there", collect, 1)
    client.start("one", sender, "there")
    client.start("two", sender, "nowhere")
    assert (place.result("one"), place.result("there")) == ("sent", [9])
    assert "No execution has the id 'nowhere'" in place.result("two")
