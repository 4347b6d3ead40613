"""Adding an event, a command or a message and forgetting a place that must know it fails here.

Samples are made from the annotations of each type, so that a new one is covered without being listed.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from durably.cli.output import event_row
from durably.codec import wire
from durably.core import commands as commands_module
from durably.core import events as events_module
from durably.core.commands import CallSite, Command, agrees, describe_command, describe_outbound, record_command
from durably.core.context import Context
from durably.core.events import (
    FACTS,
    Event,
    ExecutionSuspended,
    InboundEvent,
    OutboundEvent,
    PatchRecorded,
    SignalRejected,
    StatusSet,
    UpdateCompleted,
    UpdateFailed,
)
from durably.core.failures import Failure
from durably.core.history import HistoryEntry, Turn, read_history
from durably.core.keys import ActivityKey, RunKey
from durably.core.options import ActivityOptions
from durably.core.replay import RunState, replay
from durably.embedded import engine
from durably.ports import messages as messages_module
from durably.ports.messages import EventMessage, Message
from durably.ports.records import CLOSED
from durably.runtime import turn as turn_module
from durably.runtime.closing import record_change
from durably.runtime.dispatch import dispatches
from durably.views import event_view
from tests.simulation.world import World
from tests.unit.core.conftest import Start
from tests.unit.core.harness import Run, ask, line_of

EVENTS: tuple[Any, ...] = get_args(Event)
INBOUND: tuple[Any, ...] = get_args(InboundEvent)
OUTBOUND: tuple[Any, ...] = get_args(OutboundEvent)
COMMANDS: tuple[Any, ...] = get_args(Command)
MESSAGES: tuple[Any, ...] = get_args(Message)

RUN = RunKey("packet-42", "01HF", 1)
OPEN_ACTIVITY, OPEN_TIMER, OPEN_CHILD, OPEN_SIGNAL, FREE = 1, 2, 3, 4, 7
ANSWERS_AND_FACTS = {SignalRejected, UpdateCompleted, UpdateFailed, PatchRecorded, StatusSet}  # nothing waits for them
NOT_COMPARED = {
    "options": "a deployment may change them while executions run",
    "same": "how inputs are compared, not what is asked for",
    "site": "lines move",
    "chosen": "says whether the id is compared",
    "carried": "follows from the events",
    "seen": "follows from the events",
    "reason": "follows from the events",
    "patch_id": "a fact, taken from history",
    "status": "a fact, taken from history",
    "RejectSignal.request_id": "a fact, taken from history",
    "CancelChild.execution_id": "follows from seq",
    "failure": "messages of exceptions are not stable",
}


def by_name(kinds: Iterable[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


def sample(kind: Any, **given: Any) -> Any:
    """An instance of `kind`, each field filled by its annotation."""
    hints = get_type_hints(kind)
    names = hints if issubclass(kind, tuple) else [f.name for f in dataclasses.fields(kind) if f.name != "kind"]
    return kind(**{name: given[name] if name in given else _value(name, hints[name]) for name in names})


def _value(name: str, annotation: Any) -> Any:  # noqa: C901  # one line a type
    plain = {int: 3, str: '{"x": 1}' if name in {"input", "result"} else f"some {name}", bool: True}
    if annotation in plain:
        return plain[annotation]
    if annotation is Failure:
        return Failure(type="app.Error", message="no")
    if annotation is ActivityOptions:
        return ActivityOptions(start_to_close_ms=5)
    if annotation is CallSite:
        return CallSite(_value.__code__, 31)
    if annotation is RunKey:
        return RUN
    if annotation is ActivityKey:
        return ActivityKey(RUN, 3)
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if get_origin(annotation) in {Union, types.UnionType}:
        return _value(name, next(a for a in get_args(annotation) if a is not type(None)))
    if get_origin(annotation) is tuple:
        return (_value(name, get_args(annotation)[0]),)
    if name == "same":
        return lambda recorded, current: False
    return sample(annotation)


def defined_in(module: Any) -> set[Any]:
    """The types of a module that say `kind`, or that are tuples with a number or an outcome."""
    return {
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and "kind" in get_type_hints(value)
    }


# --- unions ---------------------------------------------------------------------------------------------------


def test_every_event_is_in_one_union() -> None:
    assert defined_in(events_module) == set(EVENTS)
    assert not set(INBOUND) & set(OUTBOUND)


def test_every_command_is_in_the_union() -> None:
    tuples = {
        value
        for value in vars(commands_module).values()
        if inspect.isclass(value) and issubclass(value, tuple) and value.__module__ == commands_module.__name__
    }
    assert tuples - {CallSite} == set(COMMANDS)


def test_every_message_is_in_the_union() -> None:
    assert defined_in(messages_module) == set(MESSAGES)


@by_name((*EVENTS, *MESSAGES))
def test_a_kind_is_the_name_of_its_type(kind: Any) -> None:
    assert sample(kind).kind == kind.__name__


@by_name(OUTBOUND)
def test_every_outbound_event_names_its_cause(kind: Any) -> None:
    assert "cause" in get_type_hints(kind)


@by_name(INBOUND)
def test_every_inbound_event_carries_its_instant(kind: Any) -> None:
    assert "at_ms" in get_type_hints(kind)


# --- the wire -------------------------------------------------------------------------------------------------


def turn_of(*inbound: Any, outbound: tuple[Any, ...] = (), number: int = 1, applied: int = 1) -> Turn:
    return Turn(
        number=number,
        kind="applied",
        inbound=inbound,
        outbound=outbound,
        applied_through=applied,
        nonce="n",
        code_version="v",
        at_ms=1,
    )


@by_name(INBOUND)
def test_every_inbound_event_is_stored_and_sent(kind: Any) -> None:
    turn, message = turn_of(sample(kind)), EventMessage(run=RUN, event=sample(kind))
    assert wire.decode_turn(wire.encode_turn(turn)) == turn
    assert wire.decode_message(wire.encode_message(message)) == message


@by_name(OUTBOUND)
def test_every_outbound_event_is_stored(kind: Any) -> None:
    turn = turn_of(outbound=(sample(kind),))
    assert wire.decode_turn(wire.encode_turn(turn)) == turn


@by_name(MESSAGES)
def test_every_message_is_sent(kind: Any) -> None:
    message = sample(kind)
    assert wire.decode_message(wire.encode_message(message)) == message


def test_every_message_has_an_id_of_its_own_that_names_its_run() -> None:
    every = [sample(kind) for kind in MESSAGES if kind is not EventMessage]
    every += [EventMessage(run=RUN, event=sample(kind)) for kind in INBOUND]
    ids = [message.id for message in every]
    assert all(id_.startswith("01HF.") for id_ in ids), ids
    for message in every:
        # what has a request id is the same in every run; a cancellation without one may be asked for again in the next
        asked_once = isinstance(message, EventMessage) and message.for_life and hasattr(message.event, "request_id")
        assert message.id.startswith("01HF.1.") is not asked_once, message
    assert len(set(ids)) == len(ids)


# --- commands -------------------------------------------------------------------------------------------------


def test_every_outbound_event_records_one_command() -> None:
    recorded = [type(record_command(sample(kind), cause=1, now_ms=5)) for kind in COMMANDS]
    assert len(recorded) == len(OUTBOUND)
    assert set(recorded) == set(OUTBOUND)


@by_name(COMMANDS)
def test_every_command_agrees_with_its_record_and_with_no_other(kind: Any) -> None:
    command = sample(kind)
    for other in COMMANDS:
        assert agrees(command, record_command(sample(other), cause=1, now_ms=5)) is (other is kind)


@by_name(COMMANDS)
def test_every_field_of_a_command_is_compared_or_said_not_to_be(kind: Any) -> None:
    recorded = record_command(sample(kind), cause=1, now_ms=5)
    others = {str: "another", int: 99}
    for name, annotation in get_type_hints(kind).items():
        if not {name, f"{kind.__name__}.{name}"} & set(NOT_COMPARED):
            assert not agrees(sample(kind, **{name: others[annotation]}), recorded), name


@by_name(COMMANDS)
def test_every_command_is_described_as_its_record_is(kind: Any) -> None:
    command = sample(kind)
    described = describe_command(command)
    assert described
    assert describe_outbound(record_command(command, cause=1, now_ms=5)) == described
    assert line_of(command)


# --- the live run ---------------------------------------------------------------------------------------------


async def waiting(ctx: Context) -> None:
    await ask(ctx, "a")


@by_name(INBOUND)
def test_every_inbound_event_is_applied_by_a_live_run(start: Start, kind: Any) -> None:
    run = Run(waiting)
    execution = run.execution if kind is not INBOUND[0] else run.fresh()
    execution.apply(sample(kind, **({"input": "[]"} if kind is INBOUND[0] else {})))
    execution.close()
    run.execution.close()


# --- RunState -------------------------------------------------------------------------------------------------


def state_of(*turns: Turn) -> RunState:
    """A run with something open of each kind, and `turns`."""
    state = RunState()
    for turn in turns:
        state.add(turn)
    return state


def seen(state: RunState) -> dict[str, Any]:
    """What a state says besides how much it received."""
    counts = {"turn", "received", "applied", "last_ms", "waiting"}
    return {name: repr(value) for name, value in vars(state).items() if name not in counts}


def opening() -> Turn:
    asked = {kind.__name__: kind for kind in OUTBOUND}
    return turn_of(
        outbound=(
            sample(asked["ActivityScheduled"], seq=OPEN_ACTIVITY, cause=1),
            sample(asked["TimerStarted"], seq=OPEN_TIMER, cause=1),
            sample(asked["ChildScheduled"], seq=OPEN_CHILD, cause=1),
            sample(asked["SignalSent"], seq=OPEN_SIGNAL, cause=1),
        ),
        applied=0,
    )


def variants(kind: Any) -> Iterator[Any]:
    """Samples that speak of what is open of each kind, and of something new."""
    if "seq" in get_type_hints(kind):
        yield from (sample(kind, seq=seq) for seq in (OPEN_ACTIVITY, OPEN_TIMER, OPEN_CHILD, OPEN_SIGNAL, FREE))
    else:
        yield sample(kind)


@by_name(INBOUND)
def test_every_inbound_event_is_known_to_the_state_of_a_run(kind: Any) -> None:
    before = seen(state_of(opening(), turn_of(number=2, applied=0)))
    for event in variants(kind):
        assert isinstance(state_of(opening()).accepts(event), bool)
    after = [seen(state_of(opening(), turn_of(event, number=2, applied=1))) for event in variants(kind)]
    assert any(state != before for state in after)
    suspended = turn_of(sample(ExecutionSuspended, request_id="earlier"), number=2, applied=1)
    assert any(
        state_of(*turns).accepts(event) for event in variants(kind) for turns in ((opening(),), (opening(), suspended))
    )


@by_name([kind for kind in OUTBOUND if kind not in ANSWERS_AND_FACTS])
def test_every_outbound_event_is_known_to_the_state_of_a_run(kind: Any) -> None:
    before = seen(state_of(opening(), turn_of(number=2, applied=0)))
    after = [seen(state_of(opening(), turn_of(outbound=(event,), number=2, applied=0))) for event in variants(kind)]
    assert any(state != before for state in after)


# --- the runtime ----------------------------------------------------------------------------------------------


@by_name(OUTBOUND)
def test_what_a_run_waits_for_is_dispatched_as_a_message_that_can_be_sent(kind: Any) -> None:
    for event in variants(kind):
        state = state_of(opening())
        due = state.add(turn_of(outbound=(event,), number=2, applied=0))
        sent = dispatches(RUN, due, now_ms=5)
        assert len(sent) == len(due)
        for outgoing in sent:
            assert str(FREE) in outgoing.message.id or str(event.seq) in outgoing.message.id
            assert wire.decode_message(wire.encode_message(outgoing.message)) == outgoing.message


def test_different_commands_are_dispatched_as_different_messages() -> None:
    due = [
        outgoing.message.id
        for kind in OUTBOUND
        if "seq" in get_type_hints(kind)
        for outgoing in dispatches(
            RUN, state_of().add(turn_of(outbound=(sample(kind, seq=FREE),), applied=0)), now_ms=5
        )
    ]
    assert due
    assert all(one != other for one, other in permutations(due, 2))


@by_name(EVENTS)
def test_every_event_that_closes_a_run_closes_its_record(kind: Any) -> None:
    event = sample(kind)
    turn = turn_of(event, applied=0) if kind in INBOUND else turn_of(outbound=(event,), applied=0)
    change = record_change(RUN, turn)
    if not state_of(turn).closed:
        assert change is None or change.closed_at_ms is None
    elif kind.__name__ in {"ExecutionContinuedAsNew", "ExecutionReset"}:
        assert change is not None
        assert (change.status, change.run) == ("running", RUN.run + 1)
    else:
        assert change is not None
        assert change.status in CLOSED
        assert (change.result is None) is not (change.failure is None)


@by_name(MESSAGES)
def test_every_message_is_known_to_whoever_receives_it(kind: Any) -> None:
    receivers = (inspect.getsource(engine), inspect.getsource(turn_module))
    assert any(re.search(rf"isinstance\([^)]*\b{kind.__name__}\b", source) for source in receivers)


def test_random_programs_bring_every_event_about() -> None:
    missing = {kind.__name__ for kind in EVENTS}
    for seed in range(200):
        world = World(seed, "atomic")
        world.run()
        for record in world.store.records():
            for run in range(1, record.run + 1):
                for entry in read_history(world.store.load_turns(dataclasses.replace(record.key, run=run))):
                    missing.discard(entry.event.kind)
        if not missing:
            return
    assert not missing


# --- reading it -----------------------------------------------------------------------------------------------


@by_name(OUTBOUND)
def test_every_outbound_event_is_read_behind_its_cause(kind: Any) -> None:
    cause, effect = sample(INBOUND[0]), sample(kind, cause=1)
    assert [entry.event for entry in read_history([turn_of(cause, outbound=(effect,))])] == [cause, effect]


@by_name(EVENTS)
def test_every_event_is_shown_with_all_it_says(kind: Any) -> None:
    entry = HistoryEntry(1, 1, sample(kind), applied=True)
    shown = json.loads(json.dumps(event_view(entry)))
    fields = {field.name for field in dataclasses.fields(kind)} - {"kind", "at_ms"}
    assert shown["event"] == kind.__name__
    assert {name.replace("due_at", "due_ms") for name in shown["attributes"]} == fields
    assert all(isinstance(cell, str) for cell in event_row(entry))


def test_a_replay_compares_every_command_that_is_no_fact(start: Start) -> None:
    """The unions above meet in `replay`: a history of each outbound event is refused by code that asks for nothing."""

    async def nothing(ctx: Context) -> None:
        await ctx._execution._loop.create_future()

    run = Run(nothing)
    for kind in set(OUTBOUND) - set(FACTS):
        execution = run.fresh()
        with pytest.raises(BaseException, match="the code now asks for nothing more"):
            replay(execution, [dataclasses.replace(run.turns[0], outbound=(sample(kind, cause=1),))])
        execution.close()
    run.execution.close()
