"""Errands: what one execution wants of another. Each may be run twice, and whoever asked is told what came of it."""

from __future__ import annotations

from dataclasses import replace

from durably.api.orchestrator import StartOptions
from durably.core.errors import ClientError, ContendedError, ExecutionClosedError, ExecutionNotFoundError
from durably.core.events import (
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    ExecutionCancelRequested,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    SignalDelivered,
    SignalFailed,
    SignalReceived,
)
from durably.core.failures import Failure, failure_of
from durably.ports.backend import Settlement
from durably.ports.messages import Delivery, Errand, EventMessage, Outgoing
from durably.ports.records import Record
from durably.runtime.runtime import Runtime
from durably.runtime.start import start_execution

_SHORTEST_LOOK_MS, _LONGEST_LOOK_MS = 1_000, 600_000
_PARENT_CLOSED = "its parent's run ended"
_PARENT_CANCELLED = "its parent asked for it"


def run_errand(runtime: Runtime, delivery: Delivery) -> None:
    """Carry an errand out, tell who asked, and acknowledge it.

    Raises:
        ContendedError: the id is not free yet; the errand comes back.
    """
    errand = delivery.message
    assert isinstance(errand, Errand)
    carry_out = {"start": _start, "signal": _signal, "cancel": _end, "terminate": _end}[errand.action]
    send = carry_out(runtime, errand)
    runtime.backend.settle(Settlement(send=send, acknowledge=(delivery.receipt,)))


def _start(runtime: Runtime, errand: Errand) -> tuple[Outgoing, ...]:
    """Start a child, unless its parent stopped waiting for it. What it finds after that it does itself.

    The parent writes the child's item as cancelled before it sends anything that would end the child. So either this
    sees the item after the child was made, or what ends the child finds the child.
    """
    if _unwanted(runtime, errand):
        return ()
    if errand.looks_ms is not None:
        return _look(runtime, errand, runtime.backend.read_record(errand.execution_id))
    options = errand.options
    reuse = "reject" if options is None or options.id_reuse is None else options.id_reuse
    try:
        record, _ = start_execution(
            runtime.backend,
            runtime.clock,
            runtime.entropy,
            execution_id=errand.execution_id,
            orchestrator=errand.name,
            input_=errand.payload,
            options=StartOptions(id_reuse=reuse, request_id=_start_id(errand)),
            code_version=runtime.registry.code_version,
            parent=errand.key,
        )
    except ClientError as error:
        found = runtime.backend.read_record(errand.execution_id)
        if found is not None and _abandoned(runtime, errand, found):
            return _look(runtime, errand, found)
        if found is not None and _is_being_ended(errand, found):
            raise ContendedError(f"child {errand.execution_id} of an earlier run is still being ended") from error
        return (_told(errand, ChildFailed(seq=errand.key.seq, failure=failure_of(error))),)
    if _unwanted(runtime, errand):
        cancel = options is not None and options.parent_close == "cancel"
        return (_ending(record, "cancel" if cancel else "terminate"),)
    if options is not None and options.announced:
        return (_told(errand, ChildStarted(seq=errand.key.seq)),)
    return ()


