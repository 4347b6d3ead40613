"""From recorded commands to messages. Pure: the same event always becomes the same message with the same id."""

from __future__ import annotations

from collections.abc import Iterable

from durably.core.events import ActivityScheduled, ChildScheduled, Request, SignalSent, TimerFired, TimerStarted
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import ActivityTask, Errand, EventMessage, Outgoing


def dispatches(
    run: RunKey, events: Iterable[Request], *, now_ms: int, origin: int | None = None, again: bool = False
) -> tuple[Outgoing, ...]:
    """The messages that carry out what was asked for; with `again`, it was asked for before.

    `origin` is the run in which the history began, where that is another one.
    """
    origin = None if origin == run.run else origin
    return tuple(_dispatch(run, event, now_ms=now_ms, origin=origin, again=again) for event in events)


def _dispatch(run: RunKey, event: Request, *, now_ms: int, origin: int | None, again: bool) -> Outgoing:
    match event:
        case ActivityScheduled():
            return Outgoing(
                ActivityTask(
                    key=ActivityKey(run, event.seq),
                    name=event.name,
                    input=event.input,
                    options=event.options,
                    scheduled_at_ms=event.at_ms,
                    queued_at_ms=now_ms,
                    origin=origin,
                    again=True if again else None,
                )
            )
        case TimerStarted():
            return Outgoing(EventMessage(run=run, event=TimerFired(seq=event.seq)), event.due_ms)
        case ChildScheduled():
            return Outgoing(
                Errand(
                    key=ActivityKey(run, event.seq),
                    execution_id=event.execution_id,
                    action="start",
                    name=event.orchestrator,
                    payload=event.input,
                    options=event.options,
                )
            )
        case SignalSent():
            return Outgoing(
                Errand(
                    key=ActivityKey(run, event.seq),
                    execution_id=event.execution_id,
                    action="signal",
                    name=event.name,
                    payload=event.payload,
                )
            )
