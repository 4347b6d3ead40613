"""Misuse, a line each. Every line marked `# E`, and no other, is an error to mypy and to pyright."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from durably import (
    ActivityError,
    Callback,
    Client,
    Context,
    Query,
    RetryPolicy,
    Signal,
    Update,
    activity,
    callback_activity,
    on,
    orchestrator,
)
from durably.schedules import Cron, Schedule, Schedules
from durably.testing import Environment


@dataclass
class Packet:
    contents: bytes


@dataclass
class Delivery:
    delivered: bool


@activity
def get_route(failed: list[str]) -> str:
    return "route"


@activity
async def price(packet: Packet, *, express: bool = False) -> Decimal:
    return Decimal(1)


@callback_activity
def transmit(callback: Callback[Delivery], packet: Packet) -> None: ...


@orchestrator
async def route_packet(ctx: Context, packet: Packet, attempts: int = 4) -> Packet:
    return packet


# --- calls ---------------------------------------------------------------------------------------------


@orchestrator
async def calls(ctx: Context, packet: Packet) -> None:
    await get_route("failed")  # E: a string is no list
    await get_route()  # E: an argument is missing
    await get_route([], [])  # E: one too many
    await get_route(routes=[])  # E: no such name
    await price(packet, True)  # E: keyword-only
    number: int = await get_route([])  # E: the result is a str
    route: str = get_route([])  # E: not awaited, it is no str
    get_route([])  # E: not awaited, it never runs
    (await price(packet)).append(1)  # E: a Decimal has no append
    await transmit(packet, packet)  # E: the engine passes the callback, not the caller
    await transmit()  # E: the packet is missing
    accepted: bool = await transmit(packet)  # E: the result is a Delivery
    pair: tuple[str, str] = await asyncio.gather(get_route([]), price(packet))  # E: the second is a Decimal


# --- options -------------------------------------------------------------------------------------------


get_route.options(retry=3)  # E: a RetryPolicy
get_route.options(timeout=10)  # E: a timedelta: ten of what?
get_route.options(retries=RetryPolicy())  # E: no such option
get_route.options(RetryPolicy())  # E: by keyword
RetryPolicy(max_attempts="3")  # E: a number
RetryPolicy(3)  # E: by keyword
RetryPolicy(max_attempt=3)  # E: no such field
RetryPolicy(max_attempts=3).max_attempts = 4  # E: frozen


async def options_keep_the_signature() -> None:
    await get_route.options(timeout=timedelta(seconds=1))("failed")  # E: still a list
    number: int = await get_route.options(timeout=timedelta(seconds=1))([])  # E: still a str


# --- decoration ----------------------------------------------------------------------------------------

activity(get_route.fn, retry=RetryPolicy())  # E: options come in a call of their own
activity(timeout=10)  # E: a timedelta
activity(max_attempts=3)  # E: that is the retry policy's
activity(3)  # E: not a function


def no_callback(packet: Packet) -> None: ...


def returns_its_result(callback: Callback[Delivery], packet: Packet) -> Delivery:
    return Delivery(True)


def not_async(ctx: Context, packet: Packet) -> Packet:
    return packet


async def no_context(packet: Packet) -> Packet:
    return packet


callback_activity(no_callback)  # E: the first parameter is the callback
callback_activity(returns_its_result)  # E: the result arrives through the callback
callback_activity()(no_callback)  # E: the same with options
orchestrator(not_async)  # E: an orchestrator is async
orchestrator(no_context)  # E: the first parameter is the context
orchestrator()(not_async)  # E: the same with options


# --- contracts and raw functions -----------------------------------------------------------------------


def other_parameters(failed: int) -> str:
    return "route"


def other_result(failed: list[str]) -> int:
    return 1


get_route.implement(other_parameters)  # E: takes something else
get_route.implement(other_result)  # E: returns something else
number: int = get_route.fn([])  # E: the function returns a str
amount: Decimal = price.fn(Packet(b""))  # E: the function is async


# --- the client ----------------------------------------------------------------------------------------


def starts(client: Client, packet: Packet) -> None:
    client.start("id", route_packet)  # E: the packet is missing
    client.start("id", route_packet, b"")  # E: bytes are no Packet
    client.start("id", route_packet, packet, "four")  # E: attempts are a number
    client.start("id", route_packet, packet, retries=4)  # E: no such parameter
    client.start("id", get_route, [])  # E: an activity is no orchestrator
    client.start("id", no_context, packet)  # E: not decorated
    client.start(42, route_packet, packet)  # E: an id is a string
    delivery: Delivery = client.start("id", route_packet, packet).result()  # E: the result is a Packet


# --- schedules and triggers ------------------------------------------------------------------------------


def schedules_and_triggers(schedules: Schedules, packet: Packet) -> None:
    schedules.create("id", Cron("0 3 * * *"), route_packet)  # E: the packet is missing
    schedules.create("id", "0 3 * * *", route_packet, packet)  # E: a string is no schedule
    schedules.update("id", Schedule(Cron("0 3 * * *"), overlap="never"))  # E: no such policy
    on.start(route_packet)  # E: the packet is missing
    on.s3()(other_result)  # E: takes no object of S3


# --- tests ---------------------------------------------------------------------------------------------


def tests(env: Environment, packet: Packet) -> None:
    env.run(route_packet)  # E: the packet is missing
    env.run(get_route, [])  # E: an activity is no orchestrator
    delivery: Delivery = env.run(route_packet, packet)  # E: the result is a Packet
    env.mock(route_packet).returns(3)  # E: the child returns a Packet
    env.mock(route_packet).leaves_open()  # E: a child has no callback
    env.signal("id", DELIVERED, packet)  # E: it carries a Delivery
    env.update("id", ADD, "packet")  # E: it takes a Packet
    env.mock(get_route).returns(3)  # E: it returns a str
    env.mock(get_route).returns("one", 2)  # E: the second is no str
    env.mock(get_route).side_effect([3])  # E: nor is this
    env.mock(get_route).assert_called_with("failed")  # E: a string is no list
    env.mock(get_route).assert_called_with()  # E: an argument is missing
    env.mock(get_route).leaves_open()  # E: only a callback activity has a callback
    env.mock(transmit).returns(packet)  # E: the callback brings a Delivery
    env.callback(get_route)  # E: it has no callback
    env.callback(transmit).complete(True)  # E: a bool is no Delivery
    env.mock(get_route, other_result)  # E: returns something else
    env.mock(price, other_result)  # E: takes something else


# --- talking to executions -----------------------------------------------------------------------------

DELIVERED = Signal[Delivery]("delivered")
PROGRESS = Query[int]("progress")
ADD = Update[Packet, int]("add")
Signal[Delivery]()  # E: a name
Signal[Delivery, int]("two")  # E: one type
Update[Packet]("add")  # E: argument and result
Query[int](name=3)  # E: a name is a string


@orchestrator
async def collect(ctx: Context, wanted: int) -> int:
    return wanted


async def receives(ctx: Context) -> None:
    text: str = await ctx.receive(DELIVERED)  # E: a Delivery
    delivery: Delivery = ctx.receive(DELIVERED)  # E: not awaited
    await ctx.receive("delivered")  # E: the constant, not its name
    await ctx.receive(PROGRESS)  # E: a query is no signal
    async for each in ctx.signals(DELIVERED):
        number: int = each  # E: a Delivery
    await ctx.signal("id", DELIVERED, Packet(b""))  # E: a Delivery
    ctx.signal("id", DELIVERED, Delivery(True))  # E: not awaited, it is never sent


async def waits() -> int:
    return 1


async def counts(packet: Packet) -> int:
    return 1


def names(packet: Packet) -> str:
    return "a"


def handles(ctx: Context) -> None:
    ctx.on_query(PROGRESS, lambda: "half")  # E: an int
    ctx.on_query(PROGRESS, waits)  # E: a query cannot wait
    ctx.on_query(PROGRESS, lambda packet: 1)  # E: a query has no argument
    ctx.on_query(ADD, lambda: 1)  # E: an update is no query
    ctx.on_update(ADD, names)  # E: the reply is an int
    ctx.on_update(ADD, waits)  # E: the packet is handed over
    ctx.on_update(ADD, counts, validate=waits)  # E: the packet is handed over
    ctx.on_update(ADD, counts, names)  # E: by keyword
    ctx.set_status()  # E: which status
    ctx.patched(7)  # E: an id is a string


@orchestrator
async def parent(ctx: Context, packet: Packet) -> None:
    await route_packet()  # E: the packet is missing
    await route_packet(packet, "four")  # E: attempts are a number
    number: int = await route_packet(packet)  # E: a Packet
    route_packet(packet)  # E: not awaited, it never runs
    child = await collect.start("three")  # E: a number
    other: str = await (await collect.start(3))  # E: an int
    (await collect.start(3)).result()  # E: it is awaited
    await (await collect.start(3)).signal(DELIVERED, 7)  # E: a Delivery
    await collect.options(parent_close="forget")(3)  # E: terminate, cancel or abandon
    await collect.options(execution_id=3)(3)  # E: an id is a string


def talks(client: Client, packet: Packet) -> None:
    handle = client.start("id", collect, 3)
    handle.signal(DELIVERED, packet)  # E: a Delivery
    handle.signal("delivered", Delivery(True))  # E: the constant, not its name
    handle.signal(DELIVERED)  # E: the payload is missing
    handle.signal(ADD, packet)  # E: an update is no signal
    text: str = handle.query(PROGRESS)  # E: an int
    handle.query(DELIVERED)  # E: a signal is no query
    reply: str = handle.update(ADD, packet)  # E: an int
    handle.update(ADD, Delivery(True))  # E: a Packet
    handle.update(ADD, packet, 5)  # E: by keyword
    client.signal_with_start("id", DELIVERED, Delivery(True), collect)  # E: wanted is missing
    client.signal_with_start("id", DELIVERED, packet, collect, 3)  # E: a Delivery
    client.signal_by_name("id", "delivered", {"delivered": True})  # E: JSON text
    client.reset("id", "3")  # E: a number
    client.reset("id")  # E: to where
    client.fork("id", "other", 3)  # E: by keyword
    run: str = client.retry("id")  # E: a number


# --- inside an orchestrator ----------------------------------------------------------------------------


def asks(ctx: Context, error: ActivityError, callback: Callback[Delivery]) -> None:
    seconds: float = ctx.now()  # E: a datetime
    text: str = ctx.uuid4()  # E: a UUID
    ctx.execution_id = "other"  # E: read-only
    ctx.sleep(3)  # E: asyncio.sleep is the one sleep
    ctx.saga().compensate(get_route)  # E: its argument is missing
    ctx.saga().compensate(len, [])  # E: no awaitable
    ctx.map(get_route, [1, 2])  # E: items are lists of strings
    ctx.race(get_route([]), 7)  # E: 7 cannot be awaited
    error.matches(ValueError("boom"))  # E: a class or its name, no instance
    callback.url = "elsewhere"  # E: read-only
    number: int = callback.url  # E: a str
