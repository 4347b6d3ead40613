"""Which source line a request is recorded with: the user's, also where code of ours makes the call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from durably import Context, orchestrator
from durably.api.orchestrator import Orchestrator
from durably.core.events import ActivityScheduled, ChildScheduled
from tests.unit.runtime.programs import process_of, step


@orchestrator
async def child(ctx: Context, number: int) -> int:
    return number


def lines_of(asked: Orchestrator[[], Any]) -> list[str]:
    """The source lines that the requests of an execution are recorded with."""
    process = process_of(asked, child)
    process.client.start("e", asked)
    process.work()
    code, first = inspect.getsourcelines(asked.fn)
    sites = [
        entry.event.call_site.rpartition(":")
        for entry in process.client.history("e")
        if isinstance(entry.event, ActivityScheduled | ChildScheduled)
    ]
    assert {file for file, _, _ in sites} == {"runtime/test_call_sites.py"}
    return [code[int(line) - first].strip() for _, _, line in sites]


def test_what_a_map_calls_is_recorded_with_the_line_of_the_map() -> None:
    @orchestrator
    async def mapped(ctx: Context) -> None:
        await ctx.map(step, [1, 2], concurrency=1)
        await ctx.map(child, [3])

    assert lines_of(mapped) == [*["await ctx.map(step, [1, 2], concurrency=1)"] * 2, "await ctx.map(child, [3])"]


def test_what_a_function_given_to_a_map_calls_is_recorded_with_its_own_line() -> None:
    @orchestrator
    async def mapped(ctx: Context) -> None:
        async def twice(number: int) -> int:
            return await step(2 * number)

        await ctx.map(twice, [1])

    assert lines_of(mapped) == ["return await step(2 * number)"]


def test_compensations_are_recorded_with_the_line_that_noted_them() -> None:
    def undoing(*, parallel: bool) -> Callable[[Context], Any]:
        async def undone(ctx: Context) -> None:
            async with ctx.saga(parallel=parallel) as saga:
                saga.compensate(step, 1)
                saga.compensate(child, number=2)
                raise ValueError("no")

        return undone

    for parallel in (False, True):
        undone = orchestrator(undoing(parallel=parallel))
        assert lines_of(undone) == ["saga.compensate(child, number=2)", "saga.compensate(step, 1)"]
