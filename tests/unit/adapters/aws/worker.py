"""The functions of a deployment, driven by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from durably import Context, activity, orchestrator
from durably.adapters.aws import AwsBackend
from durably.client import Client
from durably.ports.messages import ActivityTask, Delivery
from durably.runtime.attempt import Answer, Attempt, attempt_returned, open_attempt, settle_answer
from durably.runtime.runtime import Runtime
from durably.runtime.turn import TurnTaker
from tests.contract.aws import Cloud, SqsSource

STEPS = 20


@activity
def double(number: int) -> int:
    return 2 * number


@orchestrator
async def one_after_another(ctx: Context, steps: int) -> int:
    total = 0
    for number in range(steps):
        total += await double(number)
    return total


@orchestrator
async def all_at_once(ctx: Context, steps: int) -> int:
    return sum(await asyncio.gather(*(double(number) for number in range(steps))))


@dataclass
class Worker:
    """The two functions of a deployment, driven by hand."""

    made: Cloud
    backend: AwsBackend
    source: SqsSource
    runtime: Runtime
    taker: TurnTaker
    client: Client

    def receive(self) -> list[Delivery]:
        return self.source.receive(now_ms=self.made.clock.now_ms(), limit=10, visibility_ms=60_000)

    def step(self) -> bool:
        """One receive: all its turns and activities."""
        turns: dict[str, list[Delivery]] = {}
        received = self.receive()
        for delivery in received:
            if not isinstance(delivery.message, ActivityTask):
                turns.setdefault(delivery.message.run.execution_id, []).append(delivery)
                continue
            attempt = open_attempt(self.runtime, delivery)
            answer = (
                attempt_returned(self.runtime, attempt, attempt.call()) if isinstance(attempt, Attempt) else attempt
            )
            if isinstance(answer, Answer):
                settle_answer(self.runtime, answer)
        if turns:
            self.taker.take(turns)
        return bool(received)

    def run(self) -> None:
        while self.step():
            pass


Deploy = Callable[..., Worker]
