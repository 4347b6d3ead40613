"""Runs every program under a few schedules and says what it asked for, event by event.

`python -m tests.determinism.record [neighbours]` prints that as text, with so many other executions open beside each.
It needs the standard library, the core and nothing else.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from durably.core.commands import describe_outbound
from durably.core.context import Context
from durably.core.events import (
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    Event,
    ExecutionFailed,
    OutboundEvent,
    TimerFired,
    TimerStarted,
)
from durably.core.failures import Failure
from durably.core.history import Turn, read_history
from durably.core.replay import RunState
from tests.determinism.programs import PROGRAMS
from tests.unit.core.harness import Run

SCHEDULES = range(4)
NO = Failure(type="app.RefusedError", message="no", bases=("builtins.Exception",))


def run(name: str, schedule: int) -> Run:
    """The program, its answers arriving in the order that the schedule draws: timers among activities."""
    rng, program = Random(f"{name} {schedule}"), PROGRAMS[name]

    async def orchestrate(ctx: Context) -> Any:
        return await program(ctx)

    recorded, state = Run(orchestrate, seed=schedule), RunState()
    while True:
        state.add(recorded.turns[-1])
        waiting = list(state.unresolved.values())
        if recorded.execution.closed or not waiting:
            return recorded
        asked = waiting[int(rng.random() * len(waiting))]
        assert isinstance(asked, ActivityScheduled | TimerStarted)  # the programs ask for nothing else
        if isinstance(asked, TimerStarted):
            due = min((e for e in waiting if isinstance(e, TimerStarted)), key=lambda e: e.due_ms)
            recorded.fired(due.seq, after_ms=max(0, due.due_ms - recorded.now_ms))
        elif schedule and rng.random() < 0.2:
            recorded.failed(asked.seq, NO)
        else:
            recorded.completed(asked.seq, f"{asked.name}!", after_ms=int(rng.random() * 700))


def bare(turn: Turn) -> Turn:
    """Without what depends on files and lines."""
    outbound = tuple(
        replace(event, call_site="")
        if isinstance(event, ActivityScheduled | TimerStarted)
        else replace(event, failure=Failure(type=event.failure.type, message=event.failure.message))
        if isinstance(event, ExecutionFailed)
        else event
        for event in turn.outbound
    )
    return replace(turn, outbound=outbound)


def text_of(turns: Iterable[Turn]) -> Iterator[str]:
    """A history as lines: what happened, and indented what it made the program ask for."""
    for entry in read_history(turns):
        yield _line(entry.event)


def _line(event: Event) -> str:
    match event:
        case ActivityCompleted() | ActivityFailed() | TimerFired():
            return f"{event.kind} {event.seq}"
        case ActivityScheduled() | TimerStarted():
            return f"    {event.seq} {describe_outbound(event).rpartition(' at ')[0]}"
        case _ if isinstance(event, OutboundEvent):
            return f"    {describe_outbound(event)}"
        case _:
            return event.kind


def main(neighbours: int = 0) -> None:
    open_ones = [Run(PROGRAMS["gathers" if number % 3 else "everybody_out"]) for number in range(neighbours)]
    for name in PROGRAMS:
        for schedule in SCHEDULES:
            if open_ones:
                open_ones.pop(len(open_ones) // 2).execution.close()
                gc.collect()
            recorded = run(name, schedule)
            recorded.check()
            recorded.execution.close()
            print(f"== {name}, schedule {schedule}")
            print("\n".join(text_of(map(bare, recorded.turns))))
    for neighbour in open_ones:
        neighbour.execution.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
