"""Giving a live execution up: its clean-up code runs then and there, asks for nothing, and reaches nobody else."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.errors import Stall
from tests.unit.core.conftest import Start
from tests.unit.core.harness import Run, ask

ROOT = Path(__file__).parents[3]

mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="nobody's")


def test_close_runs_every_finally_in_its_own_context(start: Start) -> None:
    said: list[str] = []

    async def child(ctx: Context, name: str) -> None:
        mine.set(name)
        try:
            await ask(ctx, name)
        finally:
            said.append(f"{name} in {mine.get()}")

    async def parent(ctx: Context) -> None:
        mine.set("parent")
        try:
            await asyncio.gather(child(ctx, "a"), child(ctx, "b"))
        finally:
            said.append(f"parent in {mine.get()}")

    run = start(parent)
    run.execution.close()
    assert said == ["b in b", "a in a", "parent in parent"]
    assert mine.get() == "nobody's"


def test_clean_up_of_an_abandoned_execution_is_refused_every_command(start: Start) -> None:
    refused: list[str] = []

    async def tidy(ctx: Context) -> None:
        try:
            await ask(ctx, "a")
        finally:
            for attempt in (ask(ctx, "tidy"), asyncio.sleep(5)):
                try:
                    await attempt
                except Stall as refusal:
                    refused.append(str(refusal))

    run = start(tidy)
    run.execution.close()
    assert len(refused) == 2
    assert all("cannot ask for anything" in refusal for refusal in refused)


def test_a_task_group_leaves_nothing_for_the_collector(start: Start) -> None:
    said: list[str] = []

    async def group(ctx: Context) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(ask(ctx, "a"))
                await ask(ctx, "b")
        finally:
            said.append("closed")

    run = start(group)
    run.execution.close()
    assert said == ["closed"]


def test_tasks_that_asyncio_made_of_awaitables_are_closed(start: Start) -> None:
    said: list[str] = []

    class Answer:
        def __init__(self, ctx: Context, name: str) -> None:
            self.ctx, self.name = ctx, name

        def __await__(self) -> Generator[Any, Any, Any]:
            try:
                return (yield from ask(self.ctx, self.name).__await__())
            finally:
                said.append(self.name)

    async def gathers(ctx: Context) -> None:
        await asyncio.gather(Answer(ctx, "a"), Answer(ctx, "b"))

    run = start(gathers)
    run.execution.close()
    assert sorted(said) == ["a", "b"]


def test_coroutines_that_swallow_their_closing_do_not_outlive_it(start: Start) -> None:
    said: list[str] = []

    async def stubborn(ctx: Context) -> None:
        for _ in range(3):
            try:
                await asyncio.get_running_loop().create_future()
            except BaseException as error:
                said.append(type(error).__name__)
        said.append("gone")

    run = start(stubborn)
    run.execution.close()
    assert said == ["Abandoned"] * 3 + ["gone"]


def test_a_coroutine_that_never_stops_swallowing_harms_nobody(start: Start) -> None:
    swallowed: list[str] = []

    async def immortal(ctx: Context) -> None:
        while len(swallowed) < 10_000:
            try:
                await asyncio.get_running_loop().create_future()
            except BaseException as error:
                swallowed.append(type(error).__name__)

    async def other(ctx: Context) -> None:
        gc.collect()
        await ask(ctx, "a")

    run = start(immortal)
    run.execution.close()
    times = len(swallowed)
    assert 1 <= times < 1_000
    gc.collect()
    assert start(other).asked == ["1 a"]
    assert len(swallowed) == times


IMMORTAL = """
import asyncio, sys
from durably.core.context import Context
from tests.unit.core.harness import Run

async def immortal(ctx: Context) -> None:
    for times in range(10_000):
        try:
            await asyncio.get_running_loop().create_future()
        except BaseException:
            last = times
    sys.stderr.write("it ran on at exit")

async def generating(ctx: Context) -> None:
    async for _ in immortal_generator():
        await asyncio.get_running_loop().create_future()

async def immortal_generator():
    yield 1
    await immortal(None)

