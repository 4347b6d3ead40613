"""How activities run: threads and loop, timeouts, retries, and functions that misbehave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from durably import (
    Activity,
    ActivityError,
    Context,
    ExecutionFailedError,
    NonRetryableError,
    RetryAfterError,
    RetryPolicy,
    activity,
    attempt_info,
    orchestrator,
)
from tests.unit.embedded.conftest import Run
from tests.unit.embedded.waiting import eventually

ONCE = RetryPolicy(max_attempts=1)
TWICE_AT_ONCE = RetryPolicy(max_attempts=2, initial_interval=timedelta(0))
SOON_S = 10.0


def ms(milliseconds: float) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def calling(one: Activity[[], Any]) -> Any:
    """An orchestrator that awaits one activity and says how that ended."""

    @orchestrator(name="calling")
    async def flow(ctx: Context) -> str:
        try:
            return str(await one())
        except ActivityError as error:
            return f"attempt {error.attempt}: {error.failure.type.rpartition('.')[2]}: {error.failure.message}"

    return flow


# --- timeouts ----------------------------------------------------------------------------------------------------


def test_a_sync_attempt_that_overran_does_not_hold_the_place_of_others(run: Run) -> None:
    release = threading.Event()

    @activity(timeout=ms(100), retry=TWICE_AT_ONCE)
    def stuck() -> None:
        release.wait(SOON_S)

    @activity
    def quick() -> str:
        return "quick"

    @orchestrator
    async def both(ctx: Context) -> list[str]:
        answers = await asyncio.gather(stuck(), stuck(), quick(), return_exceptions=True)
        return [str(answer) for answer in answers]

    runtime = run(both, stuck, quick, threads=1)
    try:
        answers = runtime.client.start("a", both).result(SOON_S)
    finally:
        release.set()
    assert [answer.partition(":")[0] for answer in answers] == [
        "activity stuck failed at attempt 2",
        "activity stuck failed at attempt 2",
        "quick",
    ]
    assert "did not end within 0.1 s (start-to-close)" in answers[0]


def test_what_an_overdue_sync_attempt_returns_in_the_end_is_dropped(run: Run) -> None:
    ended = threading.Event()

    @activity(timeout=ms(50), retry=TWICE_AT_ONCE)
    def slow_at_first() -> str:
        if attempt_info().attempt == 1:
            time.sleep(0.2)
            ended.set()
            return "too late"
        return "in time"

    runtime = run(flow := calling(slow_at_first), slow_at_first)
    assert runtime.client.start("a", flow).result(SOON_S) == "in time"
    assert ended.wait(SOON_S)
    assert [e.event.kind for e in runtime.client.history("a")].count("ActivityCompleted") == 1


def test_an_async_attempt_that_overran_is_cancelled(run: Run) -> None:
    cancelled = threading.Event()

    @activity(timeout=ms(50), retry=ONCE)
    async def stuck() -> None:
        try:
            await asyncio.sleep(SOON_S)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    runtime = run(flow := calling(stuck), stuck)
    answer = runtime.client.start("a", flow).result(SOON_S)
    assert answer == "attempt 1: ActivityTimeoutError: attempt 1 did not end within 0.05 s (start-to-close)"
    assert cancelled.is_set()


def test_a_timeout_error_of_the_users_own_is_not_taken_for_ours(run: Run) -> None:
    @activity(timeout=timedelta(seconds=5), retry=ONCE)
    async def gives_up() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(SOON_S)

    runtime = run(flow := calling(gives_up), gives_up)
    assert runtime.client.start("a", flow).result(SOON_S).startswith("attempt 1: TimeoutError")


def test_async_activities_run_at_the_same_time_without_threads_of_their_own(run: Run) -> None:
    met = asyncio.Barrier(20)

    @activity(retry=ONCE, timeout=timedelta(seconds=5))
    async def meet() -> int:
        return await met.wait()

    @orchestrator
    async def flow(ctx: Context) -> int:
        return len(set(await asyncio.gather(*[meet() for _ in range(20)])))

    assert run(flow, meet, threads=1).client.start("a", flow).result(SOON_S) == 20


def test_schedule_to_start_bounds_the_wait_in_the_queue(run: Run) -> None:
    @activity
    def long() -> None:
        time.sleep(0.3)

    @activity(schedule_to_start=ms(100), retry=RetryPolicy(max_attempts=5))
    def impatient() -> str:
        return "ran"

    @orchestrator
    async def flow(ctx: Context) -> str:
        busy = asyncio.create_task(long())
        await asyncio.sleep(0.05)
        try:
            return await impatient()
        except ActivityError as error:
            await busy
            return error.failure.message

    answer = run(flow, long, impatient, threads=1).client.start("a", flow).result(SOON_S)
    assert "attempt 1 of impatient waited" in answer
    assert "longer than 0.1 s (schedule-to-start)" in answer


def test_schedule_to_close_bounds_all_attempts_together(run: Run) -> None:
    attempts: list[int] = []

    @activity(
        schedule_to_close=ms(1000),
        retry=RetryPolicy(max_attempts=0, initial_interval=ms(200), coefficient=1, jitter=False),
    )
    def hopeless() -> None:
        attempts.append(attempt_info().attempt)
        raise OSError("no answer")

    runtime = run(flow := calling(hopeless), hopeless)
    began = time.monotonic()
    assert "OSError: no answer" in runtime.client.start("a", flow).result(SOON_S)
    assert time.monotonic() - began < SOON_S
    assert attempts == list(range(1, len(attempts) + 1))
    assert 2 <= len(attempts) <= 5


def test_schedule_to_close_ends_an_attempt_that_runs(run: Run) -> None:
    @activity(schedule_to_close=ms(100), retry=RetryPolicy(max_attempts=0))
    async def endless() -> None:
        await asyncio.sleep(SOON_S)

    answer = run(flow := calling(endless), endless).client.start("a", flow).result(SOON_S)
    assert "ActivityTimeoutError" in answer


# --- retries -------------------------------------------------------------------------------------------------------


def test_a_retry_and_its_reason_are_seen_while_it_is_awaited(run: Run) -> None:
    @activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(minutes=5), jitter=False))
    def flaky() -> None:
        raise OSError("no answer")

    handle = run(flow := calling(flaky), flaky).client.start("a", flow)
    eventually(lambda: handle.describe().activities and handle.describe().activities[0].attempt == 2)
    (pending,) = handle.describe().activities
    assert (pending.name, pending.state, pending.attempt) == ("flaky", "retrying", 2)
    assert pending.last_failure is not None
    assert pending.last_failure.matches(OSError)
    assert str(pending.last_failure) == "OSError: no answer"
    assert "test_workers.py" in pending.call_site
    assert handle.describe().turns == 2, "a retry takes no turn"


def test_a_retry_knows_what_failed_before_and_keeps_its_idempotency_key(run: Run) -> None:
    seen: list[tuple[str, int, str, str]] = []

    @activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(0)))
    def flaky(number: int) -> int:
        info = attempt_info()
        seen.append((info.execution_id, info.attempt, info.idempotency_key, str(info.last_failure)))
        if info.attempt < 3:
            raise OSError(f"no answer {info.attempt}")
        return number

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await flaky(1) + await flaky(2)

    assert run(flow, flaky).client.start("a", flow).result(SOON_S) == 3
    assert [attempt for _, attempt, _, _ in seen] == [1, 2, 3] * 2
    assert [failure for *_, failure in seen[:3]] == ["None", "OSError: no answer 1", "OSError: no answer 2"]
    assert {execution for execution, *_ in seen} == {"a"}
    keys = [key for _, _, key, _ in seen]
    assert len(set(keys[:3])) == len(set(keys[3:])) == 1
    assert keys[0] != keys[3]


@pytest.mark.parametrize(
    ("policy", "error", "attempts"),
    [
        (RetryPolicy(max_attempts=3, initial_interval=timedelta(0)), lambda: OSError("x"), 3),
        (RetryPolicy(max_attempts=3), lambda: NonRetryableError("x"), 1),
        (RetryPolicy(max_attempts=3, non_retryable=[OSError]), lambda: ConnectionError("x"), 1),
        (RetryPolicy(max_attempts=3, non_retryable=["ConnectionError"]), lambda: ConnectionError("x"), 1),
        (RetryPolicy(max_attempts=2, non_retryable=["OSError"], initial_interval=ms(0)), lambda: KeyError("x"), 2),
    ],
)
def test_the_policy_says_how_often(
    run: Run, policy: RetryPolicy, error: Callable[[], Exception], attempts: int
) -> None:
    @activity(retry=policy)
    def fails() -> None:
        raise error()

    answer = run(flow := calling(fails), fails).client.start("a", flow).result(SOON_S)
    assert answer.startswith(f"attempt {attempts}: {type(error()).__name__}")


def test_an_activity_may_say_when_to_try_again(run: Run) -> None:
    at: list[float] = []

    @activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(hours=1)))
    def busy() -> str:
        at.append(time.monotonic())
        if len(at) == 1:
            raise RetryAfterError("too many requests", seconds=0.15)
        return "done"

    assert run(flow := calling(busy), busy).client.start("a", flow).result(SOON_S) == "done"
    assert 0.14 <= at[1] - at[0] < SOON_S


# --- functions that misbehave ----------------------------------------------------------------------------------------


class _Exotic(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), _Exotic("odd"), GeneratorExit()])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_exception_of_an_activity_ends_its_worker(run: Run, error: BaseException, kind: str) -> None:
    @activity(name="fatal", retry=ONCE)
    def fatal() -> None:
        raise error

    @activity(name="fatal", retry=ONCE)
    async def fatal_async() -> None:
        raise error

    @activity(name="sound")
    async def sound_async() -> str:
        return "sound"

    @activity(name="sound")
    def sound() -> str:
        return "sound"

    bad, good = (fatal, sound) if kind == "sync" else (fatal_async, sound_async)

    @orchestrator
    async def flow(ctx: Context) -> str:
        try:
            await bad()
        except ActivityError as failed:
            return f"{await good()} after {failed.failure.type.rpartition('.')[2]}"
        return "it did not fail"

    answer = run(flow, bad, good, threads=1).client.start("a", flow).result(SOON_S)
    assert answer == f"sound after {type(error).__name__}"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_no_exception_of_a_task_that_an_activity_made_ends_the_loop_of_others(run: Run, error: BaseException) -> None:
    async def fatal() -> None:
        raise error

    @activity(retry=ONCE)
    async def outer() -> None:
        await asyncio.create_task(fatal())

    @activity(retry=ONCE)
    async def sound() -> str:
        await asyncio.sleep(0.01)
        return "sound"

    @orchestrator
    async def flow(ctx: Context) -> str:
        results = await asyncio.gather(outer(), sound(), return_exceptions=True)
        return f"{results[0]} {results[1]} {await sound()}"

    answer = run(flow, outer, sound).client.start("a", flow).result(SOON_S)
    assert answer.startswith("activity outer failed at attempt 1")
    assert answer.endswith(" sound sound")


def test_an_activity_that_cancels_itself_fails(run: Run) -> None:
    @activity(retry=ONCE)
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(SOON_S)

    runtime = run(flow := calling(cancels_itself), cancels_itself)
    assert "CancelledError" in runtime.client.start("a", flow).result(SOON_S)


def test_an_activity_that_nobody_registered_fails_at_once_and_says_so(run: Run) -> None:
    @activity
    def elsewhere() -> None: ...

    answer = run(flow := calling(elsewhere)).client.start("a", flow).result(SOON_S)
    assert "No activity is named 'elsewhere' here; this process knows: none." in answer


def test_a_contract_without_its_implementation_fails_and_says_so(run: Run) -> None:
    @activity
    def contract() -> None:
        raise NotImplementedError

    answer = run(flow := calling(contract), contract).client.start("a", flow).result(SOON_S)
    assert "attempt 1: NonRetryableError: activity contract is a contract without an implementation" in answer


def test_a_local_activity_is_an_activity(run: Run) -> None:
    seen: list[int] = []

    @activity(local=True, retry=TWICE_AT_ONCE)
    def here(number: int) -> int:
        seen.append(attempt_info().attempt)
        if seen == [1]:
            raise OSError
        return number + 1

    @orchestrator
    async def flow(ctx: Context) -> int:
        return await here(1)

    runtime = run(flow, here)
    assert runtime.client.start("a", flow).result(SOON_S) == 2
    assert seen == [1, 2]


def test_activities_that_are_cancelled_before_they_begin_do_not_run(run: Run) -> None:
    began: list[int] = []

    @activity(retry=ONCE)
    def numbered(number: int) -> int:
        began.append(number)
        if number == 0:
            raise ValueError("the first one fails")
        time.sleep(0.2)
        return number

    @orchestrator
    async def flow(ctx: Context) -> str:
        try:
            await ctx.map(numbered, range(50))
        except ActivityError:
            return str(await numbered(99))
        return "none failed"

    runtime = run(flow, numbered, threads=1)
    assert runtime.client.start("a", flow).result(SOON_S) == "99"
    assert began[0] == 0
    assert began[-1] == 99
    assert len(began) < 10


def test_context_variables_of_an_activity_do_not_reach_the_next(run: Run) -> None:
    from contextvars import ContextVar

    marked: ContextVar[str] = ContextVar("marked", default="unmarked")

    @activity
    def mark() -> str:
        before = marked.get()
        marked.set("marked")
        return before

    @orchestrator
    async def flow(ctx: Context) -> list[str]:
        return [await mark(), await mark()]

    assert run(flow, mark, threads=1).client.start("a", flow).result(SOON_S) == ["unmarked", "unmarked"]


def test_an_uncaught_failure_of_an_activity_fails_the_execution_with_its_cause(run: Run) -> None:
    @activity(retry=ONCE)
    def fails() -> None:
        raise ValueError("no luck")

    @orchestrator
    async def flow(ctx: Context) -> None:
        await fails()

    with pytest.raises(ExecutionFailedError, match="ValueError: no luck") as caught:
        run(flow, fails).client.start("a", flow).result(SOON_S)
    assert caught.value.failure.cause is not None
    assert "test_workers.py" in (caught.value.failure.cause.stack or "")


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_that_has_no_text_is_a_failure_like_any_other(run: Run, is_async: bool) -> None:
    runs: list[int] = []

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @activity(name="mute", retry=ONCE)
    def mute() -> None:
        runs.append(1)
        raise MuteError

    @activity(name="mute", retry=ONCE)
    async def mute_async() -> None:
        runs.append(1)
        raise MuteError

    chosen = mute_async if is_async else mute
    runtime = run(flow := calling(chosen), chosen)
    assert "MuteError" in runtime.client.start("a", flow).result(SOON_S)
    assert runs == [1]
