"""Rules that every backend shares, as pure functions: cancelling an item, taking an id over, the cursor of a list."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace

from durably.core.errors import ClientError
from durably.core.keys import ActivityKey
from durably.ports.backend import Creation
from durably.ports.records import ActivityItem, Record, RecordChange

TOMBSTONE_MS = 15 * 24 * 3600 * 1000  # longer than any queue keeps a message
_NO_STAMP = 2**63
_FINISHED = frozenset({"completed", "closed", "cancelled"})


def cancelled(item: ActivityItem | None, key: ActivityKey) -> ActivityItem | None:
    """What cancelling makes of an item; None where it stays as it is."""
    if item is None:
        return ActivityItem(key=key, state="cancelled", attempt=1, version=1)
    if item.state in _FINISHED:
        return None
    return replace(item, state="cancelled", version=item.version + 1)


def replaces(creation: Creation, found: Record) -> bool:
    """Whether a start may take the id over from `found`; a repeated start never replaces the life that it began."""
    free = found.status == "purged" or (creation.replace_closed and found.closed)
    return free and found.request_id != creation.record.request_id


def tombstone(record: Record) -> Record:
    """What is left of a purged life, so that zombies and late messages find a grave and not a vacancy."""
    return replace(record, status="purged", result=None, failure=None, custom_status=None)


def applies(change: RecordChange, record: Record) -> bool:
    """Whether a change of this life's record is newer than what changed it last, and allowed."""
    newer = (change.run, change.turn) > (record.run, record.turn)
    return newer and record.status != "purged" and (change.reopen or not record.closed)


def changed(record: Record, change: RecordChange) -> Record:
    """The record after a change that applies."""
    return replace(
        record,
        status=change.status,
        run=change.run,
        turn=change.turn,
        code_version=change.code_version,
        closed_at_ms=change.closed_at_ms,
        result=change.result,
        failure=change.failure,
        custom_status=record.custom_status if change.custom_status is None else change.custom_status,
    )


def encode_cursor(started_at_ms: int, execution_id: str) -> str:
    """An opaque cursor that names the last record of a page."""
    return base64.urlsafe_b64encode(f"{started_at_ms}:{execution_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, str]:
    """`started_at_ms` and `execution_id` of the last record of the page before.

    Raises:
        ClientError: the cursor was not made by `encode_cursor`.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        started_at, separator, execution_id = text.partition(":")
        stamp = int(started_at) if separator else _NO_STAMP
        if abs(stamp) < _NO_STAMP and encode_cursor(stamp, execution_id) == cursor:
            return stamp, execution_id
    except (binascii.Error, ValueError):
        pass
    raise ClientError(
        f"expected the cursor of an earlier page, got {cursor[:80]!r}; "
        "list again without a cursor, and pass on what the page holds, unchanged."
    )


def begins_before(cursor: str | None, started_before_ms: int | None) -> tuple[int, str] | None:
    """Start and id before which a page begins, None for the newest.

    Raises:
        ClientError: the cursor is none.
    """
    if cursor is not None:
        return decode_cursor(cursor)
    return None if started_before_ms is None else (started_before_ms, "")


def check_limit(limit: int) -> None:
    """Refuse a page without records.

    Raises:
        ClientError: `limit` is below 1.
    """
    if limit < 1:
        raise ClientError(f"limit must be at least 1, got {limit}; ask for the number of records per page.")
