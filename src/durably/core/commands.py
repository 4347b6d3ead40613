"""Commands: what an orchestrator asked for while one event was applied. Each becomes one outbound event.

They are tuples, not dataclasses, because a replay makes one for each step that it only compares.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import NamedTuple, TypeAlias, assert_never

from durably.core.events import (
    ActivityCancelRequested,
    ActivityScheduled,
    ChildCancelRequested,
    ChildScheduled,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionContinuedAsNew,
    ExecutionFailed,
    OutboundEvent,
    PatchRecorded,
    SignalReceived,
    SignalRejected,
    SignalSent,
    StatusSet,
    TimerStarted,
    UpdateAccepted,
    UpdateCompleted,
    UpdateFailed,
)
from durably.core.failures import Failure
from durably.core.options import ActivityOptions, ChildOptions


class CallSite(NamedTuple):
    """Where in the orchestrator's source a command was asked for; formatted only when somebody reads it."""

    code: CodeType | None
    line: int

    def __str__(self) -> str:
        if self.code is None:
            return "<unknown>"
        parts = self.code.co_filename.replace("\\", "/").split("/")
        return f"{'/'.join(parts[-2:])}:{self.line}"


NOWHERE = CallSite(None, 0)


class ScheduleActivity(NamedTuple):
    """Run activity `name`."""

    seq: int
    name: str
    input: str
    options: ActivityOptions | None
    same: Callable[[str, str], bool]
    site: CallSite


class CancelActivity(NamedTuple):
    """Nobody waits for activity `seq` any more."""

    seq: int


class StartTimer(NamedTuple):
    """Wake the execution `delay_ms` from now."""

    seq: int
    delay_ms: int
    site: CallSite


class ScheduleChild(NamedTuple):
    """Start a child execution."""

    seq: int
    orchestrator: str
    execution_id: str
    input: str
    options: ChildOptions | None
    same: Callable[[str, str], bool]
    site: CallSite
    chosen: bool


class CancelChild(NamedTuple):
    """Ask the child `seq` to cancel itself; nobody waits for it any more."""

    seq: int
    execution_id: str


class SendSignal(NamedTuple):
    """Send a signal to another execution."""

    seq: int
    execution_id: str
    name: str
    payload: str
    same: Callable[[str, str], bool]
    site: CallSite


class RejectSignal(NamedTuple):
    """Nobody can read this signal."""

    request_id: str
    reason: str


class CompleteUpdate(NamedTuple):
    """Answer an update."""

    request_id: str
    result: str
    same: Callable[[str, str], bool]


class FailUpdate(NamedTuple):
    """Answer an update with a failure."""

    request_id: str
    failure: Failure


class RecordPatch(NamedTuple):
    """This run takes the new side of a patch."""

    patch_id: str


class SetStatus(NamedTuple):
    """Show how far the execution is."""

    status: str


class CompleteExecution(NamedTuple):
    """The orchestrator returned."""

    result: str
    same: Callable[[str, str], bool]


class FailExecution(NamedTuple):
    """The orchestrator raised."""

    failure: Failure


class CancelExecution(NamedTuple):
    """The orchestrator let a requested cancellation pass."""

    reason: str


class ContinueAsNew(NamedTuple):
    """The orchestrator goes on in another run."""

    input: str
    carried: tuple[SignalReceived | UpdateAccepted, ...]
    seen: tuple[str, ...]
    same: Callable[[str, str], bool]


Command: TypeAlias = (
    ScheduleActivity
    | CancelActivity
    | StartTimer
    | ScheduleChild
    | CancelChild
    | SendSignal
    | RejectSignal
    | CompleteUpdate
    | FailUpdate
    | RecordPatch
    | SetStatus
    | CompleteExecution
    | FailExecution
    | CancelExecution
    | ContinueAsNew
)


def record_command(command: Command, *, cause: int, now_ms: int) -> OutboundEvent:
    """The event that says in history that `command` was asked for."""
    match command:
        case ScheduleActivity(seq, name, input_, options, _, site):
            return ActivityScheduled(
                seq=seq,
                name=name,
                input=input_,
                options=options,
                call_site=str(site),
                cause=cause,
                at_ms=now_ms,
            )
        case CancelActivity(seq):
            return ActivityCancelRequested(seq=seq, cause=cause)
        case StartTimer(seq, delay_ms, site):
            return TimerStarted(seq=seq, delay_ms=delay_ms, due_ms=now_ms + delay_ms, call_site=str(site), cause=cause)
        case ScheduleChild(seq, orchestrator, execution_id, input_, child_options, _, site):
            return ChildScheduled(
                seq=seq,
                orchestrator=orchestrator,
                execution_id=execution_id,
                input=input_,
                options=child_options,
                call_site=str(site),
                cause=cause,
                at_ms=now_ms,
            )
        case CancelChild(seq, execution_id):
            return ChildCancelRequested(seq=seq, execution_id=execution_id, cause=cause)
        case SendSignal(seq, execution_id, name, payload, _, site):
            return SignalSent(
                seq=seq,
                execution_id=execution_id,
                name=name,
                payload=payload,
                call_site=str(site),
                cause=cause,
                at_ms=now_ms,
            )
        case RejectSignal(request_id, reason):
            return SignalRejected(request_id=request_id, reason=reason, cause=cause)
        case CompleteUpdate(request_id, result):
            return UpdateCompleted(request_id=request_id, result=result, cause=cause)
        case FailUpdate(request_id, failure):
            return UpdateFailed(request_id=request_id, failure=failure, cause=cause)
        case RecordPatch(patch_id):
            return PatchRecorded(patch_id=patch_id, cause=cause)
        case SetStatus(status):
            return StatusSet(status=status, cause=cause)
        case CompleteExecution(result):
            return ExecutionCompleted(result=result, cause=cause)
        case FailExecution(failure):
            return ExecutionFailed(failure=failure, cause=cause)
        case CancelExecution(reason):
            return ExecutionCancelled(reason=reason, cause=cause)
        case ContinueAsNew(input_, carried, seen):
            return ExecutionContinuedAsNew(input=input_, carried=carried, seen=seen, cause=cause)
        case _:
            assert_never(command)


