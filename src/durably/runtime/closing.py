"""How runs end: what the record says then, who is told, and how the next run begins. Pure functions of turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from durably.core.events import (
    ENDINGS,
    LIFE_EVENTS,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ChildCompleted,
    ChildFailed,
    ChildScheduled,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionContinuedAsNew,
    ExecutionFailed,
    ExecutionReset,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    Request,
    Rewind,
    SignalDelivered,
    SignalFailed,
    SignalSent,
    StatusSet,
    TimerFired,
    TimerStarted,
)
from durably.core.failures import Failure
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.core.replay import RunState
from durably.ports.messages import Errand, EventMessage, Outgoing, Wake
from durably.ports.records import RecordChange

TERMINATED = "durably.Terminated"
CANCELLED = "durably.Cancelled"
_REMEMBERED_RESETS = 20
_ENDS = (*ENDINGS, ExecutionTerminated, ExecutionReset)


def record_change(run: RunKey, turn: Turn) -> RecordChange | None:
    """The change of the record that goes with a turn: its end, the next run, or a new custom status."""
    ending = next((event for event in (*turn.inbound, *turn.outbound[-1:]) if isinstance(event, _ENDS)), None)
    said = [event.status for event in turn.outbound if isinstance(event, StatusSet)]
    if ending is None and not said:
        return None
    change = RecordChange(
        status="running",
        run=run.run,
        turn=turn.number,
        code_version=turn.code_version,
        custom_status=said[-1] if said else None,
    )
    closed = replace(change, closed_at_ms=turn.at_ms)
    match ending:
        case None:
            return change
        case ExecutionTerminated(reason=reason):
            return replace(closed, status="terminated", failure=_terminated(reason))
        case ExecutionCompleted(result=result):
            return replace(closed, status="completed", result=result)
        case ExecutionFailed(failure=failure):
            return replace(closed, status="failed", failure=failure)
        case ExecutionCancelled(reason=reason):
            return replace(closed, status="cancelled", failure=_cancelled(reason))
        case ExecutionContinuedAsNew() | ExecutionReset():  # turn 0: the next run's turn 1 may be news
            return replace(change, run=run.run + 1, turn=0, reopen=isinstance(ending, ExecutionReset))


def cancels(run: RunKey, state: RunState, *, since: int) -> tuple[ActivityKey, ...]:
    """The dispatched activities and children that turn `since` or a later one left."""
    asked = state.cancelled_since(since)
    left = [child.seq for child in _orphans(state)] if state.closed else []
    return tuple(ActivityKey(run, seq) for seq in (*asked, *left))


def errands(run: RunKey, state: RunState, *, since: int) -> tuple[Outgoing, ...]:
    """What is to be done to the children that turn `since` or a later one left."""
    sent = [
        _errand(run, seq, state.cancelled_children[seq].execution_id, cancel=True)
        for seq in state.cancelled_since(since)
        if seq in state.cancelled_children
    ]
    if state.closed:
        for child in _orphans(state):
            cancel = child.options is not None and child.options.parent_close == "cancel"
            sent.append(_errand(run, child.seq, child.execution_id, cancel=cancel))
    return tuple(sent)


def notice(change: RecordChange | None, state: RunState) -> tuple[Outgoing, ...]:
    """What the parent is told of the end that a change of the record says."""
    parent = None if state.started is None else state.started.parent
    if parent is None or change is None or change.closed_at_ms is None:
        return ()
    event: InboundEvent
    if change.failure is not None:
        event = ChildFailed(seq=parent.seq, failure=change.failure)
    else:
        assert change.result is not None
        event = ChildCompleted(seq=parent.seq, result=change.result)
    return (Outgoing(EventMessage(run=parent.run, event=event)),)


def successor(run: RunKey, turn: Turn, state: RunState) -> Turn | None:
    """The first turn of the run that a continuing run goes on in: a pure function of what is stored.

    What the ended run was given and did not apply, though it is meant for the execution, goes along. `state` holds
    `turn`.
    """
    ending = turn.outbound[-1] if turn.outbound else None
    if not isinstance(ending, ExecutionContinuedAsNew):
        return None
    started = state.started
    assert started is not None
    first = replace(
        started,
        input=ending.input,
        seed=_next_seed(started.seed),
        origin=run.run + 1,
        seen=ending.seen,
        pinned=state.pinned,
        at_ms=turn.at_ms,
    )
    left = (event for event in state.waiting if isinstance(event, LIFE_EVENTS))
    carried = tuple(replace(event, at_ms=turn.at_ms) for event in (*ending.carried, *left))
    return Turn(
        number=1,
        kind="deferred",
        inbound=(first, *carried),
        outbound=(),
        applied_through=0,
        nonce=turn.nonce,
        code_version=turn.code_version,
        at_ms=turn.at_ms,
    )


def prefix(turns: Sequence[Turn], reset: ExecutionReset, *, nonce: str, code_version: str) -> Turn:
    """The first turn of the run that a reset begins: what `turns` hold through `reset.applied`, and what it keeps."""
    inbound = [event for turn in turns for event in turn.inbound if not isinstance(event, ExecutionReset)]
    started = inbound[0]
    if isinstance(started, ExecutionStarted) and started.pinned == "":
        taken = (turn.code_version for turn in turns if turn.applied_through)
        inbound[0] = replace(started, pinned=next(taken, ""))
    dropped = frozenset(reset.dropped)
    kept = [
        event for ordinal, event in enumerate(inbound, start=1) if ordinal > reset.applied and ordinal not in dropped
    ]
    outbound = [
        event
        for turn in turns
        for event in turn.outbound
        if event.cause <= reset.applied and not isinstance(event, ENDINGS)
    ]
    held: list[InboundEvent] = [*inbound[: reset.applied], *kept]
    every = (event for turn in turns for event in (*turn.inbound, *turn.outbound))
    held[0] = _begun_by(reset, held[0], reopens=any(isinstance(event, _ENDS) for event in every))
    return Turn(
        number=1,
        kind="applied" if reset.applied else "deferred",
        inbound=tuple(held),
        outbound=tuple(outbound),
        applied_through=reset.applied,
        nonce=nonce,
        code_version=code_version,
        at_ms=reset.at_ms,
    )


def _begun_by(reset: ExecutionReset, started: InboundEvent, *, reopens: bool) -> InboundEvent:
    """The start of a run with the input that a reset gave it, and that also knows which request began it."""
    if not isinstance(started, ExecutionStarted):
        return started
    if reset.input is not None:
        started = replace(started, input=reset.input)
    if reset.request_id is None or reset.begins is None:
        return started
    resets = (*(started.resets or ()), Rewind(request_id=reset.request_id, run=reset.begins, reopens=reopens))
    return replace(started, resets=resets[-_REMEMBERED_RESETS:])


def first_wake(run: RunKey) -> Outgoing:
    """Wakes a run whose first turn was stored by the end of the one before."""
    return Outgoing(Wake(run=run, turn=1))


def outliving(state: RunState, requests: Iterable[Request]) -> list[Request]:
    """Those that are carried out: of a run that has ended, signals to others and children that it abandoned."""
    if not state.closed:
        return list(requests)
    return [
        request
        for request in requests
        if isinstance(request, SignalSent)
        or (
            isinstance(request, ChildScheduled)
            and request.options is not None
            and request.options.parent_close == "abandon"
        )
    ]


def wakes(run: RunKey, following: Turn | None) -> tuple[Outgoing, ...]:
    """Wakes the run that follows, if one does."""
    return () if following is None else (first_wake(run.next),)


def answers(event: InboundEvent) -> int | None:
    """The number of the request that an event answers."""
    match event:
        case ActivityCompleted() | ActivityFailed() | TimerFired() | ChildCompleted() | ChildFailed():
            return event.seq
        case SignalDelivered() | SignalFailed():
            return event.seq
        case _:
            return None


def asked_by(outbound: Iterable[OutboundEvent]) -> dict[int, int]:
    """Which inbound event made the run ask for each numbered request."""
    return {
        event.seq: event.cause
        for event in outbound
        if isinstance(event, ActivityScheduled | TimerStarted | ChildScheduled | SignalSent)
    }


def _terminated(reason: str) -> Failure:
    """The failure of a terminated execution."""
    return Failure(type=TERMINATED, message=reason, non_retryable=True)


def _cancelled(reason: str) -> Failure:
    return Failure(type=CANCELLED, message=reason, non_retryable=True)


def _orphans(state: RunState) -> list[ChildScheduled]:
    """The children that do not outlive their parent's run."""
    return [
        child for child in state.children.values() if child.options is None or child.options.parent_close != "abandon"
    ]


def _errand(run: RunKey, seq: int, execution_id: str, *, cancel: bool) -> Outgoing:
    return Outgoing(
        Errand(key=ActivityKey(run, seq), execution_id=execution_id, action="cancel" if cancel else "terminate")
    )


def _next_seed(seed: int) -> int:
    return (seed * 6364136223846793005 + 1442695040888963407) % 2**63  # Knuth's MMIX generator
