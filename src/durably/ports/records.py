"""What a backend stores about an execution besides its turns: the record and the activity items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from durably.core.failures import Failure
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import ActivityTask

Status: TypeAlias = Literal[
    "running", "stalled", "suspended", "completed", "failed", "cancelled", "terminated", "purged"
]
CLOSED: frozenset[Status] = frozenset({"completed", "failed", "cancelled", "terminated", "purged"})
ENDED: tuple[Status, ...] = ("completed", "failed", "cancelled", "terminated")
LISTED: tuple[Status, ...] = tuple(status for status in get_args(Status) if status != "purged")
OPEN: frozenset[Status] = frozenset({"running", "stalled", "suspended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The one mutable item of an execution.

    Attributes:
        execution_id: chosen by the caller.
        gen: this life of the id, a ULID.
        orchestrator: persisted name.
        status: open ("running", "stalled", "suspended") or closed; of a "purged" life nothing but this is left.
        run: the current run.
        request_id: of the start, so that the caller's retry finds its own execution.
        code_version: of the last turn that changed the record.
        started_at_ms: accepted at.
        closed_at_ms: None while open.
        result: JSON text, when completed.
        failure: why it failed, was cancelled or terminated, or why it is stalled.
        turn: number of the turn, within `run`, that last changed the record; an older turn changes nothing.
        custom_status: what the orchestrator said last, JSON text.
    """

    execution_id: str
    gen: str
    orchestrator: str
    status: Status
    request_id: str
    code_version: str
    started_at_ms: int
    run: int = 1
    closed_at_ms: int | None = None
    result: str | None = None
    failure: Failure | None = None
    turn: int = 0
    custom_status: str | None = None

    @property
    def closed(self) -> bool:
        """Whether the execution has ended."""
        return self.status in CLOSED

    @property
    def key(self) -> RunKey:
        """The current run."""
        return RunKey(self.execution_id, self.gen, self.run)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChange:
    """New values for a record, applied iff it is the same life, still open, and (`run`, `turn`) is newer than its own.

    Attributes:
        run: the current run from now on.
        reopen: applied to a closed record as well.
        custom_status: None leaves it as it is.
    """

    status: Status
    turn: int
    code_version: str
    run: int = 1
    closed_at_ms: int | None = None
    result: str | None = None
    failure: Failure | None = None
    reopen: bool = False
    custom_status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How an update ended.

    Attributes:
        run: the life that it was sent to, whichever run answered.
        accepted: False if it was rejected and left nothing in the history.
        result: JSON text, where its handler returned.
        failure: why it was rejected, or what its handler raised.
    """

    run: RunKey
    request_id: str
    accepted: bool = True
    result: str | None = None
    failure: Failure | None = None


ItemState: TypeAlias = Literal["retrying", "running", "claimed", "open", "completed", "closed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityItem:
    """What outlives a message about one activity. Absent as long as attempt 1 has nothing to remember.

    Attributes:
        state: "retrying" (attempt `attempt` is the next), "running" (it runs, and its heart beats), "claimed" (an
            at-most-once attempt is running), "open" (a callback is awaited), "completed" (by callback, or by an
            attempt that had an item), "closed" (failed for good, or its callback expired), "cancelled".
        attempt: the attempt that the state speaks of, 1-based.
        version: counts the writes; a write names the version that it replaces, 0 for none.
        deadline_ms: when an open callback expires, or until when the owner of a claim may be running its attempt.
        owner: who claimed the attempt.
        answered: the last attempt that a callback answered; the retry that this led to does not forget it.
        digest: SHA-256 of what that callback brought.
        result: what completed it, JSON text; sent again when the callback, or the task, is repeated.
        last_failure: of the attempt before.
        task: the task of an open callback's attempt, to be sent again for the next one.
        beat_at_ms: the last stored heartbeat of the attempt, or its beginning.
        details: of the last stored heartbeat, of this attempt or an earlier one; JSON text.
    """

    key: ActivityKey
    state: ItemState
    attempt: int
    version: int
    deadline_ms: int | None = None
    owner: str | None = None
    answered: int | None = None
    digest: str | None = None
    result: str | None = None
    last_failure: Failure | None = None
    task: ActivityTask | None = None
    beat_at_ms: int | None = None
    details: str | None = None
