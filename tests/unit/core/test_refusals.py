"""What cannot be durable is refused at once, and the refusal names what to do instead."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.errors import NotDurableError
from durably.core.loop import OrchestratorLoop
from tests.unit.core.conftest import Start
from tests.unit.core.harness import ask


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def on_the_loop(call: Callable[[], Any]) -> None:
    call()


REFUSED: dict[str, tuple[Callable[[], Awaitable[Any]], str]] = {
    "to_thread": (lambda: asyncio.to_thread(print), "@activity"),
    "run_in_executor": (lambda: on_the_loop(lambda: loop().run_in_executor(None, print)), "@activity"),
    "open_connection": (lambda: asyncio.open_connection("localhost", 1), "@activity"),
    "start_server": (lambda: asyncio.start_server(print, "localhost", 1), "@activity"),
    "create_subprocess_exec": (lambda: asyncio.create_subprocess_exec("true"), "@activity"),
    "create_subprocess_shell": (lambda: asyncio.create_subprocess_shell("true"), "@activity"),
    "getaddrinfo": (lambda: on_the_loop(lambda: loop().getaddrinfo("localhost", 1)), "@activity"),
    "call_soon_threadsafe": (lambda: on_the_loop(lambda: loop().call_soon_threadsafe(print)), "@activity"),
    "add_signal_handler": (
        lambda: on_the_loop(lambda: loop().add_signal_handler(signal.SIGTERM, print)),
        "outside the orchestrator",
    ),
    "add_reader": (lambda: on_the_loop(lambda: loop().add_reader(0, print)), "@activity"),
    "run_until_complete": (lambda: on_the_loop(lambda: loop().run_until_complete(loop().create_future())), "`await`"),
    "run_forever": (lambda: on_the_loop(lambda: loop().run_forever()), "`await`"),
    "stop": (lambda: on_the_loop(lambda: loop().stop()), "return to end the execution"),
    "set_exception_handler": (lambda: on_the_loop(lambda: loop().set_exception_handler(None)), "await the task"),
    "set_task_factory": (lambda: on_the_loop(lambda: loop().set_task_factory(None)), "numbered"),
    "set_debug": (lambda: on_the_loop(lambda: loop().set_debug(True)), "no debug mode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_the_refusal_names_the_alternative(start: Start, name: str) -> None:
    call, alternative = REFUSED[name]

    async def trying(ctx: Context) -> str:
        try:
            await call()
        except NotDurableError as refusal:
            return str(refusal)
        return "accepted"

    (line,) = start(trying).asked
    assert "is not durable inside an orchestrator" in line
    assert alternative in line


def test_an_unhandled_refusal_fails_the_execution(start: Start) -> None:
    async def trying(ctx: Context) -> None:
        await asyncio.to_thread(print)

    (line,) = start(trying).asked
    assert line.startswith("raise durably.core.errors.NotDurableError: loop.run_in_executor()")


def test_as_completed_over_bare_coroutines_is_refused(start: Start) -> None:
    async def trying(ctx: Context) -> None:
        bare = [ask(ctx, "a"), ask(ctx, "b")]
        try:
            for task in asyncio.as_completed(bare):
                await task
        finally:
            for coroutine in bare:
                coroutine.close()

    (line,) = start(trying).asked
    assert line.startswith("raise durably.core.errors.NotDurableError: asyncio.as_completed()")
    assert "as_completed([asyncio.create_task(c) for c in coroutines])" in line


def test_asyncio_run_is_refused_by_asyncio(start: Start) -> None:
    async def nothing() -> None: ...

    async def nested(ctx: Context) -> None:
        inner = nothing()
        try:
            asyncio.run(inner)
        finally:
            inner.close()

    (line,) = start(nested).asked
    assert line == "raise RuntimeError: asyncio.run() cannot be called from a running event loop"


@pytest.mark.parametrize("delay", [float("nan"), float("inf"), 101 * 366 * 24 * 3600.0])
def test_a_sleep_that_never_ends_is_refused(start: Start, delay: float) -> None:
    async def asleep(ctx: Context) -> None:
        await asyncio.sleep(delay)

    (line,) = start(asleep).asked
    assert line.startswith("raise ValueError" if math.isnan(delay) else "raise durably.core.errors.NotDurableError")


def test_a_negative_delay_is_none(start: Start) -> None:
    async def called(ctx: Context) -> None:
        asyncio.get_running_loop().call_later(-5, print)
        await ask(ctx, "a")

    assert start(called).asked == ["1 timer 0", "2 a"]


def test_every_method_of_a_loop_is_either_durable_or_refused() -> None:
    offered = {name for name, value in vars(asyncio.AbstractEventLoop).items() if callable(value)}
    assert not {name for name in offered if not name.startswith("__")} - set(vars(OrchestratorLoop))
