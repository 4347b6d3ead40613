"""Starting and terminating executions. Accepted means stored (P1)."""

from __future__ import annotations

import sys
from dataclasses import replace

from durably.api.names import check_execution_id
from durably.api.orchestrator import StartOptions
from durably.core.errors import ExecutionClosedError, ExecutionExistsError, ExecutionNotFoundError, InvalidIdError
from durably.core.events import ExecutionStarted, InboundEvent, LifeEvent
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.backend import Backend, Creation
from durably.ports.clock import Clock, Entropy
from durably.ports.messages import Delivery, EventMessage, Outgoing, Wake
from durably.ports.records import Record

_LONGEST_REQUEST_ID = 256  # bytes: it becomes part of a key


def start_execution(
    backend: Backend,
    clock: Clock,
    entropy: Entropy,
    *,
    execution_id: str,
    orchestrator: str,
    input_: str,
    options: StartOptions,
    code_version: str,
    parent: ActivityKey | None = None,
    first: LifeEvent | None = None,
    keep: bool = False,
) -> tuple[Record, tuple[Delivery, ...]]:
    """Store a start: record, first turn and wake.

    Args:
        backend: stores it.
        clock: stamps it.
        entropy: draws generation, seed and nonce.
        execution_id: of the new execution.
        orchestrator: persisted name.
        input_: JSON text.
        options: what if the id is taken.
        code_version: of the process that starts it.
        parent: the child's number in the run that wants to know how this one ends.
        first: a signal or an update that is part of the start.
        keep: lease the wake to the caller.

    Returns:
        The record that holds the id, and with `keep` the wake, leased to the caller.

    Raises:
        InvalidIdError: the execution id or the request id cannot be one.
        ExecutionExistsError: the id is taken and `options.id_reuse` does not allow another life.
    """
    check_execution_id(execution_id)
    checked_request_id(options.request_id)
    now_ms = clock.now_ms()
    gen = entropy.ulid(now_ms)
    run = RunKey(execution_id, gen, 1)
    record = Record(
        execution_id=execution_id,
        gen=gen,
        orchestrator=orchestrator,
        status="running",
        request_id=options.request_id or gen,
        code_version=code_version,
        started_at_ms=now_ms,
    )
    started = ExecutionStarted(
        orchestrator=orchestrator,
        input=input_,
        seed=entropy.seed(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        parent=parent,
        pinned="" if options.pinned else None,
        at_ms=now_ms,
    )
    inbound: tuple[InboundEvent, ...] = (started,) if first is None else (started, replace(first, at_ms=now_ms))
    turn = Turn(
        number=1,
        kind="deferred",
        inbound=inbound,
        outbound=(),
        applied_through=0,
        nonce=entropy.nonce(),
        code_version=code_version,
        at_ms=now_ms,
    )
    creation = Creation(
        record=record,
        turn=turn,
        wake=Outgoing(Wake(run=run, turn=1)),
        replace_closed=options.id_reuse == "allow_if_closed",
    )
    outcome = backend.create(creation, keep=keep)
    found = outcome.record
    if outcome.created or found.request_id == record.request_id or options.id_reuse == "use_existing":
        return found, outcome.kept
    state = "closed" if found.closed else "open"
    raise ExecutionExistsError(
        f"The id {execution_id!r} belongs to an {state} execution of {found.orchestrator}. Choose another id, or say "
        'what you mean with orchestrator.options(id_reuse="allow_if_closed" or "use_existing").'
    )


def checked_request_id(request_id: str | None) -> str | None:
    """`request_id`, if it can be one.

    Raises:
        InvalidIdError: it is too long, or no text.
    """
    try:
        size = len((request_id or "").encode())
    except UnicodeEncodeError as error:
        raise InvalidIdError(f"A request id is text that UTF-8 can hold, got {request_id!r:.80}.") from error
    if size > _LONGEST_REQUEST_ID:
        raise InvalidIdError(f"A request id has at most {_LONGEST_REQUEST_ID} bytes, got {size}; send a digest.")
    return request_id


def send_event(backend: Backend, execution_id: str, event: LifeEvent) -> Record:
    """Put an event on its way to an open execution.

    Raises:
        ExecutionNotFoundError: no execution has this id.
        ExecutionClosedError: it has ended already.
    """
    record = open_record(backend, execution_id)
    backend.send([Outgoing(EventMessage(run=record.key, event=event))])
    return record


def open_record(backend: Backend, execution_id: str) -> Record:
    """The record of an open execution.

    Raises:
        ExecutionNotFoundError: no execution has this id.
        ExecutionClosedError: it has ended already.
    """
    record = existing_record(backend, execution_id)
    if record.closed:
        raise ExecutionClosedError(f"Execution {execution_id!r} is {record.status}; it accepts nothing more.")
    return record


def existing_record(backend: Backend, execution_id: str) -> Record:
    """The record of an execution, open or closed.

    Raises:
        ExecutionNotFoundError: no execution has this id.
    """
    record = backend.read_record(check_execution_id(execution_id))
    if record is None or record.status == "purged":
        purged = "" if record is None else " It was purged."
        raise ExecutionNotFoundError(f"No execution has the id {execution_id!r}.{purged}")
    return record
