"""A user's program. Type-checked by mypy strict and pyright strict (test_typing.py), never run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, assert_type
from uuid import UUID

from durably import (
    ActivityError,
    Callback,
    ChildError,
    ChildHandle,
    Client,
    Context,
    Handle,
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
    delivered: bool = False


@dataclass
class Delivery:
    delivered: bool


# --- activities: bare and with options, sync and async -------------------------------------------------


@activity
def get_route(failed: list[str]) -> str:
    return f"route-{len(failed)}"


@activity
async def price(packet: Packet, *, express: bool = False) -> Decimal:
    return Decimal(len(packet.contents) * (2 if express else 1))


@activity(name="archive-packet", aliases=["archive"], retry=RetryPolicy(max_attempts=3))
def archive(packet: Packet, days: int = 30) -> None: ...


@activity(timeout=timedelta(seconds=5), local=True)
async def weigh(packet: Packet) -> float:
    return float(len(packet.contents))


@activity(at_most_once=True)
def charge(amount: Decimal) -> UUID | None: ...


@callback_activity
def transmit(callback: Callback[Delivery], packet: Packet) -> None:
    assert_type(callback.url, str)


@callback_activity(timeout=timedelta(seconds=10), retry=RetryPolicy(max_attempts=2))
async def approve(callback: Callback[bool | None], packet: Packet, *, by: str) -> None: ...


# --- a contract, and its implementation elsewhere ------------------------------------------------------


@activity
def resize(image: bytes, width: int) -> bytes:
    raise NotImplementedError


@resize.implement
def resize_here(image: bytes, width: int) -> bytes:
    return image[:width]


@resize.implement
async def resize_there(image: bytes, width: int) -> bytes:
    return image[:width]


# --- the raw function, for unit tests ------------------------------------------------------------------


async def call_the_functions_themselves(packet: Packet) -> None:
    assert_type(get_route.fn([]), str)
    assert_type(await price.fn(packet, express=True), Decimal)
    _ = assert_type(weigh.fn(packet), Coroutine[Any, Any, float])
    assert_type(resize_here(b"", 1), bytes)
    assert_type(await resize_there(b"", 1), bytes)


# --- orchestrators -------------------------------------------------------------------------------------


@orchestrator
async def route_packet(ctx: Context, packet: Packet, max_attempts: int = 4) -> Packet:
    unawaited: Coroutine[Any, Any, str] = get_route([])
    assert_type(await unawaited, str)
    assert_type(await get_route([]), str)
    assert_type(await get_route(failed=["a"]), str)
    assert_type(await price(packet, express=True), Decimal)
    assert_type(await weigh(packet), float)
    assert_type(await charge(Decimal(1)), UUID | None)
    assert_type(await resize(b"", 1), bytes)
    await archive(packet)
    await archive(packet, days=7)

    patient = get_route.options(retry=RetryPolicy(max_attempts=max_attempts), timeout=timedelta(minutes=1))
    assert_type(await patient([]), str)
    assert_type(patient.fn([]), str)

    try:
        packet.delivered = (await transmit(packet)).delivered
    except ActivityError as error:
        assert_type(error.type, str)
        assert_type(error.matches(TimeoutError), bool)
        assert_type(error.matches("requests.exceptions.Timeout"), bool)
        ctx.logger.warning("transmit failed", extra={"error": str(error)})
    assert_type(await approve(packet, by="me"), bool | None)
    assert_type(await approve.options(timeout=timedelta(days=3))(packet, by="me"), bool | None)
    return packet


async def helper(packet: Packet) -> int:
    return len(await get_route([]))


@orchestrator
async def ordinary_asyncio(ctx: Context, packet: Packet) -> str:
    both = await asyncio.gather(get_route([]), price(packet))
    assert_type(both, tuple[str, Decimal])
    mixed = await asyncio.gather(get_route([]), transmit(packet), asyncio.sleep(1), helper(packet))
    assert_type(mixed, tuple[str, Delivery, None, int])
    many = await asyncio.gather(*(get_route([str(n)]) for n in range(500)))
    assert_type(many, list[str])
    assert_type(await asyncio.wait_for(transmit(packet), 10), Delivery)
    task = asyncio.create_task(get_route([]))
    _ = assert_type(task, asyncio.Task[str])
    async with asyncio.TaskGroup() as group:
        weighed = group.create_task(weigh(packet))
    assert_type(weighed.result(), float)
    async with asyncio.timeout(5):
        await asyncio.sleep(timedelta(days=30).total_seconds())
    return await asyncio.shield(task)


async def tell_all(ids: list[UUID]) -> None: ...


@orchestrator
async def shapes_of_waiting(ctx: Context, packets: list[Packet]) -> None:
    async with ctx.saga(parallel=True) as saga:
        saga.compensate(archive, packets[0], days=7)
        saga.compensate(tell_all, [])
        saga.compensate(route_packet, packets[0])
    assert_type(await ctx.map(weigh, packets, concurrency=5), list[float])
    assert_type(await ctx.map(weigh, packets, tolerated_failures=0.1), list[float | Exception])
    assert_type(await ctx.map(route_packet, packets), list[Packet])
    assert_type(await ctx.race(get_route([]), get_route(["a"])), str)
    assert_type(await ctx.race(get_route([]), asyncio.sleep(60), weigh(packets[0])), str | None | float)
    assert_type(await ctx.race(*(weigh(packet) for packet in packets)), float)


# --- talking to executions -----------------------------------------------------------------------------

DELIVERED = Signal[Delivery]("delivered")
NUDGE = Signal[None]("nudge")
ANSWERS = Signal[bool | None]("answers")
PROGRESS = Query[dict[str, int]]("progress")
ADD = Update[Packet, int]("add")
CLEAR = Update[None, list[Packet]]("clear")


@orchestrator
async def collect(ctx: Context, wanted: int) -> list[Packet]:
    packets: list[Packet] = []

    async def add(packet: Packet) -> int:
        await archive(packet)
        packets.append(packet)
        return len(packets)

    def clear(nothing: None) -> list[Packet]:
        return packets

    def check(packet: Packet) -> None: ...

    ctx.on_update(ADD, add, validate=check)
    ctx.on_update(ADD, lambda packet: len(packet.contents))
    ctx.on_update(CLEAR, clear)
    ctx.on_query(PROGRESS, lambda: {"packets": len(packets)})
    assert_type(await ctx.receive(DELIVERED), Delivery)
    assert_type(await ctx.receive(ANSWERS), bool | None)
    async for delivery in ctx.signals(DELIVERED):
        assert_type(delivery, Delivery)
        break
    await ctx.signal("packet-42", DELIVERED, Delivery(delivered=True))
    await ctx.signal("packet-42", NUDGE, None)
    ctx.set_status({"packets": len(packets)})
    assert_type(ctx.patched("a change"), bool)
    ctx.deprecate_patch("a change")
    assert_type(ctx.info.continue_as_new_suggested, bool)
    if len(packets) < wanted:
        await ctx.continue_as_new(wanted)  # does not return
    return packets


@orchestrator
async def parent(ctx: Context, packet: Packet) -> list[Packet]:
    assert_type(await route_packet(packet, max_attempts=1), Packet)
    child = await collect.options(execution_id="child", parent_close="cancel").start(3)
    _ = assert_type(child, ChildHandle[list[Packet]])
    await child.signal(DELIVERED, Delivery(delivered=True))
    try:
        assert_type(await child, list[Packet])
    except ChildError as error:
        assert_type(error.execution_id, str)
    child.cancel()
    async with asyncio.TaskGroup() as group:
        routed = group.create_task(route_packet(packet))
    assert_type(routed.result(), Packet)
    return await asyncio.wait_for(collect(2), 60)


@orchestrator(name="clock")
async def tell(ctx: Context) -> datetime:
    assert_type(ctx.execution_id, str)
    assert_type(ctx.uuid4(), UUID)
    assert_type(ctx.random, Random)
    assert_type(ctx.now(), datetime)
    return ctx.now()


# --- the client ----------------------------------------------------------------------------------------


def starts(client: Client, packet: Packet) -> None:
    handle = client.start("packet-42", route_packet, packet, max_attempts=2)
    assert_type(handle.result(), Packet)
    assert_type(client.start("packet-43", route_packet, packet).result(), Packet)
    assert_type(client.start("clock", tell).result(), datetime)
    assert_type(client.handle("packet-42", route_packet).result(), Packet)


def talks(client: Client, packet: Packet) -> None:
    handle = client.signal_with_start("all", DELIVERED, Delivery(delivered=True), collect, 3)
    _ = assert_type(handle, Handle[list[Packet]])
    handle.signal(DELIVERED, Delivery(delivered=False), request_id="ack-7")
    handle.signal(NUDGE, None)
    assert_type(handle.query(PROGRESS), dict[str, int])
    assert_type(handle.update(ADD, packet, timeout=1.5), int)
    assert_type(handle.update(CLEAR, None), list[Packet])
    client.signal("all", ANSWERS, None)
    assert_type(client.query("all", PROGRESS), dict[str, int])
    assert_type(client.update("all", ADD, packet, request_id="r"), int)
    client.signal_by_name("all", "answers", "true")
    assert_type(client.query_by_name("all", "progress"), str)
    assert_type(client.update_by_name("all", "clear", "null"), str)


def steers(client: Client) -> None:
    client.start("pinned", collect.options(pinned=True, id_reuse="use_existing"), 3).cancel("enough")
    client.suspend("all", "the bank is closed")
    client.resume("all")
    assert_type(client.retry("all"), int)
    assert_type(client.reset("all", 3), int)
    _ = assert_type(client.fork("all", "other", to_event=1, input_="{}"), Handle[Any])


# --- schedules and triggers ------------------------------------------------------------------------------


def schedule_and_trigger(client: Client, packet: Packet) -> None:
    schedules = Schedules(client)
    schedules.create("nightly", Cron("30 2 * * *", "Europe/Berlin"), route_packet, packet, max_attempts=2)
    schedules.update("nightly", Schedule(Cron("0 3 * * *"), overlap="buffer_one"))
    schedules.update("nightly", Schedule(Cron("0 3 * * *")), tell)
    assert_type(schedules.trigger("nightly"), str)


@on.s3(suffix=".csv")
@orchestrator
async def import_file(ctx: Context, file: on.S3Object) -> int:
    return len(file.key)


@on.http("POST /packets")
def accept(request: on.HttpRequest) -> on.Outcome:
    return on.start(route_packet, Packet(request.body.encode()), max_attempts=2)


assert_type(import_file.name, str)
assert_type(accept, on.Trigger[on.HttpRequest])


# --- tests -----------------------------------------------------------------------------------------------


def tests(env: Environment, packet: Packet) -> None:
    assert_type(env.run(route_packet, packet, max_attempts=2), Packet)
    assert_type(env.start("clock", tell).result(), datetime)
    assert_type(env.assert_replay_safe(route_packet, packet), Packet)
    routes = env.mock(get_route).returns("one", "other").takes(timedelta(seconds=5))
    routes.assert_called_with(["one"])
    routes.assert_called_with(failed=[])
    env.mock(get_route).side_effect(lambda failed: failed[0])
    env.mock(get_route).side_effect([ConnectionError("busy"), TimeoutError, "route"])
    env.mock(price).side_effect(quote)
    env.mock(price, quote)
    env.mock(get_route, lambda failed: failed[0])
    env.mock(transmit).leaves_open()
    env.mock(route_packet).returns(packet)
    env.mock(transmit).returns(Delivery(delivered=True))
    env.mock(transmit, lambda packet: Delivery(packet.delivered))
    env.mock("elsewhere").returns(3)
    env.mock(route_packet).returns(packet)
    env.mock(route_packet, lambda packet, max_attempts=4: packet)
    env.mock(route_packet).side_effect([ValueError("no"), packet])
    handle = env.start("collect", collect, 1)
    env.signal(handle, DELIVERED, Delivery(delivered=True))
    env.signal("collect", NUDGE, None)
    assert_type(env.query(handle, PROGRESS), dict[str, int])
    assert_type(env.update("collect", ADD, packet), int)
    assert_type(env.signal_with_start("id", NUDGE, None, route_packet, packet).result(), Packet)
    env.cancel(handle, "enough")
    env.callback(transmit).complete(Delivery(delivered=True))
    env.callback(transmit, "packet-42").fail(TimeoutError())


async def quote(packet: Packet, *, express: bool = False) -> Decimal:
    return Decimal(1)


# --- what takes functions takes activities -------------------------------------------------------------


def takes(step: Callable[[list[str]], Coroutine[Any, Any, str]]) -> None: ...


takes(get_route)
