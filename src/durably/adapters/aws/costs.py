"""What an execution costs on AWS, from its history: the requests that each event caused, in billed units.

An estimate. It knows the bytes of each turn exactly, and how often each activity was tried; it takes functions for
warm and messages for delivered once, and run times are the caller's guess. No request is made.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias, cast

from durably.adapters.aws.bodies import Reference
from durably.adapters.aws.envelopes import BY_REFERENCE_BYTES
from durably.adapters.aws.items import READ_UNIT_BYTES, item_size, record_item, turn_item, units
from durably.adapters.aws.metering import without_bodies
from durably.core.events import ActivityCompleted, ActivityFailed, ActivityScheduled, TimerStarted
from durably.core.history import Turn
from durably.core.options import DEFAULT_OPTIONS
from durably.ports.records import Record

_ENVELOPE_BYTES = 500
_REQUEST_BYTES = 64 * 1024
_BATCH = 10
_LARGEST_DELAY_MS = 900_000
_KEPT_REFERENCE = Reference("0" * 64, 0)

Usage: TypeAlias = defaultdict[str, float]  # billed units by what they are of

WRITES, READS = "DynamoDB write units", "DynamoDB read units"
STANDARD, FIFO = "SQS standard requests", "SQS FIFO requests"
INVOCATIONS, GB_SECONDS = "Lambda requests", "Lambda GB-seconds"
SCHEDULES, CALLBACKS = "Scheduler invocations", "HTTP API requests"
S3_WRITES, S3_READS = "S3 writes", "S3 reads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """How large the Lambda functions are and how long they run, which no history tells."""

    turn_ms: float = 15
    turn_mb: int = 512
    activity_ms: float = 100
    activity_mb: int = 512


@dataclass(frozen=True, slots=True)
class Line:
    """One position of the bill."""

    what: str
    units: float
    dollars: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per million units, and where they are from."""

    source: str
    date: str
    region: str
    per_million: dict[str, float]

    @classmethod
    def published(cls) -> Prices:
        """The prices that came with this version of durably."""
        text = resources.files(__package__ or "").joinpath("prices.json").read_text(encoding="utf-8")
        found = cast("dict[str, Any]", json.loads(text))
        return cls(found["source"], found["date"], found["region"], found["per_million"])

    def bill(self, usage: Usage) -> list[Line]:
        """What a usage costs, position by position."""
        return [
            Line(what, usage[what], usage[what] * price / 1e6)
            for what, price in self.per_million.items()
            if usage[what]
        ]


def usage_of(record: Record, turns: Sequence[Turn], functions: Functions) -> Usage:
    """Billed units of an execution's life so far."""
    used: Usage = defaultdict(float)
    _count_start_and_end(used, record)
    attempts = _attempts(turns)
    for turn in turns:
        size = item_size(_turn_item(record, turn, used))
        used[WRITES] += units(size)
        if turn.number == 1:
            used[READS] += 1 + units(size, READ_UNIT_BYTES)  # the first turn taken is cold
            continue
        used[FIFO] += 2  # Lambda's poller receives and deletes
        _count_invocation(used, functions.turn_ms, functions.turn_mb)
        used[FIFO] += sum(_message_units(len(getattr(event, "result", ""))) for event in turn.inbound)
        _count_tasks(used, [event for event in turn.outbound if isinstance(event, ActivityScheduled)])
        for event in turn.outbound:
            if isinstance(event, ActivityScheduled):
                _count_activity(used, event, attempts.get(event.seq, 1), functions)
            elif isinstance(event, TimerStarted):
                _count_delayed(used, event.delay_ms, functions)
    return used


def steps_of(turns: Iterable[Turn]) -> int:
    """How many activities and timers were asked for."""
    return sum(isinstance(event, ActivityScheduled | TimerStarted) for turn in turns for event in turn.outbound)


