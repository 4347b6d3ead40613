"""Retry, reset and fork: a new run, or a new execution, that begins with a prefix of a stored run.

Nothing is ever truncated. The old run gets one more turn, which fences it and says how the next one begins; the next
one's first turn holds the prefix, and what the prefix asked for and has no answer to is dispatched under the new run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from durably.api.names import SCHEDULER, check_execution_id
from durably.core.errors import ClientError, ContendedError, ExecutionExistsError, NothingToRetryError
from durably.core.events import (
    ENDINGS,
    ActivityFailed,
    ChildCancelRequested,
    ChildFailed,
    ChildScheduled,
    ExecutionCancelRequested,
    ExecutionContinuedAsNew,
    ExecutionReset,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    SignalReceived,
    SignalSent,
    StatusSet,
    UpdateAccepted,
    UpdateCompleted,
    UpdateFailed,
)
from durably.core.failures import Failure
from durably.core.history import Turn, read_history
from durably.core.keys import RunKey
from durably.core.replay import RunState
from durably.ports.backend import Backend, Creation, TurnCommit
from durably.ports.clock import Clock, Entropy
from durably.ports.messages import Outgoing, Wake
from durably.ports.records import Record
from durably.runtime.closing import answers, asked_by, cancels, errands, first_wake, prefix, record_change
from durably.runtime.start import existing_record

_MAX_CONFLICTS = 20
_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)  # while somebody begins the next run; whoever died in it takes a minute


def retry_execution(
    backend: Backend,
    clock: Clock,
    entropy: Entropy,
    execution_id: str,
    reason: str,
    *,
    request_id: str,
    code_version: str,
    pause: Callable[[float], object],
) -> RunKey:
    """Open a closed execution again at its last good point; what succeeded is not run again.

    Args:
        backend: stores it.
        clock: stamps it.
        entropy: draws the nonce.
        execution_id: which execution.
        reason: for the history.
        request_id: the same retry under the same request id begins one run.
        code_version: of this process.
        pause: waits up to so many seconds while the run is ending.

    Returns:
        The new run.

    Raises:
        ExecutionNotFoundError: there is no such execution.
        NothingToRetryError: it is open, or it completed.
        ContendedError: it kept changing.
    """

    def chosen(record: Record, turns: Sequence[Turn]) -> ExecutionReset:
        if record.status not in ("failed", "cancelled", "terminated"):
            raise NothingToRetryError(
                f"Execution {execution_id!r} is {record.status}; only what failed, was cancelled or terminated can be "
                "retried. Use reset to go back in any other."
            )
        return _last_good_point(turns, reason, clock.now_ms())

    return _next_run(
        backend, entropy, execution_id, chosen, request_id=request_id, code_version=code_version, pause=pause
    )


def reset_execution(
    backend: Backend,
    clock: Clock,
    entropy: Entropy,
    execution_id: str,
    *,
    to_event: int,
    input_: str | None,
    reason: str,
    request_id: str,
    code_version: str,
    pause: Callable[[float], object],
) -> RunKey:
    """Go back to an event of the current run, open or closed. Later signals are kept, later answers are not.

    So are updates that somebody waits for the answer to.

    Args:
        backend: stores it.
        clock: stamps it.
        entropy: draws the nonce.
        execution_id: which execution.
        to_event: number in its history of the last event to keep.
        input_: as for a fork.
        reason: for the history.
        request_id: the same reset under the same request id begins one run.
        code_version: of this process.
        pause: waits up to so many seconds while the run is ending.

    Returns:
        The new run.

    Raises:
        ExecutionNotFoundError: there is no such execution.
        ClientError: there is no such event, it is not applied yet, or the input of a prefix that used it was changed.
        ContendedError: it kept changing.
    """

    def chosen(_: Record, turns: Sequence[Turn]) -> ExecutionReset:
        last = _kept_through(turns, to_event)
        answered = {e.request_id for e in _outbound(turns) if isinstance(e, UpdateCompleted | UpdateFailed)}
        dropped = tuple(
            ordinal
            for ordinal, event in enumerate(_inbound(turns), start=1)
            if ordinal > last
            and not isinstance(event, SignalReceived)
            and not (isinstance(event, UpdateAccepted) and event.request_id not in answered)
        )
        applied = _applied(turns, last, input_)
        return ExecutionReset(applied=applied, dropped=dropped, input=input_, reason=reason, at_ms=clock.now_ms())

    return _next_run(
        backend, entropy, execution_id, chosen, request_id=request_id, code_version=code_version, pause=pause
    )


def fork_execution(
    backend: Backend,
    clock: Clock,
    entropy: Entropy,
    execution_id: str,
    new_id: str,
    *,
    to_event: int,
    input_: str | None,
    request_id: str,
    code_version: str,
) -> Record:
    """Start another execution with a prefix of this one's current run.

    Args:
        backend: stores it.
        clock: stamps it.
        entropy: draws generation and nonce.
        execution_id: which execution.
        new_id: of the new one.
        to_event: number in the history of the last event to keep.
        input_: instead of the recorded input, JSON text; only with nothing but the start kept.
        request_id: the same fork under the same request id starts one execution.
        code_version: of this process.

    Raises:
        ExecutionNotFoundError: there is no such execution.
        ExecutionExistsError: the new id is taken.
        ClientError: there is no such event, the input of a prefix that used it was changed, or it is a schedule.
    """
    taken = backend.read_record(check_execution_id(new_id))
    if taken is not None and taken.request_id == request_id:
        if taken.turn == 0 and not taken.closed:
            backend.send((first_wake(taken.key),))  # whoever started it may have died before it could
        return taken
    source = existing_record(backend, execution_id)
    if source.orchestrator == SCHEDULER:
        raise ClientError(
            f"{execution_id!r} is a schedule, and what it starts is named after its own id, so it cannot be forked. "
            "Create another schedule, with the same definition."
        )
    turns = backend.load_turns(source.key)
    last = _kept_through(turns, to_event)
    applied = _applied(turns, last, input_)
    now_ms = max(clock.now_ms(), turns[-1].at_ms)
    later = tuple(range(last + 1, len(_inbound(turns)) + 1))
    reset = ExecutionReset(applied=applied, dropped=later, reason="", at_ms=now_ms)
    first = prefix(turns, reset, nonce=entropy.nonce(), code_version=code_version)
    started = _started([first])
    started = replace(started, parent=None, resets=None, input=started.input if input_ is None else input_)
    gen = entropy.ulid(now_ms)
    record = Record(
        execution_id=new_id,
        gen=gen,
        orchestrator=source.orchestrator,
        status="running",
        request_id=request_id,
        code_version=code_version,
        started_at_ms=now_ms,
        custom_status=next((e.status for e in reversed(first.outbound) if isinstance(e, StatusSet)), None),
    )
    creation = Creation(
        record=record,
        turn=replace(
            first,
            inbound=(started, *first.inbound[1:]),
            outbound=tuple(_renamed(event, execution_id, new_id) for event in first.outbound),
        ),
        wake=Outgoing(Wake(run=record.key, turn=1)),
        replace_closed=False,
    )
    outcome = backend.create(creation)
    if not outcome.created and outcome.record.request_id != request_id:
        raise ExecutionExistsError(f"The id {new_id!r} is taken. Choose another one.")
    return outcome.record


def _next_run(
    backend: Backend,
    entropy: Entropy,
    execution_id: str,
    chosen: Callable[[Record, Sequence[Turn]], ExecutionReset],
    *,
    request_id: str,
    code_version: str,
    pause: Callable[[float], object],
) -> RunKey:
    """The run that this request began, or begins now.

    A reset that somebody stored and did not finish is finished first.
    """
    pauses = iter(_PAUSES_S)
    for _ in range(_MAX_CONFLICTS):
        record = existing_record(backend, execution_id)
        turns = backend.load_turns(record.key)
        if any(isinstance(event, ExecutionContinuedAsNew) for event in turns[-1].outbound):
            length = next(pauses, None)
            if length is None:
                raise ContendedError(
                    f"run {record.run} of {execution_id} has ended, and the next one is about to begin; try again"
                )
            pause(length)
            continue
        for rewind in _started(turns).resets or ():
            if rewind.request_id == request_id:
                return replace(record.key, run=rewind.run)
        unfinished = _unfinished(turns)
        if unfinished is None:
            reset = replace(chosen(record, turns), request_id=request_id, begins=record.run + 1)
            if _store(backend, record, turns, reset, nonce=entropy.nonce(), code_version=code_version):
                return record.key.next
        elif _finish(backend, record, turns, unfinished) and unfinished.request_id == request_id:
            return record.key.next
    raise ContendedError(f"the execution {execution_id} kept changing; try again")


def _store(
    backend: Backend,
    record: Record,
    turns: Sequence[Turn],
    reset: ExecutionReset,
    *,
    nonce: str,
    code_version: str,
) -> bool:
    """Fence the run and open the next one; False if it took another turn meanwhile."""
    state = _state(turns)
    reset = replace(reset, at_ms=max(reset.at_ms, state.last_ms))
    last = Turn(
        number=len(turns) + 1,
        kind="deferred",
        inbound=(reset,),
        outbound=(),
        applied_through=state.applied,
        nonce=nonce,
        code_version=code_version,
        at_ms=reset.at_ms,
    )
    return _finish(backend, record, [*turns, last], reset)


def _finish(backend: Backend, record: Record, turns: Sequence[Turn], reset: ExecutionReset) -> bool:
    """Store the turn that fences the run, the last of `turns`, and all that goes with it; both may be there already."""
    run, state, last = record.key, _state(turns), turns[-1]
    commit = TurnCommit(
        run=run,
        turn=last,
        successor=prefix(turns[:-1], reset, nonce=last.nonce, code_version=last.code_version),
        send=(*errands(run, state, since=last.number), first_wake(run.next)),
        cancel=cancels(run, state, since=last.number),
        change=record_change(run, last),
    )
    return backend.commit([commit])[0].status == "stored"


def _state(turns: Sequence[Turn]) -> RunState:
    state = RunState()
    for turn in turns:
        state.add(turn)
    return state


def _started(turns: Sequence[Turn]) -> ExecutionStarted:
    started = turns[0].inbound[0]
    assert isinstance(started, ExecutionStarted)
    return started


def _renamed(event: OutboundEvent, execution_id: str, new_id: str) -> OutboundEvent:
    """The same about the fork's own children, which are named after it."""
    if not isinstance(event, ChildScheduled | ChildCancelRequested | SignalSent):
        return event
    own = event.execution_id.startswith(f"{execution_id}/")
    return replace(event, execution_id=new_id + event.execution_id.removeprefix(execution_id)) if own else event


