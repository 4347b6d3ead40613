"""What must hold once nothing is left to do, whatever went wrong before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from durably.api.scheduler import run_schedule
from durably.core.errors import Stall
from durably.core.events import (
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ChildCompleted,
    ChildFailed,
    ChildScheduled,
    ChildStarted,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionContinuedAsNew,
    ExecutionFailed,
    ExecutionReset,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    SignalDelivered,
    SignalFailed,
    SignalSent,
    TimerFired,
    TimerStarted,
)
from durably.core.execution import Execution
from durably.core.history import Turn
from durably.core.keys import ActivityKey
from durably.core.replay import replay
from durably.ports.records import Record
from durably.runtime.closing import CANCELLED, TERMINATED
from tests.simulation.activities import answer
from tests.simulation.effects import effects
from tests.simulation.interpret import describe_failure, program_of
from tests.simulation.lives import Life, family_promises, life_promises, runs_of
from tests.simulation.occurrences import schedule_promises
from tests.simulation.outside import Token
from tests.simulation.programs import Node, RaisedError, expected
from tests.simulation.world import World

_TERMINAL = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled, ExecutionTerminated)
_INTERMEDIATE = (ExecutionContinuedAsNew, ExecutionReset)
_FULL_PREFIXES = 8


def violations(world: World) -> list[str]:
    """What does not hold."""
    with world.in_force():
        return list(_violations(world))


def _violations(world: World) -> Iterator[str]:
    yield from world.broken
    yield from world.outside.broken
    yield from world.outside.senders.broken
    yield from world.outside.hearts.broken
    yield from _starts(world)
    yield from _terminations(world)
    yield from _attempts(world)
    messages = world.store.messages()
    if messages:
        yield f"messages are left over: {messages[:3]}"
    lives = [Life(record, runs_of(world, record)) for record in world.store.records()]
    for life in lives:
        for broken in (*_life(world, life), *life_promises(world, life)):
            yield f"{life.record.execution_id} ({life.record.gen}): {broken}"
    yield from family_promises(world, lives)
    yield from schedule_promises(world, lives)


def _life(world: World, life: Life) -> Iterator[str]:
    for number, turns in enumerate(life.runs, start=1):
        last = number == len(life.runs)
        yield from (f"run {number}: {broken}" for broken in history(turns, last=last))
        yield from (f"run {number}: {broken}" for broken in _replays(world, replace(life.record, run=number), turns))
        if turns:
            yield from (f"run {number}: {broken}" for broken in effects(world, life.key(number), turns))
        for token in world.outside.tokens.values():
            if token.claims.key.run == replace(life.record, run=number).key and token.accepted in {"ok", "late"}:
                yield from _callback_took_effect(token, turns)
    if life.runs[-1]:
        yield from _ends(world, life.record, life.runs[-1])


def history(turns: Sequence[Turn], *, last: bool = True) -> Iterator[str]:
    """What is wrong with the turns of one run, the last of its execution or not, whatever its program."""
    if not turns:
        yield "it has no turns"
        return
    ends = _TERMINAL if last else _INTERMEDIATE
    if [turn.number for turn in turns] != list(range(1, len(turns) + 1)):
        yield f"turns are not gapless: {[turn.number for turn in turns]}"
    yield from _order(turns)
    yield from _answers(turns)
    started = sum(isinstance(event, ExecutionStarted) for turn in turns for event in turn.inbound)
    if started != 1:
        yield f"{started} events ExecutionStarted"
    terminal = [(turn.number, event) for turn in turns for event in _all(turn) if isinstance(event, ends)]
    if len(terminal) != 1:
        yield f"{len(terminal)} terminal events, expected one: waits for ever? {terminal}"
    elif terminal[0][0] != len(turns):
        yield f"the execution closed in turn {terminal[0][0]} of {len(turns)}"


def _all(turn: Turn) -> tuple[InboundEvent | OutboundEvent, ...]:
    return (*turn.inbound, *turn.outbound)


def _order(turns: Sequence[Turn]) -> Iterator[str]:
    """Time never goes back, and no event is applied before it is stored, nor twice."""
    received = applied = latest_ms = 0
    for turn in turns:
        for event in turn.inbound:
            received += 1
            if event.at_ms < latest_ms:
                yield f"time goes back at turn {turn.number}: {event.at_ms} after {latest_ms}"
            latest_ms = event.at_ms
        if not applied <= turn.applied_through <= received:
            yield f"turn {turn.number} applies through {turn.applied_through} of {received}, after {applied}"
        applied = turn.applied_through


def _answers(turns: Sequence[Turn]) -> Iterator[str]:
    """Each seq is asked for once, and answered at most once, by an answer of its kind."""
    asked: dict[int, type[object]] = {}
    resolved: set[tuple[bool, int]] = set()
    prefixed = turns[0].applied_through > 0  # then its children start again
    for turn in turns:
        if turn.number == 1:  # it may be the prefix of another run
            yield from _asked(turn, asked)
        for event in turn.inbound:
            wanted = _ANSWERED.get(type(event))
            if wanted is None:
                continue
            seq: int = getattr(event, "seq", 0)
            if asked.get(seq) is not wanted:
                yield f"turn {turn.number} resolves {seq}, which nobody asked for: {event}"
            if (isinstance(event, ChildStarted), seq) in resolved and not prefixed:
                yield f"turn {turn.number} resolves {seq} again: {event}"
            resolved.add((isinstance(event, ChildStarted), seq))
        if turn.number > 1:
            yield from _asked(turn, asked)


def _asked(turn: Turn, asked: dict[int, type[object]]) -> Iterator[str]:
    for command in turn.outbound:
        if isinstance(command, ActivityScheduled | TimerStarted | ChildScheduled | SignalSent):
            if command.seq in asked:
                yield f"{command.seq} was asked for twice"
            asked[command.seq] = type(command)


_ANSWERED: dict[type[object], type[object]] = {
    **dict.fromkeys((ActivityCompleted, ActivityFailed), ActivityScheduled),
    **dict.fromkeys((ChildStarted, ChildCompleted, ChildFailed), ChildScheduled),
    **dict.fromkeys((SignalDelivered, SignalFailed), SignalSent),
    TimerFired: TimerStarted,
}


def outcome(node: Node) -> tuple[str, str]:
    """Status and result of a program's direct execution."""
    try:
        return "completed", json.dumps(json.dumps(expected(node)))
    except RaisedError as error:
        return "failed", str(error)


