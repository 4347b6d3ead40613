"""Executions and histories as people's programs see them, by HTTP and `--json`: plain JSON with stable keys."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from durably.core.context import instant
from durably.core.errors import UpdateFailedError, UpdateRejectedError
from durably.core.history import HistoryEntry
from durably.descriptions import Description
from durably.ports.records import Record

_PAYLOADS = frozenset({"input", "result", "payload", "status"})  # of events: JSON text
_SHOWN_APART = frozenset({"kind", "at_ms"})


def record_view(record: Record) -> dict[str, Any]:
    """An execution in a list."""
    return {
        "execution_id": record.execution_id,
        "orchestrator": record.orchestrator,
        "status": record.status,
        "gen": record.gen,
        "run": record.run,
        "started_at": instant(record.started_at_ms).isoformat(),
        "closed_at": None if record.closed_at_ms is None else instant(record.closed_at_ms).isoformat(),
        "code_version": record.code_version,
        "failure": _plain(record.failure),
        "custom_status": _parsed(record.custom_status),
    }


def result_view(record: Record) -> dict[str, Any]:
    """How an execution ended, or that it has not."""
    return {
        "execution_id": record.execution_id,
        "status": record.status,
        "result": _parsed(record.result),
        "failure": _plain(record.failure),
    }


def update_view(
    execution_id: str,
    request_id: str,
    *,
    result: Any = None,
    refusal: UpdateRejectedError | UpdateFailedError | None = None,
) -> dict[str, Any]:
    """How an update ended: completed, rejected by its validator, or failed in its handler."""
    refused = "rejected" if isinstance(refusal, UpdateRejectedError) else "failed"
    return {
        "execution_id": execution_id,
        "request_id": request_id,
        "outcome": "completed" if refusal is None else refused,
        "result": result,
        "failure": None if refusal is None else _plain(refusal.failure),
    }


def description_view(description: Description) -> dict[str, Any]:
    """An execution with what it waits for."""
    status = description.custom_status
    plain = cast("dict[str, Any]", _plain(description))
    for activity in plain["activities"]:
        activity["heartbeat_details"] = _parsed(activity["heartbeat_details"])
    return {**plain, "custom_status": _parsed(status)}


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def history_view(entries: Iterable[HistoryEntry]) -> list[dict[str, Any]]:
    """Events in order, each followed by what it caused."""
    return [event_view(entry) for entry in entries]


def event_view(entry: HistoryEntry) -> dict[str, Any]:
    """One event with its attributes."""
    at_ms = getattr(entry.event, "at_ms", None)
    attributes: dict[str, Any] = {}
    for field in dataclasses.fields(entry.event):
        value = getattr(entry.event, field.name)
        if field.name == "due_ms":
            attributes["due_at"] = instant(value).isoformat()
        elif field.name not in _SHOWN_APART:
            attributes[field.name] = _attribute(field.name, value)
    return {
        "number": entry.number,
        "turn": entry.turn,
        "code_version": entry.code_version,
        "event": entry.event.kind,
        "at": None if at_ms is None else instant(at_ms).isoformat(),
        "applied": entry.applied,
        "attributes": attributes,
    }


def _attribute(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _PAYLOADS:
        try:
            return json.loads(value)
        except ValueError:  # somebody sent what is no JSON; it is shown as it came
            return value
    if name == "carried":  # signals and updates, as they arrived
        return [{field: _attribute(field, each) for field, each in _plain(event).items()} for event in value]
    return _plain(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value.total_seconds() if isinstance(value, timedelta) else value
