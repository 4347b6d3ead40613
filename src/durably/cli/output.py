"""What is printed: values as plain JSON with stable keys, and text for people."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from durably.core.context import instant
from durably.core.failures import Failure
from durably.core.history import HistoryEntry
from durably.descriptions import Description, PendingActivity
from durably.ports.records import Record
from durably.views import event_view


def print_json(value: Any) -> None:
    """One JSON document on standard output; readable on a terminal, one line for programs."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, ensure_ascii=False, indent=indent))


# --- for people ----------------------------------------------------------------------------------------------


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they must be; on a terminal the last one ends where the line does."""
    lines = [heads, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads) - 1)]
    room = shutil.get_terminal_size().columns - sum(widths) - 2 * len(widths) if sys.stdout.isatty() else None
    for line in lines:
        last = line[-1]
        if room is not None and len(last) > room:
            last = f"{last[: max(room - 1, 10)]}…"
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join((*cells, last)).rstrip())


def record_row(record: Record, now: datetime) -> tuple[str, ...]:
    """A row of `durably list`."""
    started = instant(record.started_at_ms)
    ended = now if record.closed_at_ms is None else instant(record.closed_at_ms)
    run = "" if record.run == 1 else f" (run {record.run})"
    took = duration(ended - started)
    said = record.custom_status or ""
    return record.execution_id, record.orchestrator, f"{record.status}{run}", moment(started), took, said


def event_row(entry: HistoryEntry) -> tuple[str, ...]:
    """A row of `durably history`."""
    shown = event_view(entry)
    attributes: Mapping[str, Any] = shown["attributes"]
    text = " ".join(f"{name}={_brief(value)}" for name, value in attributes.items() if value not in (None, []))
    at = shown["at"]
    stamp = "" if at is None else moment(datetime.fromisoformat(at), milliseconds=True)
    return str(entry.number), stamp, entry.event.kind, "yes" if entry.applied else "no", text


def _brief(value: Any) -> str:
    if isinstance(value, dict) and "type" in value and "message" in value:
        failure = cast("dict[str, Any]", value)
        value = f"{failure['type']}: {failure['message']}"
    elif isinstance(value, dict):
        value = {key: item for key, item in cast("dict[str, Any]", value).items() if item is not None}
    if isinstance(value, str) and value and not any(character.isspace() for character in value):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def print_description(described: Description, result: str | None, now: datetime) -> None:
    """`durably show`."""
    print(described.execution_id)
    ended = described.closed_at
    facts = [
        ("orchestrator", described.orchestrator),
        ("status", described.status),
        ("custom status", described.custom_status or ""),
        ("started", f"{moment(described.started_at)} ({duration(now - described.started_at)} ago)"),
        ("ended", "" if ended is None else f"{moment(ended)} (after {duration(ended - described.started_at)})"),
        ("history", _received(described)),
        ("run", "" if described.run == 1 else str(described.run)),
        ("code version", described.code_version),
        ("result", result or ""),
    ]
    for name, value in facts:
        if value:
            print(f"  {name:<13} {value}")
    if described.failure is not None:
        print(f"  {'stalled by' if described.status == 'stalled' else 'failure':<13} {described.failure}")
        _print_stack(described.failure, "    ")
    _print_pending(described, now)


def _print_pending(described: Description, now: datetime) -> None:
    for activity in described.activities:
        print(
            f"  {'waits for':<13} {activity.name} (#{activity.seq}): attempt {activity.attempt}, {activity.state}; "
            f"called at {activity.call_site}"
        )
        if activity.heartbeat_at is not None or activity.heartbeat_details is not None:
            print(f"  {'':<13} {_heartbeat(activity, now)}")
        if activity.deadline_at is not None:
            print(f"  {'':<13} until {_moment_and_distance(activity.deadline_at, now)}")
        if activity.last_failure is not None:
            print(f"  {'':<13} attempt {activity.attempt - 1} failed: {activity.last_failure}")
            _print_stack(activity.last_failure, "    ")
    for child in described.children:
        print(
            f"  {'waits for':<13} {child.orchestrator} {child.execution_id} (#{child.seq}): child; "
            f"called at {child.call_site}"
        )
    for timer in described.timers:
        due = _moment_and_distance(timer.due_at, now)
        print(f"  {'waits until':<13} {due} (#{timer.seq}); called at {timer.call_site}")
    if described.status == "running" and described.unapplied:
        print(f"  {'waits for':<13} its next turn")
    elif described.status == "running" and not (described.activities or described.children or described.timers):
        print(f"  {'waits for':<13} a signal or an update")


def _received(described: Description) -> str:
    received = f"{_count(described.history_length, 'event')} received in {_count(described.turns, 'turn')}"
    return f"{received}, {described.unapplied} not applied yet" if described.unapplied else received


def _heartbeat(activity: PendingActivity, now: datetime) -> str:
    at = activity.heartbeat_at
    said = "an earlier attempt said" if at is None else f"last heartbeat {moment(at)} ({duration(now - at)} ago)"
    details = activity.heartbeat_details
    return said if details is None else f"{said}: {details}"


def _moment_and_distance(at: datetime, now: datetime) -> str:
    left = at - now
    return f"{moment(at)} ({f'in {duration(left)}' if left > timedelta(0) else 'now'})"


def _print_stack(failure: Failure, indent: str) -> None:
    for line in (failure.stack or "").splitlines():
        print(f"{indent}{line}")
    if failure.cause is not None:
        print(f"{indent}caused by {failure.cause}")
        _print_stack(failure.cause, f"{indent}  ")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def moment(at: datetime, *, milliseconds: bool = False) -> str:
    """An instant in UTC, to the second or the millisecond."""
    return at.astimezone(UTC).isoformat(" ", "milliseconds" if milliseconds else "seconds").removesuffix("+00:00") + "Z"


def duration(length: timedelta) -> str:
    """A length of time in the two units that matter."""
    seconds = max(0.0, length.total_seconds())
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours, days = round(seconds / 60), round(seconds / 3600), seconds / 86400
    if minutes < 60:
        return f"{minutes} min {seconds - 60 * minutes:.0f} s" if seconds >= 60 * minutes else f"{minutes} min"
    return f"{hours} h" if hours < 48 else f"{days:.1f} d"
