"""Programs that the runtime's tests run."""

from __future__ import annotations

import asyncio
from typing import Any

from durably import Context, Orchestrator, activity, orchestrator
from durably.runtime.runtime import Limits
from tests.unit.runtime.harness import Process

RAN: list[int] = []


@activity
def step(n: int) -> int:
    RAN.append(n)
    return n


@activity
def other(n: int) -> int:
    return -n


@orchestrator
async def steps(ctx: Context) -> int:
    return await step(1) + await step(2)


@orchestrator
async def fan_out(ctx: Context) -> int:
    return sum(await asyncio.gather(*(step(number) for number in range(10))))


@orchestrator
async def asleep(ctx: Context) -> str:
    await asyncio.sleep(60)
    return ctx.now().isoformat()


def edited(body: str) -> Orchestrator[..., Any]:
    """`steps`, as another version has it."""

    async def flow(ctx: Context) -> int:
        if body == "broken":
            raise AssertionError("unreachable: the first command differs")
        return await (step(1) if body == "mended" else other(1)) + await step(2)

    return orchestrator(name="steps")(flow)


def process_of(*definitions: Any, **limits: int) -> Process:
    return Process([*definitions, step, other], limits=Limits(**limits))
