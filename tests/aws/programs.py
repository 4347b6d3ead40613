"""Orchestrators and activities that the tests run through the handlers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import Any

from durably import (
    Activity,
    Callback,
    Context,
    NonRetryableError,
    Orchestrator,
    Query,
    RetryPolicy,
    Signal,
    Update,
    activity,
    attempt_info,
    callback_activity,
    heartbeat,
    orchestrator,
)
from durably.core.errors import ActivityError
from tests.aws.driver import Crash

calls: Counter[str] = Counter()  # how often each activity's function began
seen: dict[str, str] = {}  # what activities were told, by a name of the test's choosing
deadly: set[str] = set()  # names of functions that end their process

QUICK = RetryPolicy(max_attempts=3, initial_interval=timedelta(seconds=2), jitter=False)


def reset() -> None:
    calls.clear()
    seen.clear()
    deadly.clear()


@activity
def double(n: int) -> int:
    calls["double"] += 1
    return 2 * n


@activity
async def triple(n: int) -> int:
    calls["triple"] += 1
    await asyncio.sleep(0)
    return 3 * n


@activity(retry=QUICK)
def flaky(succeeds_at: int) -> int:
    calls["flaky"] += 1
    attempt = attempt_info().attempt
    if attempt < succeeds_at:
        raise OSError(f"attempt {attempt} failed")
    return attempt


@activity(timeout=timedelta(milliseconds=100), retry=RetryPolicy(max_attempts=1))
def oversleep(swallows: bool) -> str:
    calls["oversleep"] += 1
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            time.sleep(5)
        except Exception:
            raise AssertionError("the limit is no Exception") from None
        except BaseException:
            if swallows:
                return "too late"
            raise
    return "never"


@activity(timeout=timedelta(milliseconds=100), retry=RetryPolicy(max_attempts=1))
async def oversleep_async() -> str:
    calls["oversleep_async"] += 1
    await asyncio.sleep(5)
    return "never"


@activity(retry=QUICK)
def fatal(n: int) -> int:
    calls["fatal"] += 1
    if "fatal" in deadly:
        raise Crash
    return n + 1


@activity(at_most_once=True, retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
def once(n: int) -> int:
    calls["once"] += 1
    if "once" in deadly:
        raise Crash
    return n + 1


@activity(local=True, retry=QUICK)
def near(n: int) -> int:
    calls["near"] += 1
    if "near" in deadly:
        raise Crash
    if attempt_info().attempt < n:
        raise OSError("not yet")
    return n + 1


@callback_activity(timeout=timedelta(minutes=5), retry=RetryPolicy(max_attempts=2, jitter=False))
def ask(callback: Callback[int], question: str) -> None:
    calls["ask"] += 1
    seen[f"{question}/{attempt_info().attempt}"] = callback.url


@activity(
    retry=RetryPolicy(max_attempts=4, initial_interval=timedelta(seconds=2)), heartbeat_timeout=timedelta(seconds=20)
)
def beating(n: int) -> int:
    """Fails once, having told the next attempt how far it got."""
    calls["beating"] += 1
    info = attempt_info()
    assert info.heartbeat_details in ((None, 1) if info.attempt < 3 else (None, 1, 2))
    heartbeat(info.attempt)
    if info.attempt == 1:
        raise OSError("half-way")
    return n


@callback_activity(heartbeat_timeout=timedelta(minutes=2), retry=RetryPolicy(max_attempts=3, jitter=False))
def muse(callback: Callback[int], question: str) -> None:
    calls["muse"] += 1
    seen[question] = callback.url


@orchestrator
async def pipeline(ctx: Context, n: int, steps: int = 3) -> int:
    for _ in range(steps):
        n = await double(n)
    return n


@orchestrator
async def mixed(ctx: Context, n: int) -> list[int]:
    return [await triple(n), await double(n), await flaky(3)]


@orchestrator
async def fan_out(ctx: Context, width: int) -> int:
    return sum(await asyncio.gather(*(double(n) for n in range(width))))


@orchestrator
async def sleeper(ctx: Context, seconds: float) -> float:
    started = ctx.now()
    await asyncio.sleep(seconds)
    return (ctx.now() - started).total_seconds()


@orchestrator
async def impatient(ctx: Context, kind: str) -> str:
    try:
        return await (oversleep_async() if kind == "async" else oversleep(kind == "swallows"))
    except ActivityError as error:
        return error.failure.type


@orchestrator
async def asker(ctx: Context, question: str) -> int:
    return await ask(question)


@orchestrator
async def survivor(ctx: Context, n: int) -> str:
    try:
        return str(await fatal(n))
    except ActivityError as error:
        return error.failure.type


@orchestrator
async def careful(ctx: Context, n: int) -> str:
    try:
        return str(await once(n))
    except ActivityError as error:
        return error.failure.type


@orchestrator
async def neighbour(ctx: Context, n: int) -> int:
    first = await near(1)
    return first + sum(await asyncio.gather(near(n), double(n), near(1)))


@orchestrator
async def near_survivor(ctx: Context, n: int) -> str:
    try:
        return str(await near(n))
    except ActivityError as error:
        if "near_survivor" in deadly:
            raise Crash from error
        return error.failure.type


@orchestrator
async def everything(ctx: Context, question: str) -> list[int]:
    """A bit of all: fan-out, retry, timer, callback, at most once, local."""
    first, second = await asyncio.gather(double(1), flaky(2))
    await asyncio.sleep(3)
    answer = await ask(question)
    return [first, second, answer, await once(1), await near(1)]


@orchestrator
async def fan_out_of_four(ctx: Context, n: int) -> int:
    return sum(await asyncio.gather(*(double(i) for i in range(4)), asyncio.sleep(20, 0)))


@orchestrator
async def overslept(ctx: Context, n: int) -> bool:
    started = ctx.now()
    await asyncio.sleep(n)
    return (ctx.now() - started).total_seconds() >= n


@orchestrator
async def endless(ctx: Context) -> None:
    await double(1)
    while True:
        pass


@orchestrator
async def killer(ctx: Context) -> int:
    n = await double(1)
    if "killer" in deadly:
        raise Crash
    return n


@orchestrator(name="changing")
async def before_change(ctx: Context, n: int) -> int:
    return await double(await double(n))


@orchestrator(name="changing")
async def after_change(ctx: Context, n: int) -> int:
    return await double(await triple(n))


@orchestrator
async def echo(ctx: Context, text: str) -> str:
    return text


@orchestrator
async def failing(ctx: Context) -> None:
    raise NonRetryableError("on purpose")


GO = Signal[int]("go")
ADD = Update[int, int]("add")
TOTAL = Query[int]("total")


@orchestrator
async def member(ctx: Context, n: int) -> int:
    """A child: it returns what it is told, doubled."""
    return await double(n + await ctx.receive(GO))


@orchestrator
async def family(ctx: Context, n: int) -> list[int]:
    """Two children, one of them signalled by its parent, one cancelled, one that outlives nobody."""
    first = await member.start(n)
    await first.signal(GO, 1)
    unwanted = await member.start(0)
    unwanted.cancel()
    await member.start(-1)
    return [await first, await double(n)]


@orchestrator
async def relay(ctx: Context, left: int, total: int = 0) -> int:
    """A run for each signal."""
    ctx.on_query(TOTAL, lambda: total)
    if left == 0:
        return total
    total += await ctx.receive(GO)
    ctx.set_status(total)
    return await ctx.continue_as_new(left - 1, await double(total) // 2)


SIGNALS_A_RUN = 1_000


@orchestrator
async def tally(ctx: Context, left: int, total: int = 0) -> int:
    """The sum of so many signals, a thousand a run."""
    for _ in range(min(left, SIGNALS_A_RUN)):
        total += await ctx.receive(GO)
    left -= min(left, SIGNALS_A_RUN)
    return await ctx.continue_as_new(left, total) if ctx.info.history_length > SIGNALS_A_RUN else total


@orchestrator
async def account(ctx: Context, enough: int) -> int:
    """Updates until there is enough."""
    total = 0
    done = asyncio.Event()

    async def add(n: int) -> int:
        nonlocal total
        total += await double(n)
        if total >= enough:
            done.set()
        return total

    def check(n: int) -> None:
        if n <= 0:
            raise ValueError("only more is more")

    ctx.on_update(ADD, add, validate=check)
    await done.wait()
    return total


@orchestrator
async def heard(ctx: Context) -> list[int]:
    """What it is told by a signal, and by an update."""
    told: list[int] = []
    done = asyncio.Event()

    def add(n: int) -> int:
        told.append(n)
        done.set()
        return len(told)

    ctx.on_update(ADD, add)
    told.append(await ctx.receive(GO))
    await done.wait()
    return told


@orchestrator
async def parent_of_one(ctx: Context, n: int) -> int:
    return await pipeline(n)


@orchestrator
async def tidy(ctx: Context, n: int) -> int:
    """Cleans up when it is cancelled."""
    try:
        return await ctx.receive(GO)
    except asyncio.CancelledError:
        await double(n)
        raise


@orchestrator
async def watched(ctx: Context, question: str) -> list[int]:
    """Activities whose hearts beat: one that runs, and one that is answered by number."""
    return [await beating(3), await muse(question)]


ACTIVITIES: list[Activity[..., Any]] = [
    beating,
    muse,
    double,
    triple,
    flaky,
    oversleep,
    oversleep_async,
    fatal,
    once,
    ask,
]
ORCHESTRATORS: list[Orchestrator[..., Any]] = [
    watched,
    pipeline,
    heard,
    parent_of_one,
    mixed,
    fan_out,
    sleeper,
    fan_out_of_four,
    overslept,
    impatient,
    asker,
    survivor,
    careful,
    neighbour,
    near_survivor,
    everything,
    endless,
    killer,
    echo,
    failing,
    member,
    family,
    relay,
    tally,
    account,
    tidy,
]