def _look(runtime: Runtime, errand: Errand, record: Record | None) -> tuple[Outgoing, ...]:
    """Take over a child that an earlier run abandoned: tell that it has begun, how it ended, or look again later.

    Nobody is told, and nobody looks, once the run that asks is over.
    """
    if _is_over(runtime, errand):
        return ()
    if record is None or record.status == "purged" or not _is_of_an_earlier_run(record, errand):
        gone = ExecutionNotFoundError(f"The child {errand.execution_id!r}, which an earlier run abandoned, is gone.")
        return (_told(errand, ChildFailed(seq=errand.key.seq, failure=failure_of(gone))),)
    if record.result is not None:
        return (_told(errand, ChildCompleted(seq=errand.key.seq, result=record.result)),)
    if record.closed and record.failure is not None:
        return (_told(errand, ChildFailed(seq=errand.key.seq, failure=record.failure)),)
    now_ms = runtime.clock.now_ms()
    pause_ms = min(max((now_ms - record.started_at_ms) // 4, _SHORTEST_LOOK_MS), _LONGEST_LOOK_MS)
    again = replace(errand, looks_ms=now_ms + pause_ms)
    begun = errand.options is not None and errand.options.announced and errand.looks_ms is None
    told = (_told(errand, ChildStarted(seq=errand.key.seq)),) if begun else ()
    return (*told, Outgoing(again, now_ms + pause_ms))


def _abandons(errand: Errand) -> bool:
    return errand.options is not None and errand.options.parent_close == "abandon"


def _is_being_ended(errand: Errand, record: Record) -> bool:
    """Whether an execution is a child of an earlier run or life that ends with it."""
    if record.closed or _abandons(errand):
        return False
    return _is_of_an_earlier_run(record, errand) or _is_of_an_earlier_life(record, errand)


def _abandoned(runtime: Runtime, errand: Errand, record: Record) -> bool:
    """Whether an execution is the same child, asked for by an earlier run, which left it running."""
    if record.closed or not _abandons(errand) or not _is_of_an_earlier_run(record, errand):
        return False
    started = runtime.backend.load_turns(replace(record.key, run=1))[0].inbound[0]
    return isinstance(started, ExecutionStarted) and started.input == errand.payload


def _signal(runtime: Runtime, errand: Errand) -> tuple[Outgoing, ...]:
    record = runtime.backend.read_record(errand.execution_id)
    if record is None or record.closed:
        return (_told(errand, SignalFailed(seq=errand.key.seq, failure=_nobody(record, errand.execution_id))),)
    signal = SignalReceived(name=errand.name, payload=errand.payload, request_id=errand.id)
    return (
        Outgoing(EventMessage(run=record.key, event=signal)),
        _told(errand, SignalDelivered(seq=errand.key.seq)),
    )


def _end(runtime: Runtime, errand: Errand) -> tuple[Outgoing, ...]:
    record = runtime.backend.read_record(errand.execution_id)
    if record is None or record.closed:
        return ()
    if record.request_id != _start_id(errand) and not _is_of_an_earlier_run(record, errand):
        return ()
    return (_ending(record, errand.action),)


def _ending(record: Record, action: str) -> Outgoing:
    event: InboundEvent = (
        ExecutionCancelRequested(reason=_PARENT_CANCELLED)
        if action == "cancel"
        else ExecutionTerminated(reason=_PARENT_CLOSED)
    )
    return Outgoing(EventMessage(run=record.key, event=event))


def _unwanted(runtime: Runtime, errand: Errand) -> bool:
    item = runtime.backend.read_item(errand.key)
    if item is not None and item.state == "cancelled":
        return True
    return not _abandons(errand) and _is_over(runtime, errand)


def _is_over(runtime: Runtime, errand: Errand) -> bool:
    """Whether the run that asks has ended."""
    parent = runtime.backend.read_record(errand.run.execution_id)
    return parent is None or parent.closed or parent.gen != errand.run.gen or parent.run > errand.run.run


def _told(errand: Errand, event: InboundEvent) -> Outgoing:
    return Outgoing(EventMessage(run=errand.run, event=event))


def _start_id(errand: Errand) -> str:
    """The request id of the child's start, the same whatever is to be done to it."""
    return replace(errand, action="start", looks_ms=None).id


def _is_of_an_earlier_run(record: Record, errand: Errand) -> bool:
    """Whether it is what an earlier run of the same life asked for under the same number."""
    gen, run = _asked_by(record, errand.key.seq)
    return gen == errand.run.gen and run < errand.run.run


def _is_of_an_earlier_life(record: Record, errand: Errand) -> bool:
    """Whether it is what an earlier life asked for under the same number, and named after the parent."""
    gen, _ = _asked_by(record, errand.key.seq)
    return gen not in ("", errand.run.gen) and errand.execution_id.startswith(f"{errand.run.execution_id}/")


def _asked_by(record: Record, seq: int) -> tuple[str, int]:
    """Generation and run of the parent that asked for a child as `seq`; "" and 0 if none did."""
    gen, _, rest = record.request_id.partition(".")
    run, _, last = rest.partition(".")
    return (gen, int(run)) if last == f"start.{seq}" and run.isdigit() else ("", 0)


def _nobody(record: Record | None, execution_id: str) -> Failure:
    if record is None:
        return failure_of(ExecutionNotFoundError(f"No execution has the id {execution_id!r}."))
    return failure_of(ExecutionClosedError(f"Execution {execution_id!r} is {record.status}; it accepts nothing more."))
