"""How executions run: poison beside health, stalls and their ends, stopping and going on, callbacks' deadlines."""

from __future__ import annotations

import asyncio
import json
import runpy
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from durably import (
    ActivityError,
    Callback,
    Client,
    Context,
    Handle,
    Orchestrator,
    Registry,
    ResultTimeoutError,
    RetryPolicy,
    activity,
    attempt_info,
    callback_activity,
    orchestrator,
)
from durably.adapters.system import SystemClock, SystemEntropy
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ConfigurationError
from durably.embedded import Embedded
from durably.runtime.runtime import Limits
from tests.unit.embedded.conftest import Run
from tests.unit.embedded.waiting import eventually

SOON_S = 10.0
ONCE = RetryPolicy(max_attempts=1)


@activity
def one() -> str:
    return "one"


@activity
def two() -> str:
    return "two"


@orchestrator
async def healthy(ctx: Context) -> str:
    return f"{await one()} {await two()}"


Deploy = Callable[[str], Orchestrator[[], str]]


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """The orchestrator `flow` of a source text: the same file at each call, as in a deployment."""
    file = tmp_path / "deployed.py"

    def define(body: str) -> Orchestrator[[], str]:
        head = """
            import asyncio
            from durably import Context, orchestrator
            from tests.unit.embedded.test_engine import one, two

            @orchestrator
            async def flow(ctx: Context) -> str:
        """
        file.write_text(f"{dedent(head).strip()}\n    {body}\n", encoding="utf-8")
        flow: Orchestrator[[], str] = runpy.run_path(str(file))["flow"]
        return flow

    return define


@contextmanager
def for_a_while(runtime: Embedded) -> Generator[Embedded]:
    yield runtime
    runtime.stop()


def stalled(client: Client, execution_id: str) -> Callable[[], bool]:
    return lambda: client.describe(execution_id).status == "stalled"


# --- stalls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swallows", [False, True], ids=["plain", "under `except Exception`"])
def test_an_endless_loop_stalls_its_own_execution_and_no_other(run: Run, swallows: bool) -> None:
    @orchestrator
    async def endless(ctx: Context) -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:
                if not swallows:
                    raise

    runtime = run(endless, healthy, one, two, turn_seconds=0.2)
    poison = runtime.client.start("poison", endless)
    good = runtime.client.start("good", healthy)
    assert good.result(SOON_S) == "one two"
    eventually(stalled(runtime.client, "poison"))
    failure = poison.describe().failure
    assert failure is not None
    assert failure.type == "durably.core.errors.TurnTimeoutError"
    assert "Move long work into an @activity" in failure.message
    assert runtime.client.start("better", healthy).result(SOON_S) == "one two"
    poison.terminate("hopeless")
    eventually(lambda: poison.describe().status == "terminated")


def test_a_stalled_execution_says_so_to_whoever_waits_for_it(run: Run, deploy: Deploy) -> None:
    flow = deploy("return (lambda f: f(f))(lambda f: f(f))")
    handle = run(flow).client.start("a", flow)
    eventually(lambda: handle.describe().status == "stalled")
    with pytest.raises(ResultTimeoutError, match=r"It is stalled: .*TurnLimitError"):
        handle.result(0.01)


def test_a_stalled_execution_resumes_under_corrected_code(run: Run, deploy: Deploy) -> None:
    broken = deploy("first = await one()\n    while True: pass")
    never_again = Limits(fruitless_wakes=0)
    with for_a_while(run(broken, one, two, turn_seconds=0.1, limits=never_again)) as runtime:
        runtime.client.start("a", broken)
        eventually(stalled(runtime.client, "a"))
    fixed = deploy("first = await one()\n    return first + await two()")
    runtime = run(fixed, one, two)
    assert runtime.client.handle("a").result(SOON_S) == "onetwo"
    kinds = [entry.event.kind for entry in runtime.client.history("a")]
    assert kinds.count("ActivityScheduled") == 2


