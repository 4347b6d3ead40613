"""From turns to state: `RunState` says what a history leaves open, `replay` brings an orchestrator back to life.

`RunState` runs no user code, so it also serves executions whose code cannot take its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from durably.core.collector import no_collection
from durably.core.commands import Command, agrees, describe_command, describe_outbound
from durably.core.errors import NonDeterminismError
from durably.core.events import (
    ENDINGS,
    FACTS,
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ChildCancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildScheduled,
    ChildStarted,
    ExecutionCancelRequested,
    ExecutionReset,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    PatchRecorded,
    Request,
    SignalDelivered,
    SignalFailed,
    SignalReceived,
    SignalRejected,
    SignalSent,
    StatusSet,
    TimerFired,
    TimerStarted,
    UpdateAccepted,
    UpdateCompleted,
    UpdateFailed,
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
        unresolved: what was asked for and has no answer, by seq, in the order asked for.
        recorded: the number of the turn that recorded the answer, by seq.
        cancelled: the number of the turn that cancelled a dispatched activity or child, by seq; its answer is no news
            and was never stored.
        children: those that are not known to have ended, cancelled ones excepted, by seq.
        cancelled_children: the others, by seq.
        begun: the number of the turn that recorded the start of a child, by seq.
        requests: the number of the turn that recorded a signal or another request, by its id.
        cancel_requested: whether somebody asked for the orchestrator's cancellation.
        suspended: whether events are kept and not applied.
        closed: whether the run has ended.
        custom_status: what the orchestrator said last with `ctx.set_status`, JSON text; None for nothing.
        custom_status_turn: the number of the turn in which it said so.
        answers: how updates ended, each with the number of the turn that recorded it.
        pinned: the only code version that may take further turns; None for any. Empty until the first one is taken.
        began_with_prefix: whether its first turn is the applied part of another run, after a reset.
    """

    def __init__(self) -> None:
        self.turn = 0
        self.started: ExecutionStarted | None = None
        self.started_ms = 0
        self.last_ms = 0
        self.received = 0
        self.applied = 0
        self.waiting: deque[InboundEvent] = deque()
        self.unresolved: dict[int, Request] = {}
        self.recorded: dict[int, int] = {}
        self.cancelled: dict[int, int] = {}
        self.children: dict[int, ChildScheduled] = {}
        self.cancelled_children: dict[int, ChildScheduled] = {}
        self.requests: dict[str, int] = {}
        self.cancel_requested = False
        self.suspended = False
        self.closed = False
        self.custom_status: str | None = None
        self.custom_status_turn = 0
        self.answers: list[tuple[int, UpdateCompleted | UpdateFailed]] = []
        self.pinned: str | None = None
        self.began_with_prefix = False
        self.begun: dict[int, int] = {}
        self._since: dict[int, int] = {}
        self._dispatched = 0
        self._settled = 0
        self._backlog: dict[int, ActivityScheduled] = {}

    def add(self, turn: Turn) -> list[Request]:
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
        if self.pinned == "" and self.applied:
            self.pinned = turn.code_version
        due: list[Request] = []
        for outbound in turn.outbound:
            if isinstance(outbound, ActivityScheduled):
                self.unresolved[outbound.seq] = outbound
                self._backlog[outbound.seq] = outbound
            elif isinstance(outbound, TimerStarted | ChildScheduled | SignalSent):
                self.unresolved[outbound.seq] = outbound
                due.append(outbound)
                if isinstance(outbound, ChildScheduled):
                    self.children[outbound.seq] = outbound
            elif isinstance(outbound, ActivityCancelRequested | ChildCancelRequested):
                if self._resolve(outbound.seq):
                    self.cancelled[outbound.seq] = turn.number
                child = self.children.pop(outbound.seq, None)
                if child is not None:
                    self.cancelled_children[outbound.seq] = child
            elif isinstance(outbound, StatusSet):
                self.custom_status, self.custom_status_turn = outbound.status, turn.number
            elif isinstance(outbound, UpdateCompleted | UpdateFailed):
                self.answers.append((turn.number, outbound))
            elif isinstance(outbound, ENDINGS):
                self.closed = True
        if turn.number == 1:  # it may be the prefix of another run, which holds answers to what it asks for
            self.began_with_prefix = turn.applied_through > 0
            self._resolve_prefix()
        due = [
            request for request in due if request.seq in self.unresolved
        ]  # an event may cancel what one before asked
        backlog = self._backlog
        while backlog and self._dispatched - self._settled < MAX_OUTSTANDING:
            activity = backlog.pop(next(iter(backlog)))
            self._dispatched += 1
            due.append(activity)
        self._since.update((event.seq, turn.number) for event in due)
        return due

    @property
    def origin(self) -> int | None:
        """Number of the run in which this history began; None before the first turn."""
        return None if self.started is None else self.started.origin

    def outstanding(self, *, since: int = 1) -> list[Request]:
        """What turn `since` or a later one dispatched and may not have arrived: what redelivery dispatches again."""
        return [
            event
            for seq, event in self.unresolved.items()
            if self._since.get(seq, 0) >= since and seq not in self.begun
        ]

    def cancelled_since(self, turn: int) -> list[int]:
        """What turn `turn` and later ones cancelled, by seq."""
        found: list[int] = []
        for seq, number in reversed(self.cancelled.items()):
            if number < turn:
                break
            found.append(seq)
        return found[::-1]

    def answered_since(self, turn: int) -> list[UpdateCompleted | UpdateFailed]:
        """How the updates ended that turn `turn` and later ones answered."""
        found: list[UpdateCompleted | UpdateFailed] = []
        for number, event in reversed(self.answers):
            if number < turn:
                break
            found.append(event)
        return found[::-1]

    def turn_of(self, event: InboundEvent) -> int:
        """The number of the turn that recorded an event which is no news; one not taken yet if none did."""
        match event:
            case ChildStarted():
                return self.begun.get(event.seq, self.turn + 1)
            case SignalReceived() | UpdateAccepted() | ExecutionSuspended() | ExecutionResumed():
                return self.requests.get(event.request_id, self.turn + 1)
            case ExecutionStarted() | ExecutionCancelRequested() | ExecutionTerminated() | ExecutionReset():
                return 1
            case _:
                return self.recorded.get(event.seq, self.turn + 1)

    def accepts(self, event: InboundEvent) -> bool:
        """Whether `event` is news: False for duplicates and for answers that nobody waits for."""
        match event:
            case ActivityCompleted() | ActivityFailed():
                return isinstance(self.unresolved.get(event.seq), ActivityScheduled)
            case TimerFired():
                return isinstance(self.unresolved.get(event.seq), TimerStarted)
            case SignalReceived() | UpdateAccepted():
                return not self.closed and event.request_id not in self.requests
            case ChildStarted():
                return isinstance(self.unresolved.get(event.seq), ChildScheduled) and event.seq not in self.begun
            case ChildCompleted() | ChildFailed():
                return isinstance(self.unresolved.get(event.seq), ChildScheduled)
            case SignalDelivered() | SignalFailed():
                return isinstance(self.unresolved.get(event.seq), SignalSent)
            case ExecutionStarted():
                return self.started is None
            case ExecutionCancelRequested():
                return not self.closed and not self.cancel_requested
            case ExecutionSuspended() | ExecutionResumed():  # a resume may come in the batch of its suspend
                return not self.closed and event.request_id not in self.requests
            case ExecutionTerminated():
                return not self.closed
            case ExecutionReset():
                return True

    def _receive(self, event: InboundEvent) -> None:
        self.received += 1
        self.last_ms = event.at_ms
        self.waiting.append(event)
        match event:
            case ActivityCompleted() | ActivityFailed() | TimerFired() | SignalDelivered() | SignalFailed():
                self.recorded[event.seq] = self.turn
                self._resolve(event.seq)
            case SignalReceived() | UpdateAccepted():
                self.requests[event.request_id] = self.turn
            case ChildStarted():
                self.begun[event.seq] = self.turn
            case ChildCompleted() | ChildFailed():
                self.recorded[event.seq] = self.turn
                self._resolve(event.seq)
                self.children.pop(event.seq, None)
            case ExecutionStarted():
                self.started = event
                self.started_ms = event.at_ms
                self.pinned = event.pinned
                self.requests.update(dict.fromkeys(event.seen, 1))
            case ExecutionCancelRequested():
                self.cancel_requested = True
            case ExecutionSuspended() | ExecutionResumed():
                self.requests[event.request_id] = self.turn
                self.suspended = isinstance(event, ExecutionSuspended)
            case ExecutionTerminated() | ExecutionReset():
                self.closed = True

    def _resolve(self, seq: int) -> bool:
        """Close what was asked for; whether it had been dispatched."""
        dispatched = self._since.pop(seq, None) is not None
        asked = self.unresolved.pop(seq, None)
        self._backlog.pop(seq, None)
        if dispatched and isinstance(asked, ActivityScheduled):
            self._settled += 1
        return dispatched

    def _resolve_prefix(self) -> None:
        """Forget the requests of a first turn that it answers itself."""
        for seq in self.recorded:
            self._resolve(seq)
            self.children.pop(seq, None)
        self.begun.clear()  # those were children of the other run


