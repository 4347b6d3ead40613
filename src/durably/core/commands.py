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
    ExecutionCompleted,
    ExecutionFailed,
    OutboundEvent,
    TimerStarted,
)
from durably.core.failures import Failure
from durably.core.options import ActivityOptions


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


class CompleteExecution(NamedTuple):
    """The orchestrator returned."""

    result: str
    same: Callable[[str, str], bool]


class FailExecution(NamedTuple):
    """The orchestrator raised."""

    failure: Failure


Command: TypeAlias = ScheduleActivity | CancelActivity | StartTimer | CompleteExecution | FailExecution


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
        case CompleteExecution(result):
            return ExecutionCompleted(result=result, cause=cause)
        case FailExecution(failure):
            return ExecutionFailed(failure=failure, cause=cause)
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
    match command, recorded:
        case (StartTimer(), TimerStarted()):
            return command.seq == recorded.seq and command.delay_ms == recorded.delay_ms
        case (CancelActivity(), ActivityCancelRequested()):
            return command.seq == recorded.seq
        case (CompleteExecution(), ExecutionCompleted()):
            return command.result == recorded.result or command.same(recorded.result, command.result)
        case (FailExecution(), ExecutionFailed()):
            return True
        case _:
            return False


def describe_command(command: Command) -> str:
    """One line for an error message."""
    match command:
        case ScheduleActivity(_, name, input_, _, _, site):
            return f"{name}({_short(input_)}) at {site}"
        case CancelActivity(seq):
            return f"cancel activity {seq}"
        case StartTimer(_, delay_ms, site):
            return f"a timer of {delay_ms} ms at {site}"
        case CompleteExecution(result):
            return f"return {_short(result)}"
        case FailExecution(failure):
            return f"raise {failure}"
        case _:
            assert_never(command)


def describe_outbound(event: OutboundEvent) -> str:
    """One line for an error message."""
    match event:
        case ActivityScheduled():
            return f"{event.name}({_short(event.input)}) at {event.call_site}"
        case ActivityCancelRequested():
            return f"cancel activity {event.seq}"
        case TimerStarted():
            return f"a timer of {event.delay_ms} ms at {event.call_site}"
        case ExecutionCompleted():
            return f"return {_short(event.result)}"
        case ExecutionFailed():
            return f"raise {event.failure}"
        case _:
            assert_never(event)


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
