"""Callback activities named by execution and number instead of their token, by whoever may manage executions."""

from __future__ import annotations

from durably.core.errors import ActivityNotAwaitedError
from durably.core.events import ExecutionStarted
from durably.core.keys import ActivityKey
from durably.ports.records import ActivityItem, Record
from durably.ports.tokens import TokenClaims
from durably.runtime.attempt import FOR_EVER_MS
from durably.runtime.runtime import Essentials
from durably.runtime.start import existing_record


def awaited_item(runtime: Essentials, execution_id: str, activity: int | str) -> ActivityItem:
    """The item of a callback activity that was submitted.

    Args:
        runtime: the surroundings.
        execution_id: which execution.
        activity: number of the activity in the current run, or the `idempotency_key` that its attempt was given.

    Raises:
        ExecutionNotFoundError: there is no such execution.
        ActivityNotAwaitedError: there is no such activity, it has no callback, or nobody has submitted it yet.
    """
    record = existing_record(runtime.backend, execution_id)
    seq = _seq_of(runtime, record, activity)
    item = None if seq is None else runtime.backend.read_item(ActivityKey(record.key, seq))
    if item is None or (item.task is None and item.answered is None):
        raise ActivityNotAwaitedError(
            f"Activity {activity} of execution {execution_id!r}, run {record.run}, awaits no callback. `durably show` "
            "lists those that do, as open."
        )
    return item


def claims_of(item: ActivityItem) -> TokenClaims:
    """What the token of the attempt would claim: the one that is open, else the one that was answered last."""
    answered = None if item.state in ("open", "cancelled") else item.answered
    expires_at_ms = FOR_EVER_MS if item.deadline_ms is None else item.deadline_ms
    return TokenClaims(key=item.key, attempt=answered or item.attempt, expires_at_ms=expires_at_ms)


def _seq_of(runtime: Essentials, record: Record, activity: int | str) -> int | None:
    """The number of an activity of the current run."""
    if isinstance(activity, int):
        return activity
    prefix, _, seq = activity.rpartition(".")
    if prefix and not _is_of(runtime, record, prefix):
        return None
    return int(seq) if seq.isascii() and seq.isdecimal() and len(seq) < 10 else None


def _is_of(runtime: Essentials, record: Record, prefix: str) -> bool:
    """Whether an idempotency key that begins like this is of the current run, or of one that this run repeats."""
    gen, _, run = prefix.partition(".")
    if gen != record.gen:
        return False
    if run == str(record.run):
        return True
    (started, *_), *_ = (turn.inbound for turn in runtime.backend.load_turns(record.key))
    return isinstance(started, ExecutionStarted) and run == str(started.origin)
