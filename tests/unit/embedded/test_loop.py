"""The thread of async activities outlives what its tasks raise, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from durably.embedded.loop import LoopThread
from tests.unit.embedded.waiting import eventually

SOON_S = 10.0


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_without_a_task_there_is_no_thread() -> None:
    loop = LoopThread()
    assert "durably-async" not in names()
    loop.stop()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_task_that_ends_the_loop_ends_only_itself(error: BaseException) -> None:
    loop, ran = LoopThread(), threading.Event()

    async def fatal() -> None:
        try:
            raise error
        finally:
            asyncio.get_running_loop().set_exception_handler(lambda _, __: None)

    async def sound() -> None:
        await asyncio.sleep(0.01)
        ran.set()

    try:
        loop.run(fatal)
        loop.run(sound)
        assert ran.wait(SOON_S)
    finally:
        loop.stop()


def test_stopping_cancels_what_runs_and_ends_the_thread() -> None:
    loop, began, ended = LoopThread(), threading.Event(), threading.Event()

    async def endless() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    loop.run(endless)
    assert began.wait(SOON_S)
    loop.stop()
    assert ended.is_set()
    eventually(lambda: "durably-async" not in names())
    loop.stop()


def test_what_comes_after_the_end_is_not_run() -> None:
    loop, ran = LoopThread(), threading.Event()

    async def late() -> None:
        ran.set()

    loop.stop()
    loop.run(late)
    assert not ran.wait(0.05)
