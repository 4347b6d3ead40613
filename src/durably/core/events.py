"""The events a history is made of: frozen data, past participles. No behaviour, no I/O, no encoding.

Inbound events arrive at an execution; outbound events are what it asked for, and `cause` says which
inbound event (1-based, counted over the run) made it ask. Payloads are JSON text, instants are integer
milliseconds since the Unix epoch (`*_ms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from durably.core.failures import Failure
from durably.core.keys import ActivityKey
from durably.core.options import ActivityOptions, ChildOptions

# --- inbound -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """A retry or reset, and the run that it began.

    Attributes:
        reopens: whether the run before had ended.
    """

    request_id: str
    run: int
    reopens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    """The first event of a run: which orchestrator, with which input, under which random seed.

    Attributes:
        parent: the child's number in the run that wants to know how this one ends.
        origin: number of the run in which this history began; children are named after it.
        seen: ids of recent requests (signals and such) that earlier runs got, so that their copies are known.
        pinned: the only code version that may take this execution's turns; empty for that of the first one taken.
        resets: the last retries and resets of this life, so that their repetitions are known.
    """

    orchestrator: str
    input: str
    seed: int
    python: str
    engine: int = 1
    parent: ActivityKey | None = None
    origin: int = 1
    seen: tuple[str, ...] = ()
    pinned: str | None = None
    resets: tuple[Rewind, ...] | None = None
    at_ms: int = 0
    kind: Literal["ExecutionStarted"] = "ExecutionStarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCompleted:
    """Activity `seq` returned `result` at its `attempt`-th attempt."""

    seq: int
    result: str
    attempt: int = 1
    at_ms: int = 0
    kind: Literal["ActivityCompleted"] = "ActivityCompleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFailed:
    """Activity `seq` failed for good: its policy allows no further attempt."""

    seq: int
    failure: Failure
    attempt: int = 1
    at_ms: int = 0
    kind: Literal["ActivityFailed"] = "ActivityFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """Timer `seq` is due."""

    seq: int
    at_ms: int = 0
    kind: Literal["TimerFired"] = "TimerFired"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReceived:
    """Somebody sent a signal. `request_id` is the same in every copy of it."""

    name: str
    payload: str
    request_id: str
    at_ms: int = 0
    kind: Literal["SignalReceived"] = "SignalReceived"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAccepted:
    """An update passed its validator; its handler runs."""

    name: str
    payload: str
    request_id: str
    at_ms: int = 0
    kind: Literal["UpdateAccepted"] = "UpdateAccepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStarted:
    """The child `seq` exists."""

    seq: int
    at_ms: int = 0
    kind: Literal["ChildStarted"] = "ChildStarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCompleted:
    """The child `seq` returned `result`."""

    seq: int
    result: str
    at_ms: int = 0
    kind: Literal["ChildCompleted"] = "ChildCompleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFailed:
    """The child `seq` could not be started, failed, was cancelled or terminated."""

    seq: int
    failure: Failure
    at_ms: int = 0
    kind: Literal["ChildFailed"] = "ChildFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalDelivered:
    """The signal `seq` to another execution is stored there, or on its way to it."""

    seq: int
    at_ms: int = 0
    kind: Literal["SignalDelivered"] = "SignalDelivered"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalFailed:
    """The signal `seq` reached nobody."""

    seq: int
    failure: Failure
    at_ms: int = 0
    kind: Literal["SignalFailed"] = "SignalFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCancelRequested:
    """Somebody wants the orchestrator cancelled: `CancelledError` at what it awaits."""

    reason: str
    at_ms: int = 0
    kind: Literal["ExecutionCancelRequested"] = "ExecutionCancelRequested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSuspended:
    """From here on events are kept and not applied."""

    reason: str
    request_id: str
    at_ms: int = 0
    kind: Literal["ExecutionSuspended"] = "ExecutionSuspended"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResumed:
    """What was kept is applied."""

    reason: str
    request_id: str
    at_ms: int = 0
    kind: Literal["ExecutionResumed"] = "ExecutionResumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionTerminated:
    """An operator ended the execution; its code is not asked."""

    reason: str
    at_ms: int = 0
    kind: Literal["ExecutionTerminated"] = "ExecutionTerminated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReset:
    """The run ends here, and the next one begins with a prefix of it: a retry or a reset.

    Attributes:
        applied: how many inbound events of this run the next one has applied already.
        dropped: ordinals of later inbound events that the next run does not get.
        input: of the next run, where nothing is applied already; None for the same.
        request_id: of whoever asked for it, so that its repetition finds the run that it began.
        begins: number of that run.
    """

    applied: int
    dropped: tuple[int, ...] = ()
    reason: str
    input: str | None = None
    request_id: str | None = None
    begins: int | None = None
    at_ms: int = 0
    kind: Literal["ExecutionReset"] = "ExecutionReset"


# --- outbound ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityScheduled:
    """The orchestrator asked for activity `name` with `input`."""

    seq: int
    name: str
    input: str
    options: ActivityOptions | None = None
    call_site: str
    cause: int
    at_ms: int = 0
    kind: Literal["ActivityScheduled"] = "ActivityScheduled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityCancelRequested:
    """The orchestrator no longer waits for activity `seq`; a late result is dropped."""

    seq: int
    cause: int
    kind: Literal["ActivityCancelRequested"] = "ActivityCancelRequested"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerStarted:
    """The orchestrator asked to be woken `delay_ms` after the causing event, at `due_ms`."""

    seq: int
    delay_ms: int
    due_ms: int
    call_site: str
    cause: int
    kind: Literal["TimerStarted"] = "TimerStarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildScheduled:
    """The orchestrator asked for a child execution under `execution_id`."""

    seq: int
    orchestrator: str
    execution_id: str
    input: str
    options: ChildOptions | None = None
    call_site: str
    cause: int
    at_ms: int = 0
    kind: Literal["ChildScheduled"] = "ChildScheduled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCancelRequested:
    """The orchestrator wants the child `seq` cancelled and no longer waits for it."""

    seq: int
    execution_id: str
    cause: int
    kind: Literal["ChildCancelRequested"] = "ChildCancelRequested"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSent:
    """The orchestrator sent a signal to another execution."""

    seq: int
    execution_id: str
    name: str
    payload: str
    call_site: str
    cause: int
    at_ms: int = 0
    kind: Literal["SignalSent"] = "SignalSent"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRejected:
    """A signal's payload does not fit its type; nobody got it."""

    request_id: str
    reason: str
    cause: int
    kind: Literal["SignalRejected"] = "SignalRejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCompleted:
    """The handler of an update returned `result`."""

    request_id: str
    result: str
    cause: int
    kind: Literal["UpdateCompleted"] = "UpdateCompleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFailed:
    """The handler of an update raised, or the execution ended before it was done."""

    request_id: str
    failure: Failure
    cause: int
    kind: Literal["UpdateFailed"] = "UpdateFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRecorded:
    """This run takes the new side of a patch."""

    patch_id: str
    cause: int
    kind: Literal["PatchRecorded"] = "PatchRecorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSet:
    """The orchestrator says how far it is."""

    status: str
    cause: int
    kind: Literal["StatusSet"] = "StatusSet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCompleted:
    """The orchestrator returned `result`."""

    result: str
    cause: int
    kind: Literal["ExecutionCompleted"] = "ExecutionCompleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFailed:
    """The orchestrator raised."""

    failure: Failure
    cause: int
    kind: Literal["ExecutionFailed"] = "ExecutionFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCancelled:
    """The orchestrator let the requested cancellation pass."""

    reason: str
    cause: int
    kind: Literal["ExecutionCancelled"] = "ExecutionCancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionContinuedAsNew:
    """The orchestrator goes on in another run, with a new input and a short history.

    Attributes:
        carried: signals that nobody received and updates that are not answered, in the order of their arrival.
        seen: as in `ExecutionStarted`.
    """

    input: str
    carried: tuple[SignalReceived | UpdateAccepted, ...] = ()
    seen: tuple[str, ...] = ()
    cause: int
    kind: Literal["ExecutionContinuedAsNew"] = "ExecutionContinuedAsNew"


