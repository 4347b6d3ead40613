"""Messages: what travels through queues. `id` is the same for every copy of a message, so copies can be dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from durably.core.events import (
    LIFE_EVENTS,
    ActivityCompleted,
    ActivityFailed,
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    ExecutionCancelRequested,
    ExecutionReset,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    InboundEvent,
    SignalDelivered,
    SignalFailed,
    SignalReceived,
    TimerFired,
    UpdateAccepted,
)
from durably.core.failures import Failure
from durably.core.keys import ActivityKey, RunKey
from durably.core.options import ActivityOptions, ChildOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMessage:
    """An event on its way to an execution. What is meant for a life reaches its current run, whichever `run` says."""

    run: RunKey
    event: InboundEvent
    kind: Literal["EventMessage"] = "EventMessage"

    @property
    def id(self) -> str:
        """Names the event within all lives of all executions."""
        prefix = self.run.gen if self.for_life else f"{self.run.gen}.{self.run.run}"
        match self.event:
            case ActivityCompleted(seq=seq, attempt=attempt):
                return f"{prefix}.completed.{seq}.{attempt}"
            case ActivityFailed(seq=seq, attempt=attempt):
                return f"{prefix}.failed.{seq}.{attempt}"
            case TimerFired(seq=seq):
                return f"{prefix}.fired.{seq}"
            case ExecutionStarted():
                return f"{prefix}.started"
            case SignalReceived(request_id=request_id):
                return f"{prefix}.signal.{request_id}"
            case UpdateAccepted(request_id=request_id):
                return f"{prefix}.update.{request_id}"
            case ChildStarted(seq=seq):
                return f"{prefix}.begun.{seq}"
            case ChildCompleted(seq=seq):
                return f"{prefix}.returned.{seq}"
            case ChildFailed(seq=seq):
                return f"{prefix}.raised.{seq}"
            case SignalDelivered(seq=seq):
                return f"{prefix}.delivered.{seq}"
            case SignalFailed(seq=seq):
                return f"{prefix}.undelivered.{seq}"
            case ExecutionCancelRequested():  # the run that the sender saw: after a retry it may be asked for again
                return f"{self.run.gen}.{self.run.run}.cancel"
            case ExecutionSuspended(request_id=request_id):
                return f"{prefix}.suspend.{request_id}"
            case ExecutionResumed(request_id=request_id):
                return f"{prefix}.resume.{request_id}"
            case ExecutionTerminated():
                return f"{self.run.gen}.{self.run.run}.terminated"
            case ExecutionReset():
                return f"{prefix}.reset"

    @property
    def for_life(self) -> bool:
        """Whether the event is for whichever run is the current one."""
        return isinstance(self.event, LIFE_EVENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Take a turn: stored events wait. `turn` is the last one the sender saw, `tries` counts fruitless wakes."""

    run: RunKey
    turn: int
    tries: int = 0
    kind: Literal["Wake"] = "Wake"

    @property
    def id(self) -> str:
        """One wake per turn and try."""
        return f"{self.run.gen}.{self.run.run}.wake.{self.turn}.{self.tries}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityTask:
    """One attempt of an activity, to be run.

    Attributes:
        name: persisted name of the activity.
        input: JSON text, an object by parameter name.
        options: as scheduled; None for the defaults.
        attempt: 1-based.
        scheduled_at_ms: when the orchestrator asked for it; schedule-to-close counts from here.
        queued_at_ms: when this attempt was due; schedule-to-start counts from here.
        last_failure: of the attempt before.
        origin: number of the run in which the history began that asks for it, None for the run itself. It is part of
            what names the call to services: a retry of the execution asks for the same call.
        again: True where the task was sent again by a redelivery; it may be superfluous, so look before running it.
    """

    key: ActivityKey
    name: str
    input: str
    scheduled_at_ms: int
    queued_at_ms: int
    options: ActivityOptions | None = None
    attempt: int = 1
    last_failure: Failure | None = None
    origin: int | None = None
    again: Literal[True] | None = None
    kind: Literal["ActivityTask"] = "ActivityTask"

    @property
    def run(self) -> RunKey:
        """The run that asked for it."""
        return self.key.run

    @property
    def id(self) -> str:
        """One task per attempt."""
        return f"{self.key.run.gen}.{self.key.run.run}.task.{self.key.seq}.{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackDeadline:
    """Look whether the callback of this attempt is still awaited; if so it is late. Carries the task to retry.

    With `check` the deadline has not passed: look whether what the item says was sent, and send it.

    Attributes:
        deadline_ms: the deadline that it speaks of. Who opened the item later than another sent one of its own.
    """

    task: ActivityTask
    deadline_ms: int = 0
    check: Literal[True] | None = None
    kind: Literal["CallbackDeadline"] = "CallbackDeadline"

    @property
    def run(self) -> RunKey:
        """The run that asked for the activity."""
        return self.task.key.run

    @property
    def id(self) -> str:
        """One check per attempt, and one deadline per instant of it."""
        what = "check" if self.check else "deadline"
        instant = "" if self.check else f".{self.deadline_ms}"
        return f"{self.run.gen}.{self.run.run}.{what}.{self.task.key.seq}.{self.task.attempt}{instant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatCheck:
    """Look whether this attempt has been silent for too long. If not, look again when it would be. Carries the task.

    Attributes:
        deadline_ms: when it would have been, as far as its sender knew.
    """

    task: ActivityTask
    deadline_ms: int
    kind: Literal["HeartbeatCheck"] = "HeartbeatCheck"

    @property
    def run(self) -> RunKey:
        """The run that asked for the activity."""
        return self.task.key.run

    @property
    def id(self) -> str:
        """One check per attempt and instant."""
        return f"{self.run.gen}.{self.run.run}.heartbeat.{self.task.key.seq}.{self.task.attempt}.{self.deadline_ms}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What one execution wants of another. Whoever carries it out tells the one that asked what came of it.

    Attributes:
        key: of the child or the signal, in the run that asked.
        execution_id: of the other execution.
        action: "start" it as a child, "signal" it, or ("cancel", "terminate") end the child that `key` names.
        name: orchestrator or signal.
        payload: input of the child or payload of the signal, JSON text.
        options: of the child.
        looks_ms: when it looks for the end of a child that an earlier run abandoned; None before that is found.
    """

    key: ActivityKey
    execution_id: str
    action: Literal["start", "signal", "cancel", "terminate"]
    name: str = ""
    payload: str = ""
    options: ChildOptions | None = None
    looks_ms: int | None = None
    kind: Literal["Errand"] = "Errand"

    @property
    def run(self) -> RunKey:
        """The run that asked."""
        return self.key.run

    @property
    def id(self) -> str:
        """One errand per request and action, and one look per instant."""
        look = "" if self.looks_ms is None else f".{self.looks_ms}"
        return f"{self.run.gen}.{self.run.run}.{self.action}.{self.key.seq}{look}"


Message: TypeAlias = EventMessage | Wake | ActivityTask | CallbackDeadline | HeartbeatCheck | Errand


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send, not to be delivered before `due_ms` (0: at once)."""

    message: Message
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message received; its receipt acknowledges it, `receives` counts deliveries (1 for the first)."""

    message: Message
    receipt: str
    receives: int = 1

    @property
    def once_more(self) -> Delivery:
        """The same for whoever could not handle it to the end, and tries again. What it stored may be there already."""
        return replace(self, receives=max(2, self.receives))