def replay(execution: Execution, turns: Sequence[Turn]) -> None:
    """Apply the applied events of `turns` to a fresh `execution`, comparing what it asks for with what it asked.

    Raises:
        NonDeterminismError: it asks for something else.
        Stall: its code cannot take a recorded turn for another reason.
    """
    inbound: list[InboundEvent] = []
    facts = _learn_facts(execution, turns)
    execution.replaying = True
    try:
        with no_collection(), execution.running():
            for turn in turns:
                inbound.extend(turn.inbound)
                if execution.applied < turn.applied_through:
                    recorded = turn.outbound
                    if facts:
                        recorded = tuple(event for event in recorded if not isinstance(event, FACTS))
                    _replay_turn(execution, turn, recorded, inbound)
    finally:
        execution.replaying = False


def _learn_facts(execution: Execution, turns: Sequence[Turn]) -> bool:
    """Tell an execution what it is not to decide again; whether there is any of that."""
    found = False
    for turn in turns:
        for event in turn.outbound:
            if isinstance(event, FACTS):
                found = True
                if isinstance(event, PatchRecorded):
                    execution.patches.add(event.patch_id)
                elif isinstance(event, SignalRejected):
                    execution.rejected.add(event.request_id)
    return found


def _replay_turn(
    execution: Execution, turn: Turn, recorded: Sequence[OutboundEvent], inbound: Sequence[InboundEvent]
) -> None:
    expected = iter((*recorded, None))
    next_ = next(expected)
    while execution.applied < turn.applied_through:
        event = inbound[execution.applied]
        commands = execution.apply(event)
        cause = execution.applied
        for command in commands:
            if next_ is None or next_.cause != cause or not agrees(command, next_):
                break
            next_ = next(expected)
        else:
            if next_ is None or next_.cause != cause:
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
