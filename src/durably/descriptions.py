"""Executions as an operator sees them: status, and what they wait for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from durably.core.context import instant
from durably.core.events import ActivityScheduled, ChildScheduled, TimerStarted
from durably.core.failures import Failure
from durably.core.options import DEFAULT_OPTIONS
from durably.core.replay import RunState
from durably.ports.backend import Backend
from durably.ports.records import ActivityItem, Status
from durably.runtime.start import existing_record


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingActivity:
    """An activity that an execution waits for.

    Attributes:
        attempt: the attempt that is queued, running or awaiting its callback, 1-based.
        last_failure: of the attempt before, None for the first.
        state: "scheduled" (queued, or running without heartbeats), "retrying", "running" (and its heart beats),
            "claimed" (at most once), "open" (a callback is awaited).
        deadline_at: when its callback expires, its claim, or the silence that its `heartbeat_timeout` allows.
        heartbeat_at: the last stored heartbeat of the attempt, or its beginning.
        heartbeat_details: of the last stored heartbeat, of this attempt or an earlier one; JSON text.
    """

    seq: int
    name: str
    call_site: str
    attempt: int
    state: str
    last_failure: Failure | None
    deadline_at: datetime | None = None
    heartbeat_at: datetime | None = None
    heartbeat_details: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTimer:
    """A timer that has not fired."""

    seq: int
    due_at: datetime
    call_site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingChild:
    """A child execution that has not ended."""

    seq: int
    orchestrator: str
    execution_id: str
    call_site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An execution as an operator sees it.

    Attributes:
        custom_status: what the orchestrator said last with `ctx.set_status`, JSON text.
        failure: why it failed, was terminated or is stalled.
        history_length: inbound events stored.
        unapplied: how many of them wait to be applied.
    """

    execution_id: str
    orchestrator: str
    status: Status
    gen: str
    run: int
    started_at: datetime
    closed_at: datetime | None
    code_version: str
    failure: Failure | None
    history_length: int
    turns: int
    activities: tuple[PendingActivity, ...]
    timers: tuple[PendingTimer, ...]
    children: tuple[PendingChild, ...]
    custom_status: str | None
    unapplied: int = 0


def describe(backend: Backend, execution_id: str) -> Description:
    """The current run of an execution.

    Raises:
        ExecutionNotFoundError: there is none.
    """
    record = existing_record(backend, execution_id)
    state = RunState()
    for turn in backend.load_turns(record.key):
        state.add(turn)
    items = {item.key.seq: item for item in backend.read_items(record.key)} if not record.closed else {}
    activities: list[PendingActivity] = []
    timers: list[PendingTimer] = []
    children: list[PendingChild] = []
    for event in () if record.closed else state.unresolved.values():
        if isinstance(event, TimerStarted):
            timers.append(PendingTimer(seq=event.seq, due_at=instant(event.due_ms), call_site=event.call_site))
        elif isinstance(event, ChildScheduled):
            children.append(
                PendingChild(
                    seq=event.seq,
                    orchestrator=event.orchestrator,
                    execution_id=event.execution_id,
                    call_site=event.call_site,
                )
            )
        elif isinstance(event, ActivityScheduled):
            activities.append(_pending(event, items.get(event.seq)))
    return Description(
        execution_id=record.execution_id,
        orchestrator=record.orchestrator,
        status=record.status,
        gen=record.gen,
        run=record.run,
        started_at=instant(record.started_at_ms),
        closed_at=None if record.closed_at_ms is None else instant(record.closed_at_ms),
        code_version=record.code_version,
        failure=record.failure,
        history_length=state.received,
        turns=state.turn,
        activities=tuple(activities),
        timers=tuple(timers),
        children=tuple(children),
        custom_status=record.custom_status,
        unapplied=0 if record.closed else len(state.waiting),
    )


def _pending(event: ActivityScheduled, item: ActivityItem | None) -> PendingActivity:
    pending = PendingActivity(
        seq=event.seq, name=event.name, call_site=event.call_site, attempt=1, state="scheduled", last_failure=None
    )
    if item is None:
        return pending
    beat_ms, silence_ms = item.beat_at_ms, (event.options or DEFAULT_OPTIONS).heartbeat_ms
    silent_ms = None if beat_ms is None or silence_ms is None else beat_ms + silence_ms
    deadline_ms = min((instant_ms for instant_ms in (item.deadline_ms, silent_ms) if instant_ms), default=None)
    return replace(
        pending,
        attempt=item.attempt,
        state=item.state,
        last_failure=item.last_failure,
        deadline_at=None if deadline_ms is None else instant(deadline_ms),
        heartbeat_at=None if beat_ms is None else instant(beat_ms),
        heartbeat_details=item.details,
    )
