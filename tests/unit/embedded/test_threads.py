"""A system that starts no thread for now costs time, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from durably import ActivityError, Context, RetryPolicy, activity, orchestrator
from tests.unit.embedded.conftest import Run

ONCE = RetryPolicy(max_attempts=1)
SOON_S = 10.0


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of threads that the system does not start, each once; those that are left at the end were not asked for."""
    refused: list[str] = []
    start = threading.Thread.start

    def start_or_not(thread: threading.Thread) -> None:
        if thread.name in refused:
            refused.remove(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    yield refused
    assert not refused


def test_a_process_that_gets_no_thread_tries_again(run: Run, no_threads: list[str]) -> None:
    @activity
    def plain(number: int) -> int:
        return number + 1

    @activity
    async def awaited(number: int) -> int:
        return number + 1

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await awaited(await plain(1))

    no_threads.extend(["durably-activity-1", "durably-activity-1", "durably-async"])
    runtime = run(flow, plain, awaited)
    assert runtime.client.start("a", flow).result(SOON_S) == 3
    assert runtime.client.start("b", flow).result(SOON_S) == 3


def test_threads_go_on_without_another_one(run: Run, no_threads: list[str]) -> None:
    @activity
    def plain(number: int) -> int:
        time.sleep(0.01)
        return number

    @orchestrator
    async def flow(ctx: Context) -> list[int]:
        return list(await asyncio.gather(*(plain(number) for number in range(20))))

    no_threads.append("durably-activity-2")
    assert run(flow, plain, threads=2).client.start("a", flow).result(SOON_S) == list(range(20))


def test_a_thread_that_overran_is_replaced_as_soon_as_there_is_one(run: Run, no_threads: list[str]) -> None:
    stop = threading.Event()

    @activity(timeout=timedelta(milliseconds=50), retry=ONCE)
    def stuck() -> None:
        no_threads.append("durably-activity-1")
        stop.wait()

    @activity
    def quick() -> int:
        return 1

    @orchestrator
    async def flow(ctx: Context) -> int:
        with contextlib.suppress(ActivityError):
            await stuck()
        return await quick()

    try:
        assert run(flow, stuck, quick, threads=1).client.start("a", flow).result(SOON_S) == 1
    finally:
        stop.set()
