"""What the kit's own tests run: small orchestrators, some of which must not be trusted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count as numbers

from durably import (
    ActivityError,
    Callback,
    ChildError,
    Context,
    Query,
    RetryPolicy,
    Signal,
    Update,
    activity,
    callback_activity,
    orchestrator,
)

PATIENT = RetryPolicy(max_attempts=4, initial_interval=timedelta(hours=1), jitter=False)


@dataclass
class Order:
    item: str
    notes: list[str] = field(default_factory=list[str])


@activity(retry=PATIENT, timeout=timedelta(minutes=1))
def price(item: str, count: int = 1) -> int:
    return len(item) * count


@activity
async def ship(order: Order) -> str:
    await asyncio.sleep(0)
    return f"shipped {order.item}"


@activity(local=True)
def stamp(text: str) -> str:
    return text.upper()


@activity
def archive(order: Order) -> None: ...


@activity
def weigh(order: Order) -> float:
    raise NotImplementedError


@callback_activity(timeout=timedelta(days=1), retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(hours=1)))
def approve(callback: Callback[bool], order: Order) -> None: ...


@callback_activity
def confirm(callback: Callback[str], order: Order) -> None: ...


@orchestrator
async def buy(ctx: Context, order: Order, count: int = 1) -> str:
    order.notes.append(f"costs {await price(order.item, count)}")
    await archive(order)
    return await stamp(await ship(order))


@orchestrator
async def approved(ctx: Context, order: Order) -> str:
    try:
        return "approved" if await approve(order) else "refused"
    except ActivityError as error:
        return f"nobody answered: {error.failure.message}"


@orchestrator
async def confirmed(ctx: Context, order: Order) -> str:
    return await confirm(order)


@orchestrator
async def weighed(ctx: Context, order: Order) -> float:
    try:
        return await weigh(order)
    except ActivityError:
        return -1.0


@orchestrator
async def elsewhere(ctx: Context, name: str) -> int:
    return await ctx.call("count_letters", returns=int, text=name)


@orchestrator
async def sleepy(ctx: Context, days: float) -> str:
    await asyncio.sleep(timedelta(days=days).total_seconds())
    return ctx.now().isoformat()


@orchestrator
async def polling(ctx: Context) -> None:
    for _ in numbers():
        await asyncio.sleep(60)


@orchestrator
async def stuck(ctx: Context) -> None:
    await asyncio.Event().wait()


# --- not to be trusted -----------------------------------------------------------------------------------

times_asked: list[str] = []


@orchestrator
async def remembers(ctx: Context, item: str) -> int:
    """Asks for something else each time that it is replayed."""
    times_asked.append(item)
    await asyncio.sleep(1)
    return await price(f"{item} {len(times_asked)}")


@orchestrator
async def unordered(ctx: Context, names: list[str]) -> list[int]:
    """The same in one process, another order under another hash seed."""
    return [await price(name) for name in set(names)]


@orchestrator
async def by_address(ctx: Context, items: list[str]) -> list[int]:
    """Objects are hashed by their address."""

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    return [await price(one.name) for one in {Named(item) for item in items}]


# --- that talk to others ---------------------------------------------------------------------------------

GO = Signal[int]("go")
SEEN = Query[list[int]]("seen")
ADD = Update[int, int]("add")


@orchestrator
async def collect(ctx: Context, wanted: int) -> list[int]:
    seen: list[int] = []

    async def add(number: int) -> int:
        await asyncio.sleep(60)
        return sum(seen) + number

    def check(number: int) -> None:
        if number < 0:
            raise ValueError("a number to add is positive")

    ctx.on_query(SEEN, lambda: list(seen))
    ctx.on_update(ADD, add, validate=check)
    async for number in ctx.signals(GO):
        seen.append(number)
        if len(seen) == wanted:
            break
    return seen


@orchestrator
async def patient(ctx: Context) -> str:
    """Cleans up when it is cancelled, which takes time."""
    try:
        await ctx.receive(GO)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)
        await archive(Order("rubbish"))
        raise
    return "gone"


@orchestrator
async def family(ctx: Context, names: list[str]) -> list[int]:
    return await asyncio.gather(*(measured(name) for name in names))


@orchestrator
async def measured(ctx: Context, name: str, factor: int = 1) -> int:
    return factor * await price(name)


@orchestrator
async def guardian(ctx: Context) -> str:
    """Starts a child, talks to it, and waits for a day at most."""
    child = await collect.start(1)
    await child.signal(GO, 7)
    try:
        async with asyncio.timeout(24 * 3600):
            return f"{child.execution_id} got {await child}"
    except ChildError as error:
        return f"{error.failure.type.rpartition('.')[2]}: {error.failure.message}"
    except TimeoutError:
        return "late"


@orchestrator
async def relay(ctx: Context, got: list[int]) -> list[int]:
    got = [*got, await ctx.receive(GO)]
    return got if len(got) == 3 else await ctx.continue_as_new(got)


@orchestrator
async def two_steps(ctx: Context) -> int:
    return await price.options(retry=RetryPolicy(max_attempts=1))("tea") + await price("coffee")


@orchestrator
async def endless(ctx: Context) -> None:
    while True:
        pass


@orchestrator
async def drifting(ctx: Context, rounds: int) -> None:
    """Another one each time that it is replayed, in a run that it goes on from."""
    times_asked.append("drift")
    if rounds:
        await price("x" * len(times_asked))
        await ctx.continue_as_new(rounds - 1)


@orchestrator
async def drifting_on(ctx: Context) -> int:
    times_asked.append("drift")
    return await price("x" * len(times_asked)) + await price("tea")