def _count_start_and_end(used: Usage, record: Record) -> None:
    item = record_item(record, lambda _: _KEPT_REFERENCE)
    used[WRITES] += units(item_size(item)) + units(item_size(without_bodies(item)))  # the record and its index entry
    used[FIFO] += 1  # the wake
    if record.closed:
        used[WRITES] += units(item_size(item)) + 2  # the index: a deletion and a put


def _turn_item(record: Record, turn: Turn, used: Usage) -> Any:
    def to_s3(_: bytes) -> Reference:
        used[S3_WRITES] += 1
        return _KEPT_REFERENCE

    return turn_item(record.key, turn, to_s3)


def _attempts(turns: Iterable[Turn]) -> dict[int, int]:
    ended = (event for turn in turns for event in turn.inbound)
    return {event.seq: event.attempt for event in ended if isinstance(event, ActivityCompleted | ActivityFailed)}


def _count_tasks(used: Usage, tasks: Sequence[ActivityScheduled]) -> None:
    """The turn's sends: up to ten tasks for the same activity in a request."""
    by_name: dict[str, list[int]] = {}
    for task in tasks:
        if task.options is None or task.options.mode != "local":
            by_name.setdefault(task.name, []).append(_bytes(len(task.input)))
    for sizes in by_name.values():
        for start in range(0, len(sizes), _BATCH):
            used[STANDARD] += units(sum(sizes[start : start + _BATCH]), _REQUEST_BYTES)


def _count_activity(used: Usage, task: ActivityScheduled, attempts: int, functions: Functions) -> None:
    options = task.options or DEFAULT_OPTIONS
    if options.mode == "local":
        return
    message = _message_units(len(task.input))
    used[STANDARD] += attempts * (message + 1)  # received, deleted
    if len(task.input) > BY_REFERENCE_BYTES:
        used[S3_WRITES] += attempts
        used[S3_READS] += attempts
    for _ in range(attempts):
        _count_invocation(used, functions.activity_ms, functions.activity_mb)
    retries = attempts - 1
    used[WRITES] += retries  # the item
    used[READS] += 2 * retries  # is the execution open, what does the item say
    used[STANDARD] += retries * message
    if options.at_most_once:
        used[WRITES] += attempts + 1
        used[READS] += 2
    if options.mode == "callback":
        _count_callback(used, options.start_to_close_ms or options.schedule_to_close_ms, attempts, functions)


def _count_callback(used: Usage, timeout_ms: int | None, attempts: int, functions: Functions) -> None:
    used[WRITES] += attempts + 1  # opened by each attempt, completed once
    used[READS] += 2 * attempts + 2
    used[CALLBACKS] += 1
    _count_invocation(used, functions.turn_ms, functions.turn_mb)
    _count_delayed(used, 0, functions, forwarded=False)  # the check that the completion was sent
    if timeout_ms is not None:
        for _ in range(attempts):
            _count_delayed(used, timeout_ms, functions, forwarded=False)
            used[READS] += 1


def _count_delayed(used: Usage, delay_ms: int, functions: Functions, *, forwarded: bool = True) -> None:
    """Through the delay queue, and through the scheduler before that if it is long. An event goes on to the FIFO queue,
    where its turn counts it.
    """
    hops = 1
    if delay_ms > _LARGEST_DELAY_MS:
        hops = 2
        used[SCHEDULES] += 1
    used[STANDARD] += 3 * hops  # sent, received, deleted
    for _ in range(hops):
        _count_invocation(used, functions.turn_ms, functions.turn_mb)
    if not forwarded:
        used[READS] += 1


def _count_invocation(used: Usage, ms: float, mb: int) -> None:
    used[INVOCATIONS] += 1
    used[GB_SECONDS] += ms / 1000 * mb / 1024


def _bytes(payload: int) -> int:
    """What a message with this payload weighs in its queue."""
    return _ENVELOPE_BYTES if payload > BY_REFERENCE_BYTES else payload + _ENVELOPE_BYTES


def _message_units(payload: int) -> int:
    return units(_bytes(payload), _REQUEST_BYTES)
