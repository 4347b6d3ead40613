"""Which deliveries are news to a run, and in which order and with which instants they enter it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from durably.core.events import (
    ChildStarted,
    ExecutionCancelRequested,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    InboundEvent,
    SignalReceived,
    TimerFired,
    TimerStarted,
    UpdateAccepted,
    identity,
)
from durably.core.replay import RunState
from durably.ports.messages import Delivery, EventMessage, Message, Wake
from durably.ports.records import Record
from durably.runtime.live import Live


def news(live: Live, deliveries: Sequence[Delivery]) -> tuple[list[InboundEvent], int | None]:
    """The events that are new to the run, and the first turn that may have been stored for these deliveries before.

    If there is one, its taker may have died before it dispatched.
    """
    new: list[InboundEvent] = []
    answered: set[str] = set()
    stored: list[int] = []
    for delivery in deliveries:
        message = delivery.message
        if not isinstance(message, EventMessage):
            if isinstance(message, Wake):
                stored.extend(_redone(live, message, delivery.receives))
            continue
        event = message.event
        name = identity(event)
        if name in answered or recorded(live, event):
            turn = live.state.turn_of(event)
            sent_again = isinstance(event, SignalReceived | UpdateAccepted) and delivery.receives == 1
            if not sent_again or live.state.turn <= turn + 1:
                # a sender that repeats itself says nothing of who took a turn for the first copy; but a function may be
                # given the same delivery twice: then whoever stored the event, or applied it just now, may have died
                stored.append(turn)
            continue
        if _unwanted(live, event):
            continue
        answered.add(name)
        new.append(event)
    return new, min(stored, default=None)


def is_for(live: Live, message: Message) -> bool:
    """Whether a message is for this run, or for this life whichever its run."""
    if message.run == live.run:
        return True
    of_this_life = (message.run.execution_id, message.run.gen) == (live.run.execution_id, live.run.gen)
    return of_this_life and isinstance(message, EventMessage) and message.for_life and not _had_its_end(live, message)


def _had_its_end(live: Live, message: EventMessage) -> bool:
    """Whether the run that a cancellation or termination saw has ended since, and was opened again: it is no news."""
    started = live.state.started
    if started is None or not isinstance(message.event, ExecutionCancelRequested | ExecutionTerminated):
        return False
    return any(rewind.reopens and message.run.run < rewind.run for rewind in started.resets or ())


def has_more_to_do(record: Record, delivery: Delivery) -> bool:
    """Whether a delivery may ask something of an execution that its record calls closed.

    It comes again, so who dealt with it may have died; or it is for a run that a retry is just about to begin.
    """
    run = delivery.message.run
    if record.status == "purged":
        return False
    return delivery.receives > 1 or (run.gen == record.gen and run.run > record.run)


def recorded(live: Live, event: InboundEvent) -> bool:
    """Whether a stored turn holds the event, or makes it impossible."""
    state, seq = live.state, getattr(event, "seq", 0)
    if isinstance(event, ChildStarted) and seq in state.begun:
        return True  # also if its own turn cancelled the child
    return not state.accepts(event) and seq not in state.cancelled


def _unwanted(live: Live, event: InboundEvent) -> bool:
    """Whether nobody waits for the event any more: its activity or timer was cancelled."""
    if isinstance(event, TimerFired):
        return live.execution is not None and not live.execution.waits_for(event.seq)
    return getattr(event, "seq", 0) in live.state.cancelled


def _redone(live: Live, wake: Wake, receives: int) -> tuple[int, ...]:
    """The turn from which on a wake repeats what was done: the one after it, if somebody may have died of taking that.

    A wake with tries took the place of one that somebody was taking a turn for. One whose turn is the latest may be the
    same delivery once more, which a function can be given.
    """
    if wake.turn == 1 and live.state.began_with_prefix:  # nobody has dispatched what the prefix asks for
        return (1,)
    again = receives > 1 or (wake.tries > 0 and not live.state.waiting) or wake.turn + 1 == live.state.turn
    return (wake.turn + 1,) if again else ()


def came_too_often(delivery: Delivery, limit: int) -> bool:
    """Whether it ended so many processes that its code is not run now. A repeated wake may cost one, not `limit`."""
    again = isinstance(delivery.message, Wake) and delivery.message.tries > 0
    return delivery.receives >= (2 if again else limit)


def suspends(state: RunState, new: Sequence[InboundEvent]) -> bool:
    """Whether the run is suspended once `new` is added."""
    suspended = state.suspended
    for event in new:
        if isinstance(event, ExecutionSuspended | ExecutionResumed):
            suspended = isinstance(event, ExecutionSuspended)
    return suspended


def stamped(state: RunState, events: list[InboundEvent], now_ms: int) -> list[InboundEvent]:
    """The events with their instants: never before the last one's, nor before a timer's due time."""
    stamp = max(state.last_ms, now_ms)
    result: list[InboundEvent] = []
    for event in events:
        if isinstance(event, TimerFired):
            started = state.unresolved.get(event.seq)
            if isinstance(started, TimerStarted):
                stamp = max(stamp, started.due_ms)
        result.append(replace(event, at_ms=stamp))
    return result


def too_long(limit: int, *, at_ms: int) -> ExecutionTerminated:
    return ExecutionTerminated(
        reason=f"the history reached its limit of {limit} events; split the work into several executions", at_ms=at_ms
    )