def _ends(world: World, record: Record, turns: Sequence[Turn]) -> Iterator[str]:
    started = turns[0].inbound[0]
    assert isinstance(started, ExecutionStarted)
    last = turns[-1]
    terminals = [event for event in _all(last) if isinstance(event, _TERMINAL)]
    said = _said(terminals[0]) if terminals else None
    recorded = (record.status, record.result or (record.failure and describe_failure(record.failure)))
    if record.closed_at_ms != last.at_ms or record.turn != last.number:
        yield f"the record says turn {record.turn} at {record.closed_at_ms}, the turns {last.number} at {last.at_ms}"
    if recorded != said:
        yield f"the record says {recorded}, the turns say {said}"
    if record.orchestrator == run_schedule.name:
        return
    root, _, child = record.execution_id.partition("@")[0].partition("/")
    operators = world.outside.operators
    if record.status in {"terminated", "cancelled"}:
        asked_for = operators.cancelled if record.status == "cancelled" else world.outside.terminated
        if not child and root not in asked_for and started.parent is None:
            yield f"{record.status}, and nobody asked for it"
    elif root in operators.disturbed:
        return
    elif recorded != outcome(program_of(started.input)):
        stack = record.failure.stack if record.failure else None
        yield f"ended as {recorded}, its direct execution as {outcome(program_of(started.input))}\n{stack or ''}"


def _said(
    event: ExecutionCompleted | ExecutionFailed | ExecutionCancelled | ExecutionTerminated,
) -> tuple[str, str]:
    match event:
        case ExecutionCancelled(reason=reason):
            return "cancelled", f"{CANCELLED.rpartition('.')[2]}: {reason}"
        case ExecutionCompleted(result=result):
            return "completed", result
        case ExecutionFailed(failure=failure):
            return "failed", describe_failure(failure)
        case ExecutionTerminated(reason=reason):
            return "terminated", f"{TERMINATED.rpartition('.')[2]}: {reason}"


def _replays(world: World, record: Record, turns: Sequence[Turn]) -> Iterator[str]:
    """The history from scratch: the whole of it, and each prefix (a few, if there are many)."""
    lengths = list(range(1, len(turns) + 1))
    if len(lengths) > _FULL_PREFIXES:
        lengths = [*sorted(world.rng.sample(lengths[:-1], 3)), lengths[-1]]
    program = world.registry.program(record.orchestrator)
    assert program is not None
    for length in lengths:
        execution = Execution(record.key, program, world.registry.codec)
        try:
            replay(execution, turns[:length])
        except Stall as stall:
            yield f"turns 1 to {length} do not replay: {stall}"
        finally:
            execution.close()


def _callback_took_effect(token: Token, turns: Sequence[Turn]) -> Iterator[str]:
    seq, result = token.claims.key.seq, str(answer(token.n))
    for turn in turns:
        for event in _all(turn):
            match event:
                case ActivityCompleted(seq=resolved, result=text) if resolved == seq and text == result:
                    return
                case ActivityCancelRequested(seq=cancelled) if cancelled == seq:
                    return
                case ExecutionTerminated() | ExecutionReset() | ExecutionContinuedAsNew():
                    return
                case _:
                    pass
    yield f"an accepted callback had no effect: {token.claims}"


def _starts(world: World) -> Iterator[str]:
    latest: dict[str, str] = {}
    lives: set[str] = set()
    for record in world.store.records():
        if latest.get(record.execution_id) == record.request_id:
            yield f"{record.request_id} replaced the life that it had started"
        latest[record.execution_id] = record.request_id
        lives.add(record.request_id)
    for start in world.outside.starts:
        if start.accepted and start.request_id not in lives:
            yield f"an accepted start was lost: {start}"


def _terminations(world: World) -> Iterator[str]:
    gens = {record.gen: record for record in world.store.records()}
    for execution_id, told in world.outside.terminated.items():
        for gen in told:
            if gen is not None and (gen not in gens or not gens[gen].closed):
                yield f"an accepted termination of {execution_id} had no effect"


def _attempts(world: World) -> Iterator[str]:
    names: dict[ActivityKey, str] = {}
    for record in world.store.records():
        for number, turns in enumerate(runs_of(world, record), start=1):
            for turn in turns:
                for event in turn.outbound:
                    if isinstance(event, ActivityScheduled):
                        names[ActivityKey(replace(record, run=number).key, event.seq)] = event.name
    for (key, attempt), count in world.runs.items():
        if count > 1 and names.get(key) in {"once", "beat_once"}:
            yield f"attempt {attempt} of at-most-once activity {key.seq} ran {count} times"