def agrees(command: Command, recorded: OutboundEvent) -> bool:
    """Whether `command` asks for what was recorded: same kind, number, name, length and input (by value)."""
    if isinstance(command, ScheduleActivity) and isinstance(recorded, ActivityScheduled):  # nearly always
        return (
            command.seq == recorded.seq
            and command.name == recorded.name
            and (command.input == recorded.input or command.same(recorded.input, command.input))
        )
    match command:
        case ScheduleActivity():
            return False
        case StartTimer():
            return isinstance(recorded, TimerStarted) and (
                (command.seq, command.delay_ms) == (recorded.seq, recorded.delay_ms)
            )
        case CancelActivity():
            return isinstance(recorded, ActivityCancelRequested) and command.seq == recorded.seq
        case CancelChild():
            return isinstance(recorded, ChildCancelRequested) and command.seq == recorded.seq
        case ScheduleChild():
            return (
                isinstance(recorded, ChildScheduled)
                and (command.seq, command.orchestrator) == (recorded.seq, recorded.orchestrator)
                and (command.execution_id == recorded.execution_id or not command.chosen)  # a fork has another name
                and _same(command.same, recorded.input, command.input)
            )
        case SendSignal():
            return (
                isinstance(recorded, SignalSent)
                and (command.seq, command.execution_id, command.name)
                == (recorded.seq, recorded.execution_id, recorded.name)
                and _same(command.same, recorded.payload, command.payload)
            )
        case CompleteUpdate():
            return (
                isinstance(recorded, UpdateCompleted)
                and command.request_id == recorded.request_id
                and _same(command.same, recorded.result, command.result)
            )
        case FailUpdate():
            return isinstance(recorded, UpdateFailed) and command.request_id == recorded.request_id
        case CompleteExecution():
            return isinstance(recorded, ExecutionCompleted) and _same(command.same, recorded.result, command.result)
        case ContinueAsNew():
            return isinstance(recorded, ExecutionContinuedAsNew) and _same(command.same, recorded.input, command.input)
        case FailExecution():
            return isinstance(recorded, ExecutionFailed)
        case CancelExecution():
            return isinstance(recorded, ExecutionCancelled)
        case RecordPatch():  # facts: a replay takes them from history
            return isinstance(recorded, PatchRecorded)
        case SetStatus():
            return isinstance(recorded, StatusSet)
        case RejectSignal():
            return isinstance(recorded, SignalRejected)
        case _:
            assert_never(command)


def _same(same: Callable[[str, str], bool], recorded: str, current: str) -> bool:
    return recorded == current or same(recorded, current)


def describe_command(command: Command) -> str:
    """One line for an error message."""
    return describe_outbound(record_command(command, cause=0, now_ms=0))


def describe_outbound(event: OutboundEvent) -> str:
    """One line for an error message."""
    match event:
        case ActivityScheduled():
            return f"{event.name}({_short(event.input)}) at {event.call_site}"
        case ActivityCancelRequested():
            return f"cancel activity {event.seq}"
        case TimerStarted():
            return f"a timer of {event.delay_ms} ms at {event.call_site}"
        case ChildScheduled():
            return f"child {event.orchestrator}({_short(event.input)}) as {event.execution_id} at {event.call_site}"
        case ChildCancelRequested():
            return f"cancel child {event.seq}"
        case SignalSent():
            return f"signal {event.name}({_short(event.payload)}) to {event.execution_id} at {event.call_site}"
        case SignalRejected():
            return f"reject signal {event.request_id}"
        case UpdateCompleted():
            return f"answer update {event.request_id} with {_short(event.result)}"
        case UpdateFailed():
            return f"fail update {event.request_id}: {event.failure}"
        case PatchRecorded():
            return f"patch {event.patch_id}"
        case StatusSet():
            return f"status {_short(event.status)}"
        case ExecutionCompleted():
            return f"return {_short(event.result)}"
        case ExecutionFailed():
            return f"raise {event.failure}"
        case ExecutionCancelled():
            return "be cancelled"
        case ExecutionContinuedAsNew():
            return f"continue as new with {_short(event.input)}"
        case _:
            assert_never(event)


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
