"""Asynchronous generators inside an orchestrator: their clean-up runs when it should and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from durably.core.context import Context
from tests.unit.core.conftest import Start
from tests.unit.core.harness import ask


def test_an_async_generator_may_await_activities(start: Start) -> None:
    async def pages(ctx: Context) -> AsyncIterator[Any]:
        for page in range(2):
            yield await ask(ctx, "page", n=page)

    async def reading(ctx: Context) -> Any:
        return [page async for page in pages(ctx)]

    run = start(reading)
    assert run.asked == ['1 page {"n": 0}']
    assert run.completed(1, "first") == ['2 page {"n": 1}']
    assert run.completed(2, "second") == ['return ["first", "second"]']


def test_aclose_runs_the_finally_of_a_generator_which_may_ask_for_more(start: Start) -> None:
    async def pages(ctx: Context) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await ask(ctx, "tidy")

    async def reading(ctx: Context) -> int:
        async with contextlib.aclosing(pages(ctx)) as generator:
            return await anext(generator)

    run = start(reading)
    assert run.asked == ["1 tidy"]
    assert run.completed(1) == ["return 1"]


def test_a_generator_dropped_half_way_asks_for_nothing_whenever_the_collector_runs(start: Start) -> None:
    said: list[str] = []

    async def pages(ctx: Context) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            said.append("closed")
            await ask(ctx, "tidy")

    async def reading(ctx: Context) -> Any:
        async for _ in pages(ctx):
            break
        gc.collect()
        return await ask(ctx, "next")

    run = start(reading)
    assert run.asked == ["1 next"]
    assert said == []
    assert run.completed(1) == ["return null"]
    assert said == ["closed"]


def test_an_abandoned_generator_is_closed_in_the_context_it_was_iterated_in(start: Start) -> None:
    mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="nobody's")
    said: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            said.append(mine.get())

    async def reading(ctx: Context) -> None:
        mine.set("the execution's")
        async for _ in numbers():
            break
        await ask(ctx, "a")

    run = start(reading)
    run.execution.close()
    assert said == ["the execution's"]


def test_many_abandoned_generators_are_each_closed_once(start: Start) -> None:
    closed: list[int] = []

    async def numbers(number: int) -> AsyncIterator[int]:
        try:
            yield number
        finally:
            closed.append(number)

    async def reading(ctx: Context) -> None:
        for number in range(500):
            async for _ in numbers(number):
                break
            async for _ in numbers(-1):
                pass
        await ask(ctx, "a")

    run = start(reading)
    run.execution.close()
    assert sorted(number for number in closed if number >= 0) == list(range(500))


def test_a_generator_that_awaits_in_its_finally_does_not_survive_its_execution(start: Start) -> None:
    said: list[str] = []

    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            try:
                said.append("closing")
                await asyncio.sleep(0)
                said.append("unreachable")
            finally:
                said.append("closed")

    async def reading(ctx: Context) -> None:
        async for _ in stubborn():
            break
        await ask(ctx, "a")

    run = start(reading)
    run.execution.close()
    assert said == ["closing", "closed"]


def test_an_async_context_manager_made_of_a_generator_works(start: Start) -> None:
    @contextlib.asynccontextmanager
    async def lease(ctx: Context) -> AsyncIterator[str]:
        key = await ask(ctx, "acquire")
        try:
            yield key
        finally:
            await ask(ctx, "release", key=key)

    async def leasing(ctx: Context) -> str:
        async with lease(ctx) as key:
            await ask(ctx, "work", key=key)
        return key

    run = start(leasing)
    run.completed(1, "k")
    assert run.completed(2) == ['3 release {"key": "k"}']
    assert run.completed(3) == ['return "k"']


def test_closing_reaches_into_a_generator_that_is_being_iterated(start: Start) -> None:
    said: list[str] = []

    async def pages(ctx: Context) -> AsyncIterator[str]:
        try:
            while True:
                yield await ask(ctx, "page")
        finally:
            said.append("generator")

    async def reading(ctx: Context) -> None:
        try:
            async for _ in pages(ctx):
                pass
        finally:
            said.append("orchestrator")

    run = start(reading)
    run.completed(1, "first")
    run.execution.close()
    assert said == ["generator", "orchestrator"]
