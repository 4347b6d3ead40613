"""More activities than the workers can take: whatever else is due does not wait behind them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from durably import Context, Signal, activity, orchestrator
from durably.embedded import engine
from tests.unit.embedded.conftest import Run

SOON_S = 10.0
GO = Signal[None]("go")
RELEASED = threading.Event()


@activity
def slow(number: int) -> int:
    RELEASED.wait(60)
    return number


@orchestrator
async def greedy(ctx: Context) -> int:
    return sum(await asyncio.gather(*(slow(number) for number in range(10))))


@orchestrator
async def nimble(ctx: Context) -> str:
    await ctx.receive(GO)
    await asyncio.sleep(0.1)
    return "done"


def test_a_backlog_of_activities_holds_up_no_timers_and_no_signals(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_KEEP_BACKLOG", 5)
    RELEASED.clear()
    embedded = run(greedy, nimble, slow, threads=1)
    try:
        hogs = [embedded.client.start(f"greedy-{number}", greedy) for number in range(3)]
        handle = embedded.client.start("nimble", nimble)
        embedded.client.signal("nimble", GO, None)
        assert handle.result(SOON_S) == "done"
    finally:
        RELEASED.set()
    assert [hog.result(SOON_S) for hog in hogs] == [45, 45, 45]
