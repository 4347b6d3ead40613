"""From turns to state: `RunState` says what a history leaves open, `replay` brings an orchestrator back to life.

`RunState` runs no user code, so it also serves executions whose code cannot take its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from durably.core.collector import no_collection
from durably.core.commands import Command, agrees, describe_command, describe_outbound
from durably.core.errors import NonDeterminismError
from durably.core.events import (
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    TimerFired,
    TimerStarted,
)
from durably.core.execution import Execution
from durably.core.history import Turn

MAX_OUTSTANDING = 1_000


class RunState:
    """What the turns of one run add up to.

    Attributes:
        turn: number of the last turn.
        started: the first event, None before the first turn is added.
        received: inbound events in the turns.
        applied: how many of them are applied.
        waiting: those that are not, oldest first.
        unresolved: activities and timers without an answer, by seq, in the order asked for.
        recorded: the number of the turn that recorded the answer, by seq.
        cancelled: the number of the turn that cancelled a dispatched activity, by seq; its answer is no news and was
            never stored.
        closed: whether the run has ended.
    """

    def __init__(self) -> None:
        self.turn = 0
        self.started: ExecutionStarted | None = None
        self.started_ms = 0
        self.last_ms = 0
        self.received = 0
        self.applied = 0
        self.waiting: deque[InboundEvent] = deque()
        self.unresolved: dict[int, ActivityScheduled | TimerStarted] = {}
        self.recorded: dict[int, int] = {}
        self.cancelled: dict[int, int] = {}
        self.closed = False
        self._since: dict[int, int] = {}
        self._dispatched = 0
        self._settled = 0
        self._backlog: dict[int, ActivityScheduled] = {}

    def add(self, turn: Turn) -> list[ActivityScheduled | TimerStarted]:
        """Add the next turn.

        Returns:
            What is to be dispatched now that was not before: at most `MAX_OUTSTANDING` activities of a run are out
            at a time, later ones follow as slots free. A pure function of the turns.
        """
        assert turn.number == self.turn + 1, f"turn {turn.number} after {self.turn}"
        self.turn = turn.number
        for event in turn.inbound:
            self._receive(event)
        while self.applied < turn.applied_through:
            self.waiting.popleft()
            self.applied += 1
        due: list[ActivityScheduled | TimerStarted] = []
        for outbound in turn.outbound:
            match outbound:
                case ActivityScheduled():
                    self.unresolved[outbound.seq] = outbound
                    self._backlog[outbound.seq] = outbound
                case TimerStarted():
                    self.unresolved[outbound.seq] = outbound
                    due.append(outbound)
                case ActivityCancelRequested():
                    if self._resolve(outbound.seq):
                        self.cancelled[outbound.seq] = turn.number
                case ExecutionCompleted() | ExecutionFailed():
                    self.closed = True
        backlog = self._backlog
        while backlog and self._dispatched - self._settled < MAX_OUTSTANDING:
            activity = backlog.pop(next(iter(backlog)))
            self._dispatched += 1
            due.append(activity)
        self._since.update((event.seq, turn.number) for event in due)
        return due

    def outstanding(self, *, since: int = 1) -> list[ActivityScheduled | TimerStarted]:
        """Everything unresolved that turn `since` or a later one dispatched: what redelivery dispatches again."""
        return [event for seq, event in self.unresolved.items() if self._since.get(seq, 0) >= since]

    def accepts(self, event: InboundEvent) -> bool:
        """Whether `event` is news: False for duplicates and for answers that nobody waits for."""
        match event:
            case ActivityCompleted() | ActivityFailed():
                return isinstance(self.unresolved.get(event.seq), ActivityScheduled)
            case TimerFired():
                return isinstance(self.unresolved.get(event.seq), TimerStarted)
            case ExecutionStarted():
                return self.started is None
            case ExecutionTerminated():
                return not self.closed

    def _receive(self, event: InboundEvent) -> None:
        self.received += 1
        self.last_ms = event.at_ms
        self.waiting.append(event)
        match event:
            case ActivityCompleted() | ActivityFailed():
                self.recorded[event.seq] = self.turn
                self._resolve(event.seq)
            case TimerFired():
                self.recorded[event.seq] = self.turn
                self.unresolved.pop(event.seq, None)
                self._since.pop(event.seq, None)
            case ExecutionStarted():
                self.started = event
                self.started_ms = event.at_ms
            case ExecutionTerminated():
                self.closed = True

    def _resolve(self, seq: int) -> bool:
        """Close an activity; whether it had been dispatched."""
        dispatched = self._since.pop(seq, None) is not None
        self.unresolved.pop(seq, None)
        self._backlog.pop(seq, None)
        self._settled += dispatched
        return dispatched


def replay(execution: Execution, turns: Iterable[Turn]) -> None:
    """Apply the applied events of `turns` to a fresh `execution`, comparing what it asks for with what it asked.

    Raises:
        NonDeterminismError: it asks for something else.
        Stall: its code cannot take a recorded turn for another reason.
    """
    inbound: list[InboundEvent] = []
    execution.replaying = True
    try:
        with no_collection(), execution.running():
            for turn in turns:
                inbound.extend(turn.inbound)
                if execution.applied < turn.applied_through:
                    _replay_turn(execution, turn, inbound)
    finally:
        execution.replaying = False


def _replay_turn(execution: Execution, turn: Turn, inbound: Sequence[InboundEvent]) -> None:
    recorded = turn.outbound
    position = 0
    while execution.applied < turn.applied_through:
        event = inbound[execution.applied]
        commands = execution.apply(event)
        cause = execution.applied
        end = position + len(commands)
        expected = recorded[position:end]
        if len(expected) == len(commands):
            for command, event_ in zip(commands, expected, strict=True):
                if event_.cause != cause or not agrees(command, event_):
                    break
            else:
                if end == len(recorded) or recorded[end].cause != cause:
                    position = end
                    continue
        raise diverged(execution, event, commands, [e for e in recorded if e.cause == cause])


def diverged(
    execution: Execution, event: InboundEvent, commands: Sequence[Command], recorded: Sequence[OutboundEvent]
) -> NonDeterminismError:
    """The error that shows both sides of a divergence, up to the first difference."""
    index = 0
    while index < len(commands) and index < len(recorded) and agrees(commands[index], recorded[index]):
        index += 1
    was = describe_outbound(recorded[index]) if index < len(recorded) else "nothing more"
    now = describe_command(commands[index]) if index < len(commands) else "nothing more"
    return NonDeterminismError(
        f"Command {index + 1} after event {execution.applied} ({event.kind}) of execution "
        f"{execution.run.execution_id} changed on replay:\n"
        f"  history recorded {was}\n"
        f"  the code now asks for {now}\n"
        "The orchestrator, or something it calls, was edited while this execution was running, or it depends on "
        "something that differs between replays (clock, randomness, environment, order of a set).\n"
        "Restore the recorded behaviour, or let running executions finish on the old version; the execution keeps "
        "its events and resumes by itself once the code agrees with its history."
    )
