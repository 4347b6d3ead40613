"""When the store refuses writes for a while, whatever was to be written then is written later."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from durably import (
    Activity,
    ActivityError,
    Callback,
    Context,
    RetryPolicy,
    activity,
    attempt_info,
    callback_activity,
    orchestrator,
)
from durably.core.errors import StorageError
from durably.embedded import Embedded
from tests.unit.embedded.conftest import Run
from tests.unit.embedded.waiting import eventually

SOON_S = 20.0
AT_ONCE = RetryPolicy(max_attempts=2, initial_interval=timedelta(0))


@contextmanager
def refusing(runtime: Embedded) -> Generator[None]:
    """The file takes no writes."""
    writer = runtime._backend._committer
    with writer.connection_lock:
        writer.connection.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        with writer.connection_lock:
            writer.connection.execute("PRAGMA query_only = OFF")


def test_a_result_waits_until_it_can_be_stored_and_its_activity_runs_once(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    began, release, runs = threading.Event(), threading.Event(), [0]

    @activity
    def slow() -> str:
        runs[0] += 1
        began.set()
        assert release.wait(SOON_S)
        return "done"

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await slow()

    runtime = run(flow, slow)
    handle = runtime.client.start("a", flow)
    assert began.wait(SOON_S)
    with refusing(runtime):
        release.set()
        eventually(lambda: "the turn of a could not be stored, trying again" in caplog.text)
        with pytest.raises(StorageError, match="read-only"):
            runtime.client.start("b", flow)
    assert handle.result(SOON_S) == "done"
    assert runs == [1]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_the_end_of_an_at_most_once_attempt_waits_until_it_can_be_stored(
    run: Run, caplog: pytest.LogCaptureFixture, kind: str, fails: bool
) -> None:
    began, release, attempts = threading.Event(), threading.Event(), list[int]()

    def attempt() -> int:
        attempts.append(attempt_info().attempt)
        began.set()
        assert release.wait(SOON_S)
        if fails and len(attempts) == 1:
            raise OSError("no answer")
        return len(attempts)

    async def attempt_async() -> int:
        return await asyncio.to_thread(attempt)

    define = activity(name="unique", at_most_once=True, retry=AT_ONCE if fails else RetryPolicy(max_attempts=1))
    unique: Activity[[], int] = define(attempt) if kind == "sync" else define(attempt_async)

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await unique()

    runtime = run(flow, unique)
    handle = runtime.client.start("a", flow)
    assert began.wait(SOON_S)
    with refusing(runtime):
        release.set()
        eventually(lambda: "could not settle" in caplog.text)
    assert handle.result(SOON_S) == len(attempts)
    assert attempts == ([1, 2] if fails else [1])


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failure_that_could_not_be_stored_is_stored_later_and_the_next_attempt_follows(
    run: Run, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    began, release, runs = threading.Event(), threading.Event(), [0]

    def attempt() -> str:
        runs[0] += 1
        if runs[0] > 1:
            return f"run {runs[0]}, attempt {attempt_info().attempt}"
        began.set()
        assert release.wait(SOON_S)
        raise OSError("no answer")

    async def attempt_async() -> str:
        return await asyncio.to_thread(attempt)

    define = activity(name="flaky", retry=AT_ONCE)
    flaky: Activity[[], str] = define(attempt) if kind == "sync" else define(attempt_async)

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await flaky()

    runtime = run(flow, flaky)
    handle = runtime.client.start("a", flow)
    assert began.wait(SOON_S)
    with refusing(runtime):
        release.set()
        eventually(lambda: "could not settle" in caplog.text)
    assert handle.result(SOON_S) == "run 2, attempt 2"


def test_a_timeout_that_could_not_be_stored_is_not_forgotten(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    began, release, runs = threading.Event(), threading.Event(), [0]

    @activity(retry=AT_ONCE, timeout=timedelta(milliseconds=300))
    def stuck() -> str:
        runs[0] += 1
        if runs[0] > 1:
            return "in time"
        began.set()
        release.wait(SOON_S)
        return "late"

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await stuck()

    runtime = run(flow, stuck)
    handle = runtime.client.start("a", flow)
    assert began.wait(SOON_S)
    try:
        with refusing(runtime):
            eventually(lambda: "could not settle" in caplog.text)
        assert handle.result(SOON_S) == "in time"
    finally:
        release.set()


def test_a_callbacks_deadline_that_could_not_be_stored_is_not_forgotten(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    asked = threading.Event()

    @callback_activity(timeout=timedelta(milliseconds=300), retry=RetryPolicy(max_attempts=1))
    def ask(callback: Callback[str]) -> None:
        asked.set()

    @orchestrator
    async def flow(ctx: Context) -> str:
        try:
            return await ask()
        except ActivityError as error:
            return error.failure.message

    runtime = run(flow, ask)
    handle = runtime.client.start("a", flow)
    assert asked.wait(SOON_S)
    with refusing(runtime):
        eventually(lambda: "trying again" in caplog.text)
    assert "before its deadline" in handle.result(SOON_S)
