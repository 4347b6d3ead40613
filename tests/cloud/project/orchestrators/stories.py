"""Orchestrators of the cloud tests: each gets into one kind of trouble."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

from activities.fragile import dies
from activities.steps import doubles, echo, fails_twice, forgotten, takes_a_while, takes_too_long

from durably import ActivityError, Context, orchestrator

VERSION = 1


@orchestrator
async def sums(ctx: Context, count: int) -> int:
    """Of 1 to `count`, one activity after the other."""
    return sum([await echo(number) for number in range(1, count + 1)])


@orchestrator
async def fans_out(ctx: Context, count: int) -> int:
    """Of 1 to `count`, all activities at once."""
    return sum(await asyncio.gather(*(echo(number) for number in range(1, count + 1))))


@orchestrator
async def persists(ctx: Context, value: int) -> int:
    """Through two failures."""
    return await fails_twice(value)


@orchestrator
async def runs_out_of_time(ctx: Context) -> str:
    """The type of the failure of an activity that takes too long."""
    try:
        await takes_too_long()
    except ActivityError as error:
        return error.type
    return "nothing"


@orchestrator
async def waits_in_vain(ctx: Context, marks: str) -> str:
    """The type of the failure of a callback that does not come."""
    try:
        await forgotten(marks)
    except ActivityError as error:
        return error.type
    return "nothing"


@orchestrator
async def waits_for_hours(ctx: Context, marks: str) -> int:
    """What a callback brings that may take long."""
    return await forgotten.options(timeout=timedelta(hours=5))(marks)


@orchestrator
async def carries(ctx: Context, text: str) -> int:
    """Length of the text's double."""
    return len(await doubles(text))


@orchestrator
async def naps(ctx: Context, seconds: float) -> float:
    """How long it slept."""
    began = ctx.now()
    await asyncio.sleep(seconds)
    return (ctx.now() - began) / timedelta(seconds=1)


@orchestrator
async def works(ctx: Context, marks: str, seconds: float) -> int:
    """How often its activity began."""
    return await takes_a_while(marks, seconds)


@orchestrator
async def ponders(ctx: Context, marks: str) -> int:
    """Takes long over its first turn, the first time."""
    folder = Path(marks)
    begun = len(list(folder.iterdir())) + 1  # noqa: ASYNC240  # forbidden fruit, to be seen from outside
    (folder / f"{begun}-{os.getpid()}").touch()
    if begun == 1:
        time.sleep(2.5)  # noqa: ASYNC251
    return await echo(7)


@orchestrator
async def spins(ctx: Context) -> None:
    """Never ends its turn."""
    while True:
        pass


@orchestrator
async def kills(ctx: Context) -> None:
    """Ends every process that takes its turn."""
    os._exit(9)


@orchestrator
async def loses(ctx: Context) -> str:
    """The type of the failure of an activity whose messages become dead letters."""
    try:
        await dies()
    except ActivityError as error:
        return error.type
    return "nothing"


@orchestrator
async def is_upgraded(ctx: Context, seconds: float) -> list[int]:
    """Edited while it runs, beyond the point that it has reached."""
    first = await echo(1)
    await asyncio.sleep(seconds)
    return [first, await echo(2 if VERSION == 1 else 20)]


@orchestrator
async def is_broken(ctx: Context, seconds: float) -> int:
    """Edited while it runs, before that point: what it asked for first is another thing now."""
    first = await echo(1 if VERSION != 2 else 100)
    await asyncio.sleep(seconds)
    return first