def test_code_that_asks_for_something_else_stalls_with_both_sides_and_resumes_once_restored(
    run: Run, deploy: Deploy
) -> None:
    original = "first = await one()\n    await asyncio.sleep(0.3)\n    return first + await two()"
    flow = deploy(original)
    with for_a_while(run(flow, one, two)) as runtime:
        runtime.client.start("a", flow)
        eventually(lambda: runtime.client.describe("a").timers)
    changed = deploy("first = await two()\n    await asyncio.sleep(0.3)\n    return first")
    with for_a_while(run(changed, one, two)) as runtime:
        eventually(stalled(runtime.client, "a"))
        failure = runtime.client.describe("a").failure
        assert failure is not None
        assert failure.type == "durably.core.errors.NonDeterminismError"
        assert "one" in failure.message
        assert "two" in failure.message
        assert "deployed.py:7" in failure.message
    restored = deploy(original)
    assert run(restored, one, two).client.handle("a").result(SOON_S) == "onetwo"


def test_an_execution_whose_orchestrator_is_missing_waits_for_it(run: Run, deploy: Deploy) -> None:
    flow = deploy("return await one()")
    with for_a_while(run(one)) as runtime:
        elsewhere = Registry([flow], codec=PydanticCodec())
        Client(runtime._backend, elsewhere, SystemClock(), SystemEntropy()).start("a", flow)
        eventually(stalled(runtime.client, "a"))
        failure = runtime.client.describe("a").failure
        assert failure is not None
        assert "needs the orchestrator 'flow'" in failure.message
    assert run(flow, one).client.handle("a").result(SOON_S) == "one"


def test_what_arrives_while_an_execution_is_stalled_is_kept(run: Run, deploy: Deploy) -> None:
    release = threading.Event()

    @activity(name="slow")
    def slow() -> str:
        release.wait(SOON_S)
        return "slow"

    body = "slow = asyncio.create_task(ctx.call('slow', returns=str))\n    await one()\n    "
    broken = deploy(body + "while True: pass")
    with for_a_while(run(broken, slow, one, turn_seconds=0.1)) as runtime:
        runtime.client.start("a", broken)
        eventually(stalled(runtime.client, "a"))
        release.set()
        eventually(lambda: runtime.client.describe("a").history_length == 3)
        assert not runtime.client.history("a")[-1].applied
    fixed = deploy(body + "return await slow")
    assert run(fixed, slow, one).client.handle("a").result(SOON_S) == "slow"


# --- stopping and going on ---------------------------------------------------------------


def test_stopping_finishes_what_runs_and_leaves_the_rest_for_the_next_start(run: Run) -> None:
    ran: list[int] = []
    began, over = threading.Event(), threading.Event()

    @activity
    def slow(number: int) -> int:
        began.set()
        assert over.wait(SOON_S)
        ran.append(number)
        return number

    @orchestrator
    async def flow(ctx: Context) -> int:
        return sum(await asyncio.gather(*[slow(number) for number in range(4)]))

    first = run(flow, slow, threads=1)
    first.client.start("a", flow)
    assert began.wait(SOON_S)
    threading.Timer(0.5, over.set).start()
    assert first.stop() is True
    assert ran == [0]
    second = run(flow, slow)
    assert second.client.handle("a").result(SOON_S) == 6
    assert sorted(ran) == [0, 1, 2, 3]


def test_an_activity_that_outlasts_the_grace_runs_again(run: Run) -> None:
    release, runs = threading.Event(), [0]

    @activity
    async def endless() -> str:
        runs[0] += 1
        if runs[0] == 1:
            await asyncio.sleep(SOON_S)
        return f"run {runs[0]}, attempt {attempt_info().attempt}"

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await endless()

    first = run(flow, endless)
    first.client.start("a", flow)
    eventually(lambda: runs[0] == 1)
    assert first.stop(grace_s=0.05) is False
    release.set()
    assert run(flow, endless).client.handle("a").result(SOON_S) == "run 2, attempt 1"


