"""Replay: an orchestrator brought back to life from its history, without storage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.measuring import Bench, Measurement, best, seconds_of
from benchmarks.workloads import ACTIVITIES, ORCHESTRATORS, add_at_once, add_in_sequence
from durably import Orchestrator, Registry
from durably.codec import wire
from durably.codec.payloads import PydanticCodec
from durably.core.commands import record_command
from durably.core.events import ActivityCompleted, ActivityScheduled, ExecutionStarted, InboundEvent, OutboundEvent
from durably.core.execution import Execution, Program
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.replay import RunState, replay

_RUN = RunKey("benchmark", "01J00000000000000000000000", 1)
_EVENTS_PER_TURN = 200
_NOW_MS = 1_700_000_000_000


def replay_sequential(bench: Bench) -> Iterator[Measurement]:
    yield from _each_size(bench, add_in_sequence, stored=True)


def replay_gathered(bench: Bench) -> Iterator[Measurement]:
    yield from _each_size(bench, add_at_once, stored=True)


def replay_decoded(bench: Bench) -> Iterator[Measurement]:
    yield from _each_size(bench, add_in_sequence, stored=False)


def _each_size(bench: Bench, orchestrator: Orchestrator[[int], int], *, stored: bool) -> Iterator[Measurement]:
    registry = Registry(ORCHESTRATORS, ACTIVITIES, codec=PydanticCodec())
    program = registry.program(orchestrator.name)
    assert program is not None
    for n in bench.sizes((100, 1_000, 10_000), (100, 1_000)):
        turns = _history(program, registry, n)
        rows = [wire.encode_turn(turn) for turn in turns]
        if stored:
            work = partial(_revive_stored, program, registry, rows)
            del turns  # 10,000 turns that nobody needs cost the collector's time
        else:
            work = partial(_revive, program, registry, turns)
        work()
        repeats = max(3, bench.repeats(30_000, 5_000) // n)
        yield Measurement(best([seconds_of(work) for _ in range(repeats)]) / n * 1e6, n)


def _revive(program: Program, registry: Registry, turns: Sequence[Turn]) -> None:
    execution = Execution(_RUN, program, registry.codec)
    replay(execution, turns)
    assert execution.closed, "the replay did not reach the end"


def _revive_stored(program: Program, registry: Registry, rows: Sequence[bytes]) -> None:
    turns = wire.decode_turns(rows)
    state = RunState()
    for turn in turns:
        state.add(turn)
    _revive(program, registry, turns)


def _history(program: Program, registry: Registry, n: int) -> list[Turn]:
    """The turns that the embedded runtime stores: one a step in sequence, slices of events at once."""
    execution = Execution(_RUN, program, registry.codec)
    started = ExecutionStarted(orchestrator=program.name, input=json.dumps({"steps": n}), seed=1, python="3", at_ms=1)
    waiting: list[InboundEvent] = [started]
    turns: list[Turn] = []
    while waiting:
        inbound, waiting = waiting[:_EVENTS_PER_TURN], waiting[_EVENTS_PER_TURN:]
        outbound: list[OutboundEvent] = []
        for event in inbound:
            commands = execution.apply(event)
            outbound += [record_command(command, cause=execution.applied, now_ms=_NOW_MS) for command in commands]
        waiting += [_completed(event) for event in outbound if isinstance(event, ActivityScheduled)]
        turns.append(_turn(len(turns) + 1, inbound, outbound, execution.applied))
    return turns


def _completed(event: ActivityScheduled) -> ActivityCompleted:
    arguments: dict[str, Any] = json.loads(event.input)
    result = json.dumps(arguments["total"] + arguments["number"])
    return ActivityCompleted(seq=event.seq, result=result, at_ms=_NOW_MS)


def _turn(number: int, inbound: Sequence[InboundEvent], outbound: Sequence[OutboundEvent], applied: int) -> Turn:
    return Turn(
        number=number,
        kind="applied",
        inbound=tuple(inbound),
        outbound=tuple(outbound),
        applied_through=applied,
        nonce="0123456789abcdef",
        code_version="0123456789ab",
        at_ms=_NOW_MS,
    )
