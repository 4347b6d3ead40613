"""From recorded commands to messages. Pure: the same event always becomes the same message with the same id."""

from __future__ import annotations

from collections.abc import Iterable

from durably.core.events import ActivityScheduled, TimerFired, TimerStarted
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import ActivityTask, EventMessage, Outgoing


def dispatches(
    run: RunKey, events: Iterable[ActivityScheduled | TimerStarted], *, now_ms: int
) -> tuple[Outgoing, ...]:
    """The messages that carry out what was asked for."""
    return tuple(dispatch(run, event, now_ms=now_ms) for event in events)


def dispatch(run: RunKey, event: ActivityScheduled | TimerStarted, *, now_ms: int) -> Outgoing:
    """The message that carries out one command."""
    if isinstance(event, TimerStarted):
        return Outgoing(EventMessage(run=run, event=TimerFired(seq=event.seq)), event.due_ms)
    return Outgoing(
        ActivityTask(
            key=ActivityKey(run, event.seq),
            name=event.name,
            input=event.input,
            options=event.options,
            scheduled_at_ms=event.at_ms,
            queued_at_ms=now_ms,
        )
    )
