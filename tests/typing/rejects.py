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
    RetryPolicy,
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
    env.mock(route_packet)  # E: an orchestrator is no activity
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
