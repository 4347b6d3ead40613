"""Callback activities named by execution and number instead of their token, by whoever may manage executions."""

from __future__ import annotations

from durably.core.errors import ActivityNotAwaitedError
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
    origin, seq = _named(record, activity)
    item = None if seq is None else runtime.backend.read_item(ActivityKey(record.key, seq))
    if item is None or (item.task is None and item.answered is None) or not _began_in(origin, item):
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


def _named(record: Record, activity: int | str) -> tuple[int | None, int | None]:
    """The run in which a history began, None for any, and the number of an activity in it; None for none."""
    if isinstance(activity, int):
        return None, activity
    gen, *origin, seq = activity.split(".") if activity.count(".") == 2 else (record.gen, activity)
    if gen != record.gen or not all(each.isascii() and each.isdecimal() and len(each) < 10 for each in (*origin, seq)):
        return None, None
    return int(origin[0]) if origin else None, int(seq)


def _began_in(origin: int | None, item: ActivityItem) -> bool:
    return origin is None or item.task is None or origin == (item.task.origin or item.key.run.run)