def test_restarts_in_good_order_do_not_make_an_activity_suspect(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    runs = [0]

    @activity
    async def long() -> str:
        runs[0] += 1
        if runs[0] <= 4:
            await asyncio.sleep(SOON_S)
        return f"run {runs[0]}"

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await long()

    runtime = run(flow, long)
    runtime.client.start("a", flow)
    for number in range(1, 5):
        eventually(lambda number=number: runs[0] == number)  # type: ignore[misc]
        runtime.stop(grace_s=0.01)
        runtime = run(flow, long)
    assert runtime.client.handle("a").result(SOON_S) == "run 5"
    assert "is stalled" not in caplog.text


def test_an_at_most_once_attempt_that_was_lost_is_not_run_again(run: Run) -> None:
    attempts: list[int] = []

    @activity(at_most_once=True, retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
    async def charge() -> str:
        attempts.append(attempt_info().attempt)
        if attempts == [1]:
            await asyncio.sleep(SOON_S)
        failure = attempt_info().last_failure
        return "" if failure is None else failure.type

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await charge()

    first = run(flow, charge)
    first.client.start("a", flow)
    eventually(lambda: attempts == [1])
    first.stop(grace_s=0.05)
    assert run(flow, charge).client.handle("a").result(SOON_S) == "durably.core.errors.AttemptLostError"
    assert attempts == [1, 2]


def test_an_at_most_once_attempt_that_is_the_last_fails_as_lost(run: Run) -> None:
    runs = [0]

    @activity(at_most_once=True, retry=ONCE)
    async def charge() -> None:
        runs[0] += 1
        await asyncio.sleep(SOON_S)

    @orchestrator
    async def flow(ctx: Context) -> str:
        try:
            await charge()
        except ActivityError as error:
            return str(error)
        return "charged"

    first = run(flow, charge)
    first.client.start("a", flow)
    eventually(lambda: runs[0] == 1)
    first.stop(grace_s=0.05)
    answer: str = run(flow, charge).client.handle("a").result(SOON_S)
    assert "AttemptLostError" in answer
    assert "whether it ran to its end is unknown" in answer
    assert runs == [1]


def test_timers_that_were_due_while_nothing_ran_fire_at_the_next_start(run: Run) -> None:
    @orchestrator
    async def flow(ctx: Context) -> str:
        began = ctx.now()
        await asyncio.sleep(0.1)
        return "late" if ctx.now() - began >= timedelta(seconds=0.1) else "early"

    first = run(flow)
    first.client.start("a", flow)
    eventually(lambda: first.client.describe("a").timers)
    first.stop()
    time.sleep(0.12)
    assert run(flow).client.handle("a").result(SOON_S) == "late"


def test_two_runtimes_share_a_file(run: Run) -> None:
    first, second = run(healthy, one, two), run(healthy, one, two)
    handles: list[Handle[str]] = []
    for number in range(20):
        client = (first, second)[number % 2].client
        handles.append(client.start(f"number-{number}", healthy))
    assert [second.client.handle(handle.execution_id).result(SOON_S) for handle in handles] == ["one two"] * 20
    for handle in handles:
        kinds = [entry.event.kind for entry in first.client.history(handle.execution_id)]
        assert kinds.count("ActivityCompleted") == 2


def test_a_runtime_is_started_once(run: Run) -> None:
    with pytest.raises(ConfigurationError, match="Make another one"):
        run(healthy).start()


def test_a_port_that_is_taken_is_named(run: Run, tmp_path: Path) -> None:
    first = run(http=("127.0.0.1", 0))
    port = int(first.url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=r"cannot listen on .*Choose another port"):
        Embedded(tmp_path / "other.db", http=("127.0.0.1", port))


# --- callbacks ---------------------------------------------------------------


def post(url: str, value: Any) -> int:
    request = Request(url, data=json.dumps(value).encode(), headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=SOON_S) as response:
            return int(response.status)
    except HTTPError as refusal:
        with refusal:
            return refusal.code


def test_a_deadline_that_passes_gives_the_next_attempt_a_token_of_its_own(run: Run) -> None:
    urls: list[str] = []

    @callback_activity(
        timeout=timedelta(milliseconds=100), retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0))
    )
    def ask(callback: Callback[str]) -> None:
        urls.append(callback.url)

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await ask()

    runtime = run(flow, ask, http=("127.0.0.1", 0))
    handle = runtime.client.start("a", flow)
    eventually(lambda: len(urls) == 2)
    assert urls[0] != urls[1]
    assert post(urls[0], "first") == 410
    assert post(urls[1], "second") == 200
    assert handle.result(SOON_S) == "second"
    assert post(urls[0], "first") == 410
    events = [entry.event for entry in runtime.client.history("a")]
    assert [event.attempt for event in events if event.kind == "ActivityCompleted"] == [2]


