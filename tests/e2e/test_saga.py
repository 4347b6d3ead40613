"""A saga on one SQLite file: cancelled, interrupted by the end of its process, and undone all the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from durably import Context, ExecutionCancelledError, RetryPolicy, Signal, activity, orchestrator
from durably.core.events import ActivityScheduled
from durably.embedded import Embedded
from durably.embedded.service import connect

PATIENCE_S = 30.0
STATUS: dict[str, str] = {}
OPEN_GATE: list[bool] = []
PAID = Signal[int]("paid")


@activity
def book(thing: str) -> str:
    STATUS[thing] = "booked"
    return thing


@activity(retry=RetryPolicy(max_attempts=1))
def cancel_booking(thing: str) -> None:
    if thing == "hotel":
        while not OPEN_GATE:
            STATUS[thing] = "being cancelled"
            time.sleep(0.01)
    STATUS[thing] = "cancelled"


@orchestrator
async def cancel_by_child(ctx: Context, thing: str) -> None:
    await cancel_booking(thing)


@orchestrator
async def trip(ctx: Context) -> int:
    async with ctx.saga() as saga:
        saga.compensate(cancel_by_child, "car")
        await book("car")
        saga.compensate(cancel_booking, "hotel")
        await book("hotel")
        return await ctx.receive(PAID)


def runtime(path: Path) -> Embedded:
    return Embedded(path, orchestrators=[trip, cancel_by_child], activities=[book, cancel_booking], http=None)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    STATUS.clear()
    OPEN_GATE.clear()


def test_a_cancelled_saga_is_undone_by_whatever_process_is_there(tmp_path: Path) -> None:
    path = tmp_path / "trip.db"
    first = runtime(path)
    first.start()
    handle = first.client.start("trip", trip)
    wait_until(lambda: STATUS == {"car": "booked", "hotel": "booked"})
    handle.cancel("no holidays")
    wait_until(lambda: STATUS["hotel"] == "being cancelled")
    assert not first.stop(grace_s=0)
    connect(path).cancel("trip", "really")
    OPEN_GATE.append(True)
    with runtime(path) as second:
        with pytest.raises(ExecutionCancelledError):
            second.client.handle("trip").result(PATIENCE_S)
        events = [entry.event for entry in second.client.history("trip")]
    assert STATUS == {"car": "cancelled", "hotel": "cancelled"}
    asked = [event.input for event in events if isinstance(event, ActivityScheduled) and event.name == "cancel_booking"]
    assert asked == ['{"thing":"hotel"}']