InboundEvent: TypeAlias = (
    ExecutionStarted
    | ActivityCompleted
    | ActivityFailed
    | TimerFired
    | SignalReceived
    | UpdateAccepted
    | ChildStarted
    | ChildCompleted
    | ChildFailed
    | SignalDelivered
    | SignalFailed
    | ExecutionCancelRequested
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionTerminated
    | ExecutionReset
)
OutboundEvent: TypeAlias = (
    ActivityScheduled
    | ActivityCancelRequested
    | TimerStarted
    | ChildScheduled
    | ChildCancelRequested
    | SignalSent
    | SignalRejected
    | UpdateCompleted
    | UpdateFailed
    | PatchRecorded
    | StatusSet
    | ExecutionCompleted
    | ExecutionFailed
    | ExecutionCancelled
    | ExecutionContinuedAsNew
)
Event: TypeAlias = InboundEvent | OutboundEvent

# What a run asked for and gets an answer to, by `seq`.
Request: TypeAlias = ActivityScheduled | TimerStarted | ChildScheduled | SignalSent
# What ends a run.
Ending: TypeAlias = ExecutionCompleted | ExecutionFailed | ExecutionCancelled | ExecutionContinuedAsNew
ENDINGS = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled, ExecutionContinuedAsNew)
# Facts that a replay takes from history instead of comparing them.
Fact: TypeAlias = PatchRecorded | SignalRejected | StatusSet
FACTS = (PatchRecorded, SignalRejected, StatusSet)
# What is meant for an execution whichever of its runs is the current one.
LifeEvent: TypeAlias = (
    SignalReceived
    | UpdateAccepted
    | ExecutionCancelRequested
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionTerminated
)
LIFE_EVENTS = (
    SignalReceived,
    UpdateAccepted,
    ExecutionCancelRequested,
    ExecutionSuspended,
    ExecutionResumed,
    ExecutionTerminated,
)


def identity(event: InboundEvent) -> str:
    """What at most one event of a run can be: the answer to request 3, the signal abc, its end."""
    match event:
        case ActivityCompleted() | ActivityFailed() | TimerFired():
            return f"answer.{event.seq}"
        case ChildCompleted() | ChildFailed() | SignalDelivered() | SignalFailed():
            return f"answer.{event.seq}"
        case ChildStarted():
            return f"begun.{event.seq}"
        case SignalReceived() | UpdateAccepted() | ExecutionSuspended() | ExecutionResumed():
            return f"request.{event.request_id}"
        case ExecutionStarted() | ExecutionCancelRequested() | ExecutionTerminated() | ExecutionReset():
            return event.kind
