"""The orchestrators and activities that are measured: the least work that has arguments and results."""

from __future__ import annotations

import asyncio

from durably import Context, activity, orchestrator


@activity
def add(total: int, number: int) -> int:
    return total + number


@orchestrator
async def add_in_sequence(ctx: Context, steps: int) -> int:  # noqa: ARG001  # every orchestrator takes it
    total = 0
    for number in range(steps):
        total = await add(total, number)
    return total


@orchestrator
async def add_at_once(ctx: Context, steps: int) -> int:  # noqa: ARG001  # every orchestrator takes it
    return sum(await asyncio.gather(*(add(1, number) for number in range(steps))))


ORCHESTRATORS = (add_in_sequence, add_at_once)
ACTIVITIES = (add,)
