"""The events a history is made of: frozen data, past participles. No behaviour, no I/O, no encoding.

Inbound events arrive at an execution; outbound events are what it asked for, and `cause` says which
inbound event (1-based, counted over the run) made it ask. Payloads are JSON text, instants are integer
milliseconds since the Unix epoch (`*_ms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from durably.core.failures import Failure
from durably.core.options import ActivityOptions

# --- inbound -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    """The first event of a run: which orchestrator, with which input, under which random seed."""

    orchestrator: str
    input: str
    seed: int
    python: str
    engine: int = 1
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
class ExecutionTerminated:
    """An operator ended the execution; its code is not asked."""

    reason: str
    at_ms: int = 0
    kind: Literal["ExecutionTerminated"] = "ExecutionTerminated"


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


InboundEvent: TypeAlias = ExecutionStarted | ActivityCompleted | ActivityFailed | TimerFired | ExecutionTerminated
OutboundEvent: TypeAlias = (
    ActivityScheduled | ActivityCancelRequested | TimerStarted | ExecutionCompleted | ExecutionFailed
)
Event: TypeAlias = InboundEvent | OutboundEvent
