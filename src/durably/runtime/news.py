"""Which deliveries are news to a run, and in which order and with which instants they enter it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from durably.core.events import (
    ChildStarted,
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
from durably.core.history import Turn
from durably.core.replay import RunState
from durably.ports.messages import Delivery, EventMessage, Message, Wake
from durably.runtime.live import Live


def news(live: Live, deliveries: Sequence[Delivery]) -> tuple[list[InboundEvent], bool]:
    """The events that are new to the run, and whether a turn was stored for these deliveries before.

    If one was, its taker may have died before it dispatched.
    """
    new: list[InboundEvent] = []
    answered: set[str] = set()
    again = False
    for delivery in deliveries:
        message = delivery.message
        if not isinstance(message, EventMessage):
            again = again or delivery.receives > 1 or _took_over(live, message)
            continue
        event = message.event
        name = identity(event)
        if name in answered or recorded(live, event):
            # a sender that repeats itself says nothing of who took a turn for the first copy
            again = again or delivery.receives > 1 or not isinstance(event, SignalReceived | UpdateAccepted)
            continue
        if _unwanted(live, event):
            continue
        answered.add(name)
        new.append(event)
    return new, again


def stored_for(turns: Sequence[Turn], deliveries: Sequence[Delivery]) -> Sequence[Turn]:
    """The turns that were stored for deliveries which come again, and all after the first of them."""
    messages = [delivery.message for delivery in deliveries]
    events = {identity(message.event) for message in messages if isinstance(message, EventMessage)}
    after = min((message.turn for message in messages if isinstance(message, Wake)), default=len(turns))
    for index, turn in enumerate(turns):
        if turn.number > after or any(identity(event) in events for event in turn.inbound):
            return turns[index:]
    return ()


def is_for(live: Live, message: Message) -> bool:
    """Whether a message is for this run, or for this life whichever its run."""
    if isinstance(message, EventMessage) and message.for_life:
        return (message.run.execution_id, message.run.gen) == (live.run.execution_id, live.run.gen)
    return message.run == live.run


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


def _took_over(live: Live, message: Message) -> bool:
    """Whether a wake took the place of one that somebody else was taking a turn for, who may have died of it."""
    if not isinstance(message, Wake):
        return False
    begun = message.turn == 1 and live.state.began_with_prefix  # nobody has dispatched what the prefix asks for
    return begun or (message.tries > 0 and not live.state.waiting)


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