def _unfinished(turns: Sequence[Turn]) -> ExecutionReset | None:
    """The reset that ends a run which is still the current one: whoever stored it died before the rest."""
    return next((event for event in turns[-1].inbound if isinstance(event, ExecutionReset)), None)


def _inbound(turns: Sequence[Turn]) -> list[InboundEvent]:
    return [event for turn in turns for event in turn.inbound if not isinstance(event, ExecutionReset)]


def _outbound(turns: Sequence[Turn]) -> list[OutboundEvent]:
    return [event for turn in turns for event in turn.outbound]


def _end(turns: Sequence[Turn]) -> int:
    """Ordinal of the inbound event that ended the run, or of the first that it has not applied."""
    ending = next((event for event in reversed(_outbound(turns)) if isinstance(event, ENDINGS)), None)
    return turns[-1].applied_through + 1 if ending is None else ending.cause


def _kept_through(turns: Sequence[Turn], to_event: int) -> int:
    """How many inbound events a prefix that ends with event `to_event` has."""
    entries = list(read_history(turns))
    if not 1 <= to_event <= len(entries) or not entries[to_event - 1].applied:
        raise ClientError(
            f"The history has no applied event {to_event}; {sum(entry.applied for entry in entries)} of its "
            f"{len(entries)} events are applied. See `durably history`."
        )
    return sum(not hasattr(entry.event, "cause") for entry in entries[:to_event])


