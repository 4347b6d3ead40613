"""Applying events to an execution: brought back to life where it is not live, within the budget of a turn."""

from __future__ import annotations

from typing import NamedTuple

from durably.core.commands import record_command
from durably.core.errors import ExecutionClosedError, MissingDefinitionError, TurnTimeoutError
from durably.core.events import InboundEvent, OutboundEvent, SignalReceived, UpdateAccepted
from durably.core.execution import Execution
from durably.core.failures import Failure, failure_of
from durably.core.handlers import REJECTED
from durably.core.keys import RunKey
from durably.core.replay import replay
from durably.ports.records import Reply
from durably.runtime.live import Live
from durably.runtime.news import stamped
from durably.runtime.runtime import Runtime


class Applied(NamedTuple):
    """What came of applying events.

    Attributes:
        outbound: what they caused.
        accepted: the new events, without updates that are not accepted.
        replies: to updates that are rejected.
        postponed: whether there are updates that came after the run continued as new: the next run is to be asked.
    """

    outbound: list[OutboundEvent]
    accepted: list[InboundEvent]
    replies: tuple[Reply, ...]
    postponed: bool


def apply_events(runtime: Runtime, live: Live, new: list[InboundEvent]) -> Applied:
    """Apply waiting and new events, up to the slice.

    Raises:
        Stall: the code cannot take the turn.
    """
    applied = _apply_once(runtime, live, new)
    execution = live.execution
    assert execution is not None
    unread = applied.accepted[max(0, execution.applied - len(live.state.waiting) - live.state.applied) :]
    if execution.closed and any(isinstance(event, SignalReceived) for event in unread):
        live.discard()  # a signal came with what ended the run: the orchestrator is shown the signal first
        signals = [event for event in new if isinstance(event, SignalReceived)]
        others = [event for event in new if not isinstance(event, SignalReceived)]
        applied = _apply_once(runtime, live, stamped(live.state, [*signals, *others], new[-1].at_ms))
    return applied


def _apply_once(runtime: Runtime, live: Live, new: list[InboundEvent]) -> Applied:
    state = live.state
    accepted: list[InboundEvent] = []
    replies: list[Reply] = []
    outbound: list[OutboundEvent] = []
    postponed = False
    with runtime.budget() as budget:
        execution = live.execution
        if execution is None:
            execution = live.execution = _revive(runtime, live)
        room = runtime.limits.events_per_turn
        for index, event in enumerate((*state.waiting, *new)):
            is_new = index >= len(state.waiting)
            if is_new and isinstance(event, UpdateAccepted):
                if execution.continued:
                    postponed = True
                    continue
                told = runtime.backend.read_reply(live.run, event.request_id)  # of a copy that came before
                if told is not None and not told.accepted:
                    replies.append(told)
                    continue
                refusal = _over() if execution.closed else execution.handlers.refusal(event)
                if refusal is not None:
                    replies.append(Reply(run=live.run, request_id=event.request_id, accepted=False, failure=refusal))
                    continue
            if is_new:
                accepted.append(event)
            if execution.closed or room == 0:
                continue
            room -= 1
            commands = execution.apply(event)
            cause = execution.applied
            outbound.extend(record_command(command, cause=cause, now_ms=event.at_ms) for command in commands)
    if budget.exceeded:
        raise TurnTimeoutError
    return Applied(outbound, accepted, tuple(replies), postponed)


def without_updates(run: RunKey, new: list[InboundEvent]) -> tuple[list[InboundEvent], tuple[Reply, ...]]:
    """The events of a turn that runs no code, without updates, and the replies to those: nobody can validate them."""
    kept: list[InboundEvent] = [event for event in new if not isinstance(event, UpdateAccepted)]
    refused = Failure(
        type=REJECTED, message="the execution is suspended, stalled or has ended; ask again later, as another request"
    )
    replies = (
        Reply(run=run, request_id=event.request_id, accepted=False, failure=refused)
        for event in new
        if isinstance(event, UpdateAccepted)
    )
    return kept, tuple(replies)


def _revive(runtime: Runtime, live: Live) -> Execution:
    program = runtime.registry.program(live.orchestrator)
    if program is None:
        known = ", ".join(runtime.registry.orchestrator_names) or "none"
        raise MissingDefinitionError(
            f"Execution {live.run.execution_id} needs the orchestrator {live.orchestrator!r}; this process knows "
            f"only: {known}. It was renamed or not deployed. Deploy it, or keep the old name in aliases=[...]."
        )
    pinned = live.state.pinned
    if pinned and pinned != runtime.registry.code_version:
        raise MissingDefinitionError(
            f"Execution {live.run.execution_id} is pinned to the code version {pinned}; this process has "
            f"{runtime.registry.code_version}. Run a process with the old version until it has ended."
        )
    execution = Execution(live.run, program, runtime.registry.codec, max_steps=runtime.limits.steps_per_event)
    live.execution = execution
    if live.state.applied:
        turns = live.turns if live.turns is not None else runtime.backend.load_turns(live.run)
        replay(execution, turns[: live.state.turn])
    live.turns = None
    return execution


def _over() -> Failure:
    return failure_of(ExecutionClosedError("the execution has ended"))
