"""Activities whose hearts beat, and attempts of them whose function is the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durably import (
    ActivityError,
    Callback,
    Context,
    RetryPolicy,
    activity,
    callback_activity,
    heartbeat,
    orchestrator,
)
from durably.api.attempt import current_attempt
from durably.ports.messages import Delivery, HeartbeatCheck
from durably.ports.records import ActivityItem
from durably.runtime.attempt import (
    Attempt,
    open_attempt,
)
from durably.runtime.heartbeats import check_heartbeat
from tests.unit.runtime.harness import Process

TIMEOUT_MS = 20_000
STEADY = RetryPolicy(max_attempts=3, jitter=False)


@dataclass(frozen=True)
class Progress:
    done: int


@activity(retry=STEADY, heartbeat_timeout=timedelta(seconds=20))
def steps() -> str:
    return "done"


@activity(retry=STEADY)
def unwatched() -> str:
    return "done"


@activity(retry=STEADY, at_most_once=True, heartbeat_timeout=timedelta(seconds=20))
def once() -> str:
    return "done"


@activity(retry=STEADY, local=True)
def near() -> str:
    return "done"


HANDED: list[Callback[int]] = []


@callback_activity(retry=STEADY, timeout=timedelta(minutes=10), heartbeat_timeout=timedelta(seconds=20))
def ask(callback: Callback[int]) -> None:
    HANDED.append(callback)


ACTIVITIES: list[Any] = [steps, unwatched, once, near, ask]


@orchestrator
async def flow(ctx: Context, name: str) -> Any:
    try:
        return await next(each for each in ACTIVITIES if each.name == name)()
    except ActivityError as error:
        return [error.type.rpartition(".")[2], error.attempt, error.failure.message]


@orchestrator
async def impatient(ctx: Context, name: str) -> str:
    call = asyncio.create_task(next(each for each in ACTIVITIES if each.name == name)())
    await asyncio.sleep(1)
    call.cancel()
    await asyncio.sleep(1_000)
    return "gave up"


class Running:
    """An attempt whose function is the test: `beat` is what it would call."""

    def __init__(self, process: Process, delivery: Delivery) -> None:
        opened = open_attempt(process.runtime, delivery)
        assert isinstance(opened, Attempt), opened
        self.attempt = opened
        self.process = process

    def within(self, call: Callable[[], Any]) -> Any:
        token = current_attempt.set(self.attempt.info)
        try:
            return call()
        finally:
            current_attempt.reset(token)

    def beat(self, details: object = None, **kwargs: Any) -> None:
        self.within(lambda: heartbeat(details, **kwargs))

    def item(self) -> ActivityItem | None:
        return self.process.backend.read_item(self.attempt.task.key)

    def details(self) -> Any:
        item = self.item()
        return None if item is None or item.details is None else json.loads(item.details)


def begun(process: Process, name: str, program: Any = flow) -> Running:
    process.client.start("e", program, name)
    process.take_due()
    (task,) = process.tasks()
    return Running(process, task)


def next_attempt(process: Process) -> Running:
    """The attempt that follows, once its pause is over."""
    process.clock.advance(2_000)
    (task,) = process.tasks()
    return Running(process, task)


def silence(process: Process, milliseconds: int) -> None:
    """Let time pass in which only checks are made."""
    until = process.clock.now_ms() + milliseconds
    while process.clock.now_ms() < until:
        process.clock.advance(min(1_000, until - process.clock.now_ms()))
        for delivery in process.receive():
            if isinstance(delivery.message, HeartbeatCheck):
                check_heartbeat(process.runtime, delivery)
            else:
                process.backend.release(delivery.receipt, due_ms=process.clock.now_ms())