for orchestrate in (immortal, generating):
    run = Run(orchestrate)
    run.execution.close()
    del run
print("bye")
"""


def test_a_process_ends_beside_a_coroutine_that_never_stops_swallowing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMMORTAL],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "bye\n", "")


def test_an_execution_dropped_without_being_closed_does_not_reach_into_another() -> None:
    seen: list[str] = []

    async def careless(ctx: Context) -> None:
        try:
            await ask(ctx, "a")
        finally:
            seen.append(mine.get())
            await ask(ctx, "tidy")

    async def innocent(ctx: Context) -> None:
        mine.set("innocent")
        gc.collect()
        await ask(ctx, "b")

    dropped = Run(careless)
    dropped.execution.close()
    del dropped
    run = Run(innocent)
    assert run.asked == ["1 b"]
    assert seen == ["nobody's"]
    run.execution.close()


def test_closing_a_thousand_pending_tasks_makes_no_noise(
    start: Start, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async def crowd(ctx: Context) -> None:
        async def fail() -> None:
            raise ValueError("nobody looks at this")

        asyncio.create_task(fail())
        await asyncio.gather(*(ask(ctx, "a", n=number) for number in range(1_000)))

    with caplog.at_level(logging.DEBUG):
        run = start(crowd)
        run.completed(1)
        run.execution.close()
        del run
        gc.collect()
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


def test_a_system_exit_in_clean_up_does_not_take_the_process_along(start: Start) -> None:
    said: list[str] = []

    async def leaving(ctx: Context) -> None:
        async def child() -> None:
            try:
                await ask(ctx, "a")
            finally:
                raise SystemExit(3)

        try:
            await child()
        finally:
            said.append("closed")

    run = start(leaving)
    run.execution.close()
    assert said == ["closed"]


def test_an_interrupt_in_clean_up_propagates_after_everything_is_closed() -> None:
    said: list[str] = []

    async def leaving(ctx: Context) -> None:
        async def child() -> None:
            try:
                await ask(ctx, "a")
            finally:
                raise KeyboardInterrupt

        task = asyncio.create_task(child())
        try:
            await task
        finally:
            said.append("closed")

    run = Run(leaving)
    with pytest.raises(KeyboardInterrupt):
        run.execution.close()
    assert said == ["closed"]


def test_closing_twice_and_events_after_closing_do_nothing(start: Start) -> None:
    async def one(ctx: Context) -> None:
        await ask(ctx, "a")

    run = Run(one)
    run.execution.close()
    run.execution.close()
    assert run.completed(1) == []


def test_the_logger_says_nothing_while_an_execution_is_given_up(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def chatty(ctx: Context) -> None:
        try:
            await ask(ctx, "a")
        finally:
            ctx.logger.warning("cleaned up")

    run = start(chatty)
    with caplog.at_level(logging.INFO):
        run.execution.close()
    assert caplog.messages == []


def test_termination_closes_the_code_without_asking_it(start: Start) -> None:
    said: list[str] = []

    async def long(ctx: Context) -> None:
        try:
            await ask(ctx, "a")
        finally:
            said.append("closed")
            await ask(ctx, "tidy")

    run = Run(long)
    assert run.terminated() == []
    assert run.execution.closed
    assert said == ["closed"]
    assert run.completed(1) == []


def test_a_drain_inside_another_loop_works_and_restores_it(start: Start) -> None:
    async def inner(ctx: Context) -> Any:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(ask(ctx, "a"))
        return task.result()

    async def outer() -> list[str]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        run = start(inner)
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        said = run.completed(2, "A")
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        run.execution.close()
        return said

    assert asyncio.run(outer()) == ['return "A"']


def test_executions_may_be_driven_from_inside_each_other(start: Start) -> None:
    async def inner(ctx: Context) -> Any:
        return await ask(ctx, "inner")

    async def outer(ctx: Context) -> Any:
        task = asyncio.current_task()
        run = Run(inner)
        assert run.completed(1, 1) == ["return 1"]
        assert asyncio.current_task() is task
        return await ask(ctx, "outer")

    run = start(outer)
    assert run.asked == ["1 outer"]
