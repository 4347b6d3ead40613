"""Errands: what one execution wants of another. Each may be run twice, and whoever asked is told what came of it."""

from __future__ import annotations

from dataclasses import replace

from durably.api.orchestrator import StartOptions
from durably.core.errors import ClientError, ContendedError, ExecutionClosedError, ExecutionNotFoundError
from durably.core.events import (
    ChildFailed,
    ChildStarted,
    ExecutionCancelRequested,
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
        if _is_of_an_earlier_run(runtime.backend.read_record(errand.execution_id), errand):
            raise ContendedError(f"child {errand.execution_id} of an earlier run is still being ended") from error
        return (_told(errand, ChildFailed(seq=errand.key.seq, failure=failure_of(error))),)
    if _unwanted(runtime, errand):
        cancel = options is not None and options.parent_close == "cancel"
        return (_ending(record, "cancel" if cancel else "terminate"),)
    if options is not None and options.announced:
        return (_told(errand, ChildStarted(seq=errand.key.seq)),)
    return ()


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
    if record is None or record.closed or record.request_id != _start_id(errand):
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
    return item is not None and item.state == "cancelled"


def _told(errand: Errand, event: InboundEvent) -> Outgoing:
    return Outgoing(EventMessage(run=errand.run, event=event))


def _start_id(errand: Errand) -> str:
    """The request id of the child's start, the same whatever is to be done to it."""
    return replace(errand, action="start").id


def _is_of_an_earlier_run(record: Record | None, errand: Errand) -> bool:
    if record is None or record.closed:
        return False
    gen, _, rest = record.request_id.partition(".")
    run, _, last = rest.partition(".")
    if last != f"start.{errand.key.seq}" or not run.isdigit():
        return False
    if gen != errand.run.gen:  # of an earlier life, where the child is named after its parent
        return errand.execution_id.startswith(f"{errand.run.execution_id}/")
    return int(run) < errand.run.run


def _nobody(record: Record | None, execution_id: str) -> Failure:
    if record is None:
        return failure_of(ExecutionNotFoundError(f"No execution has the id {execution_id!r}."))
    return failure_of(ExecutionClosedError(f"Execution {execution_id!r} is {record.status}; it accepts nothing more."))
