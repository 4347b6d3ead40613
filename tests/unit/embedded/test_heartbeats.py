"""Heartbeats in real threads and on the real loop, and callback activities answered over HTTP and by number."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    ActivityCancelledError,
    ActivityError,
    ActivityNotAwaitedError,
    Callback,
    Context,
    ExecutionClosedError,
    ExecutionNotFoundError,
    Failure,
    PayloadError,
    RetryPolicy,
    activity,
    attempt_info,
    callback_activity,
    heartbeat,
    last_heartbeat,
    orchestrator,
)
from tests.unit.embedded.conftest import Run
from tests.unit.embedded.waiting import eventually

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=timedelta(0), jitter=False)
SOON_S = 20.0
HANDED: list[Callback[int]] = []


@dataclass(frozen=True)
class Progress:
    line: int


@callback_activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0), jitter=False))
def ask(callback: Callback[int]) -> None:
    HANDED.append(callback)


@orchestrator
async def question(ctx: Context) -> Any:
    try:
        return await ask()
    except ActivityError as error:
        return [error.attempt, error.failure.type, error.failure.message]


@pytest.fixture(autouse=True)
def nothing_handed() -> None:
    HANDED.clear()


def post(url: str, body: str) -> dict[str, Any]:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SOON_S) as answer:
        said: dict[str, Any] = json.load(answer)
        return said


# --- activities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_running_activity_is_stopped_by_its_cancellation(run: Run, asynchronous: bool) -> None:
    begun, stopped, after = threading.Event(), threading.Event(), list[str]()

    @activity(name="endless", heartbeat_timeout=timedelta(milliseconds=400))
    def endless() -> None:
        begun.set()
        try:
            while True:
                heartbeat()
                time.sleep(0.01)
        except Exception:
            after.append("swallowed")
            raise
        finally:
            stopped.set()

    @activity(name="endless", heartbeat_timeout=timedelta(milliseconds=400))
    async def endless_async() -> None:
        begun.set()
        try:
            while True:
                heartbeat()
                await asyncio.sleep(0.01)
        finally:
            await asyncio.sleep(0)  # cleaning up may wait
            stopped.set()

    chosen: Any = endless_async if asynchronous else endless

    @orchestrator
    async def flow(ctx: Context) -> None:
        await chosen()

    runtime = run(flow, chosen)
    handle = runtime.client.start("a", flow)
    assert begun.wait(SOON_S)
    handle.cancel()
    assert stopped.wait(SOON_S)
    assert after == []
    assert handle.describe().status == "cancelled"


def test_an_activity_learns_of_termination_in_a_thread_of_its_own(run: Run) -> None:
    begun, learnt = threading.Event(), list[str]()

    @activity(heartbeat_timeout=timedelta(milliseconds=400))
    def work() -> None:
        def beat() -> None:
            begun.set()
            try:
                while True:
                    heartbeat()
                    time.sleep(0.01)
            except ActivityCancelledError as error:
                learnt.append(str(error))

        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, beat).result(SOON_S)

    @orchestrator
    async def flow(ctx: Context) -> None:
        await work()

    runtime = run(flow, work)
    runtime.client.start("a", flow)
    assert begun.wait(SOON_S)
    runtime.client.terminate("a")
    eventually(lambda: learnt == ["Execution a has ended."], SOON_S)


def test_a_silent_activity_is_followed_by_an_attempt_that_goes_on_where_it_stopped(run: Run) -> None:
    release = threading.Event()
    began_at: list[int] = []

    @activity(retry=AT_ONCE, heartbeat_timeout=timedelta(milliseconds=300))
    def copy_lines() -> int:
        before = last_heartbeat(Progress)
        line = 0 if before is None else before.line
        began_at.append(line)
        if attempt_info().attempt == 1:
            heartbeat(Progress(41))
            release.wait(SOON_S)
            return -1
        return line + 1

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await copy_lines()

    try:
        assert run(flow, copy_lines).client.start("a", flow).result(SOON_S) == 42
    finally:
        release.set()
    assert began_at == [0, 41]


def test_an_activity_that_beats_outlives_its_heartbeat_timeout(run: Run) -> None:
    @activity(heartbeat_timeout=timedelta(seconds=1), retry=RetryPolicy(max_attempts=1))
    async def steady() -> str:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            heartbeat()
            await asyncio.sleep(0.01)
        return "done"

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await steady()

    assert run(flow, steady).client.start("a", flow).result(SOON_S) == "done"


# --- callbacks -----------------------------------------------------------------------------------------------------


def test_a_heartbeat_over_http_is_told_whether_to_stop(run: Run) -> None:
    runtime = run(question, ask, http=("127.0.0.1", 0))
    runtime.client.start("a", question)
    eventually(lambda: HANDED)
    url = f"{HANDED[0].url}/heartbeat"
    assert post(url, '{"done": 1}') == {"message": "The heartbeat is recorded.", "cancelled": False}
    assert post(url, "")["cancelled"] is False
    runtime.client.terminate("a")
    eventually(lambda: runtime.client.describe("a").status == "terminated")
    assert post(url, "")["cancelled"] is True


def test_a_callback_activity_is_completed_by_its_number(run: Run) -> None:
    runtime = run(question, ask)
    client = runtime.client
    handle = client.start("a", question)
    eventually(lambda: HANDED)
    with pytest.raises(PayloadError):
        client.complete_activity("a", 1, "seven")
    assert client.heartbeat_activity("a", 1, {"done": 1}) is False
    client.complete_activity("a", 1, 7)
    assert handle.result(SOON_S) == 7
    client.complete_activity("a", 1, 7)
    with pytest.raises(ActivityNotAwaitedError, match="Another result was recorded"):
        client.complete_activity("a", 1, 8)


def test_a_callback_activity_fails_by_its_idempotency_key(run: Run) -> None:
    runtime = run(question, ask)
    client = runtime.client
    handle = client.start("a", question)
    eventually(lambda: HANDED)
    key = f"{client.describe('a').gen}.1.1"
    client.fail_activity("a", key, "sold out")
    eventually(lambda: len(HANDED) == 2)
    client.fail_activity("a", key, Failure(type="shop.Closed", message="for good"))
    assert handle.result(SOON_S) == [2, "shop.Closed", "for good"]


def test_what_cannot_be_completed_is_refused_with_the_reason(run: Run) -> None:
    client = run(question, ask).client
    with pytest.raises(ExecutionNotFoundError):
        client.complete_activity("nowhere", 1, 7)
    client.start("a", question)
    eventually(lambda: HANDED)
    for wrong in (2, 0, "x", "01HF.1.1", "1.1", "-1", "9" * 30):
        with pytest.raises(ActivityNotAwaitedError, match="awaits no callback"):
            client.complete_activity("a", wrong, 7)
    client.terminate("a")
    eventually(lambda: client.describe("a").status == "terminated")
    with pytest.raises(ExecutionClosedError, match="terminated"):
        client.complete_activity("a", 1, 7)
    assert client.heartbeat_activity("a", 1) is True