def test_an_open_callback_is_seen_and_survives_a_restart_on_the_same_port(run: Run) -> None:
    urls: list[str] = []

    @callback_activity
    def ask(callback: Callback[str]) -> None:
        urls.append(callback.url)

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await ask()

    first = run(flow, ask, http=("127.0.0.1", 0))
    port = int(first.url.rpartition(":")[2])
    handle = first.client.start("a", flow)
    eventually(lambda: urls)
    (pending,) = handle.describe().activities
    assert (pending.name, pending.state, pending.attempt) == ("ask", "open", 1)
    first.stop()
    second = run(flow, ask, http=("127.0.0.1", port))
    assert post(urls[0], "later") == 200
    assert second.client.handle("a").result(SOON_S) == "later"
    assert len(urls) == 1


def test_a_submission_that_fails_is_retried(run: Run) -> None:
    attempts: list[tuple[int, str]] = []

    @callback_activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
    async def ask(callback: Callback[int]) -> None:
        attempts.append((attempt_info().attempt, callback.url))
        if len(attempts) == 1:
            raise OSError("not reached")

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await ask()

    runtime = run(flow, ask, http=("127.0.0.1", 0))
    handle = runtime.client.start("a", flow)
    eventually(lambda: len(attempts) == 2)
    assert [attempt for attempt, _ in attempts] == [1, 2]
    assert post(attempts[0][1], 1) == 410
    assert post(attempts[1][1], 2) == 200
    assert handle.result(SOON_S) == 2


def test_a_callback_may_arrive_before_its_submission_returns(run: Run) -> None:
    @callback_activity
    def ask(callback: Callback[str]) -> None:
        assert post(callback.url, "at once") == 200

    @orchestrator
    async def flow(ctx: Context) -> str:
        return await ask()

    runtime = run(flow, ask, http=("127.0.0.1", 0))
    assert runtime.client.start("a", flow).result(SOON_S) == "at once"


def test_a_failure_posted_is_retried_unless_it_says_otherwise(run: Run) -> None:
    urls: list[str] = []

    @callback_activity(retry=RetryPolicy(max_attempts=5, initial_interval=timedelta(0)))
    def ask(callback: Callback[str]) -> None:
        urls.append(callback.url)

    @orchestrator
    async def flow(ctx: Context) -> str:
        try:
            return await ask()
        except ActivityError as error:
            return f"attempt {error.attempt}: {error.failure}"

    runtime = run(flow, ask, http=("127.0.0.1", 0))
    handle = runtime.client.start("a", flow)
    eventually(lambda: len(urls) == 1)
    assert post(f"{urls[0]}/failure", {"type": "Busy", "message": "later"}) == 200
    eventually(lambda: len(urls) == 2)
    assert post(f"{urls[1]}/failure", {"type": "Gone", "message": "for ever", "non_retryable": True}) == 200
    assert handle.result(SOON_S) == "attempt 2: Gone: for ever"