def _applied(turns: Sequence[Turn], last: int, input_: str | None) -> int:
    """How many of the inbound events through `last` are applied already where a prefix begins with `input_`."""
    if input_ is None:
        return min(last, _end(turns) - 1)
    if last > 1:
        raise ClientError("The input can only be changed where nothing but the start is kept: use event 1.")
    return 0


def _last_good_point(turns: Sequence[Turn], reason: str, now_ms: int) -> ExecutionReset:
    """Everything before the failure that ended the run, and what arrived since and still fits."""
    inbound, outbound = _inbound(turns), _outbound(turns)
    culprits = _culprits(inbound, outbound)
    end = _end(turns)
    point = min(culprits, default=end)
    asked = asked_by(outbound)
    dropped = list(culprits)
    for ordinal, event in enumerate(inbound, start=1):
        if ordinal < point or ordinal in culprits:
            continue
        answered = answers(event)
        if answered is None:
            if isinstance(event, ExecutionTerminated | ExecutionCancelRequested):
                dropped.append(ordinal)
        elif asked.get(answered, end) >= point or (ordinal == end and isinstance(event, ActivityFailed | ChildFailed)):
            dropped.append(ordinal)
    return ExecutionReset(applied=point - 1, dropped=tuple(sorted(dropped)), reason=reason, at_ms=now_ms)


def _culprits(inbound: Sequence[InboundEvent], outbound: Sequence[OutboundEvent]) -> list[int]:
    """Ordinals of the failures that the run's own failure was made of."""
    blamed: list[Failure] = []
    for event in outbound[-1:]:
        failure = getattr(event, "failure", None)
        if isinstance(failure, Failure):
            blamed = list(_tree(failure))
    return [
        ordinal
        for ordinal, event in enumerate(inbound, start=1)
        if isinstance(event, ActivityFailed | ChildFailed) and event.failure in blamed
    ]


def _tree(failure: Failure) -> list[Failure]:
    found = [failure]
    for part in (failure.cause, *failure.members):
        if part is not None:
            found.extend(_tree(part))
    return found
