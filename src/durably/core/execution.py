"""One run of an orchestrator, live in memory: events go in one at a time, commands come out.

Knows nothing of turns, storage or messages, and does not compare with history: that is `replay`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Generator, Hashable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, assert_never

from durably.core.channels import Signal
from durably.core.commands import (
    CallSite,
    CancelActivity,
    CancelExecution,
    Command,
    CompleteExecution,
    CompleteUpdate,
    ContinueAsNew,
    FailExecution,
    FailUpdate,
    RecordPatch,
    RejectSignal,
    ScheduleActivity,
    ScheduleChild,
    SendSignal,
    SetStatus,
    StartTimer,
)
from durably.core.context import Context
from durably.core.errors import (
    ActivityError,
    NotDurableError,
    PayloadError,
    ReadOnlyError,
    Stall,
    TurnLimitError,
    UndecodableError,
)
from durably.core.events import (
    ActivityCompleted,
    ActivityFailed,
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    ExecutionCancelRequested,
    ExecutionReset,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    InboundEvent,
    SignalDelivered,
    SignalFailed,
    SignalReceived,
    TimerFired,
    UpdateAccepted,
)
from durably.core.failures import failure_of, members_of
from durably.core.handlers import Handlers
from durably.core.inbox import Inbox
from durably.core.keys import RunKey
from durably.core.loop import OrchestratorLoop, Timer
from durably.core.options import ActivityOptions
from durably.core.others import Others
from durably.core.payloads import ArgumentsShape, PayloadCodec, Shape, checked_status
from durably.core.retry import LONGEST
from durably.core.sites import outside_call_site

_DROPPED = (ScheduleActivity, StartTimer, ScheduleChild, SendSignal)  # nobody would get the answer
MAX_STEPS = 1_000_000
MAX_TIMER_MS = LONGEST // timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An orchestrator, prepared to run.

    Attributes:
        name: persisted name.
        start: makes its coroutine from the context and the encoded input.
        arguments: shape of its input.
        result: shape of what it returns.
    """

    name: str
    start: Callable[[Context, str], Coroutine[Any, Any, Any]]
    arguments: ArgumentsShape
    result: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedActivity:
    """An activity, prepared to be asked for.

    Attributes:
        name: persisted name.
        same: whether two encoded inputs mean the same.
        decode: turns an encoded result into a value.
        options: None for the defaults.
    """

    name: str
    same: Callable[[str, str], bool]
    decode: Callable[[str], Any]
    options: ActivityOptions | None


class Execution:
    """The live state of one run.

    Attributes:
        now_ms: stamp of the event being applied.
        applied: how many inbound events have been applied.
        replaying: True while the events being applied come from history.
        closed: True once the orchestrator has returned, raised, or been terminated.
        patches: ids of the patches that the run's history holds.
        rejected: ids of the signals that the run's history holds as rejected.
        others: the executions that this one started or signals.
        handlers: of queries and updates.
    """

    def __init__(self, run: RunKey, program: Program, codec: PayloadCodec, *, max_steps: int = MAX_STEPS) -> None:
        self.run = run
        self.program = program
        self.codec = codec
        self.prepared: dict[object, Any] = {}
        self.replaying = False
        self.closed = False
        self.applied = 0
        self.started_ms = 0
        self.seed = 0
        self.origin = 1
        # abstract to type checkers only: `refuse_the_rest` gives it the methods that are left
        self._loop = OrchestratorLoop(self, max_steps=max_steps)  # type: ignore[abstract]
        self._seq = 0
        self._commands: dict[Hashable, Command] = {}
        self._activities: dict[int, tuple[PreparedActivity, asyncio.Future[str]]] = {}
        self._timers: dict[int, Timer] = {}
        self._root: asyncio.Task[Any] | None = None
        self._stalled: Stall | None = None
        self._abandoned = False
        self._reading = False
        self._cancel_reason: str | None = None
        self._continuation: str | None = None
        self._patched: dict[str, bool] = {}
        self.patches: set[str] = set()
        self.rejected: set[str] = set()
        self.status: str | None = None
        self.inbox = Inbox(self._loop)
        self.others = Others(self)
        self.handlers = Handlers(self)

    @property
    def now_ms(self) -> int:
        """Stamp of the event being applied, milliseconds since the epoch."""
        return self._loop.now_ms

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for the orchestrator's cancellation."""
        return self._cancel_reason is not None

    @property
    def continued(self) -> bool:
        """Whether the run has ended and the execution goes on in another."""
        return self.closed and self._continuation is not None

    # --- events in, commands out -----------------------------------------------------------------------

    def apply(self, event: InboundEvent) -> list[Command]:
        """Apply one event, run until nothing can go on, and return what was asked for, in order.

        Raises:
            Stall: the code cannot take this turn; the execution must be closed and discarded.
        """
        loop = self._loop
        loop.now_ms = event.at_ms
        self.applied += 1
        if self.closed:
            return []
        self._deliver(event)
        try:
            loop.run_until_idle()
        except Stall as stall:
            self._stalled = self._stalled or stall
        if self._stalled is not None:
            raise self._stalled
        root = self._root
        if loop.error is not None or self._continuation is not None or (root is not None and root.done()):
            self._finish()
        commands = self._commands
        if not commands:
            return []
        self._commands = {}
        return list(commands.values())

    def running(self) -> AbstractContextManager[None]:
        """Around several `apply`: the loop is set up once for all of them."""
        return self._loop.running()

    def waits_for(self, seq: int) -> bool:
        """Whether an activity's result or a timer would still reach anybody."""
        return seq in self._activities or seq in self._timers

    def close(self) -> None:
        """Abandon the run: close every task and generator now, refusing whatever their clean-up asks for."""
        self._abandoned = True
        self.replaying = True  # silences the logger
        self._loop.close_everything()
        self._activities.clear()
        self._timers.clear()
        self._commands.clear()
        self.others.clear()
        root, self._root = self._root, None
        if root is not None:
            root._log_traceback = False

    # --- what orchestrators ask for ------------------------------------------------------------------------

    async def invoke(self, activity: PreparedActivity, input_: str, site: CallSite) -> Any:
        """Schedule an activity and wait for its result. `input_` was encoded at the call."""
        seq = self.next_seq()
        future: asyncio.Future[str] = asyncio.Future(loop=self._loop)
        self._commands[seq] = ScheduleActivity(seq, activity.name, input_, activity.options, activity.same, site)
        self._activities[seq] = activity, future
        try:
            text = await future
        except asyncio.CancelledError:
            if self._activities.pop(seq, None) is not None:
                self.withdraw(seq, CancelActivity(seq))
            raise
        try:
            return activity.decode(text)
        except PayloadError as error:
            self.stall(
                UndecodableError(
                    f"The recorded result of {activity.name} (activity {seq}) no longer fits its annotation: {error} "
                    "The annotation was changed while this execution was running. Let it accept the recorded "
                    "value again (give new fields defaults); the execution then resumes by itself."
                )
            )

    def call_by_name(
        self, name: str, arguments: dict[str, Any], returns: Any, site: CallSite
    ) -> Coroutine[Any, Any, Any]:
        """`Context.call`."""
        shape = self.codec.value(dict[str, Any])
        activity = PreparedActivity(name=name, same=shape.same, decode=self.codec.value(returns).decode, options=None)
        return self.invoke(activity, shape.encode(arguments), site)

    def start_timer(self, timer: Timer, delay: float) -> None:
        """Make a delayed callback of the loop a durable timer."""
        if math.isnan(delay):
            raise ValueError("A timer's delay must be a number, got NaN.")
        delay_ms = round(min(max(delay, 0.0), MAX_TIMER_MS) * 1000)
        if delay_ms > MAX_TIMER_MS:
            raise NotDurableError(
                f"A timer of {delay:.0f} s is longer than 100 years. Wait in shorter sleeps, or for an event."
            )
        seq = timer.seq = self.next_seq()
        self._timers[seq] = timer
        self._commands[seq] = StartTimer(seq, delay_ms, outside_call_site())

    def timer_cancelled(self, timer: Timer) -> None:
        """Forget a timer. Cancelling one is never history; one not yet asked for is never asked for."""
        self._timers.pop(timer.seq, None)
        self._commands.pop(timer.seq, None)

    async def receive(self, signal: Signal[Any]) -> Any:
        """The next signal of a name that can be read; what cannot be is rejected, and hurts nobody."""
        shape = self.codec.value(signal.payload_type)
        while True:
            received = await self.inbox.receive(signal.name)
            if received.request_id in self.rejected:
                continue
            try:
                return shape.decode(received.payload)
            except PayloadError as error:
                if self.replaying:
                    self.stall(
                        UndecodableError(
                            f"The recorded signal {signal.name} ({received.request_id}) no longer fits its type: "
                            f"{error} Let the type accept it again; the execution then resumes by itself."
                        )
                    )
                self.rejected.add(received.request_id)
                self.ask(("reject", received.request_id), RejectSignal(received.request_id, str(error)))

    def answer_update(self, answer: CompleteUpdate | FailUpdate) -> None:
        """Say how an update ended."""
        self.inbox.answered(answer.request_id)
        if not self._abandoned:
            self.ask(("update", answer.request_id), answer)

    def patched(self, patch_id: str) -> bool:
        """Whether this run takes the new side of a patch."""
        self.may_change("ctx.patched()")
        known = self._patched.get(patch_id)
        if known is None:
            known = self._patched[patch_id] = patch_id in self.patches or not self.replaying
            if known and patch_id not in self.patches:
                self.ask(("patch", patch_id), RecordPatch(patch_id))
        return known

    def set_status(self, value: Any) -> None:
        """Show `value` as the execution's status."""
        self.may_change("ctx.set_status()")
        text = checked_status(self.codec.value(Any).encode(value))
        if text != self.status:
            self.status = text
            if not self.replaying:
                self._commands.pop("status", None)
                self.ask("status", SetStatus(text))

    async def continue_as_new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        """End this run and go on in the next one. Nothing of this run is run any more."""
        text = self.program.arguments.encode(args, kwargs)
        self.may_change("ctx.continue_as_new()")
        self._continuation = text
        self._loop.stop_soon()
        await self.future()
        raise AssertionError("a run that has been continued went on")

    @contextmanager
    def reading(self) -> Generator[None]:
        """While this lasts, whatever would change the execution raises `ReadOnlyError`."""
        self._reading = True
        try:
            yield
        finally:
            self._reading = False

    # --- asking for something ------------------------------------------------------------------------------

    def next_seq(self) -> int:
        """The number of the next request."""
        if self._reading:
            self.may_change("this")
        if self._abandoned:
            raise Stall("The execution is being abandoned; its clean-up code cannot ask for anything.")
        self._seq += 1
        return self._seq

    def ask(self, key: Hashable, command: Command) -> None:
        """Ask for something. `key` names it as long as it is not recorded."""
        self._commands[key] = command

    def withdraw(self, seq: int, cancel: Command) -> None:
        """Never ask for what is not recorded yet; ask for its end if it is."""
        if self._abandoned or self._commands.pop(seq, None) is not None:
            return
        self._commands[-seq] = cancel

    def future(self) -> asyncio.Future[Any]:
        """A future of the run's loop."""
        return asyncio.Future(loop=self._loop)

    def may_change(self, what: str) -> None:
        """Refuse `what` while a query is answered or an update validated.

        Raises:
            ReadOnlyError: one is.
        """
        if self._reading:
            raise ReadOnlyError(
                f"The handler of a query and the validator of an update cannot change the execution: {what} is "
                "refused. Do it in the orchestrator, or in the handler of an update."
            )

    def stall(self, reason: Stall) -> NoReturn:
        """Give the turn up for `reason`, also where user code swallows what this raises."""
        self._stalled = self._stalled or reason
        raise reason

    # --- inside ----------------------------------------------------------------------------------------------

    def _deliver(self, event: InboundEvent) -> None:
        """Hand an event to whoever waits for it."""
        match event:
            case ActivityCompleted():
                waiting = self._activities.pop(event.seq, None)
                if waiting is not None:
                    waiting[1].set_result(event.result)
            case TimerFired():
                timer = self._timers.pop(event.seq, None)
                if timer is not None:
                    self._loop.run_soon(timer)
            case ActivityFailed():
                waiting = self._activities.pop(event.seq, None)
                if waiting is not None:
                    activity, future = waiting
                    future.set_exception(ActivityError(activity.name, event.failure, event.attempt))
            case SignalReceived():
                self.inbox.put(event)
            case UpdateAccepted():
                self.inbox.accept(event)
                self._loop.create_side_task(self.handlers.handle(event), like=self._root)
            case ChildStarted() | ChildCompleted() | ChildFailed() | SignalDelivered() | SignalFailed():
                self.others.deliver(event)
            case ExecutionStarted():
                self.started_ms = event.at_ms
                self.seed = event.seed
                self.origin = event.origin
                self.inbox.know(event.seen, event.at_ms)
                self._start(event.input)
            case ExecutionCancelRequested():
                self._cancel_reason = event.reason
                if self._root is not None:
                    self._root.cancel(event.reason)
            case ExecutionTerminated() | ExecutionReset():
                self.close()
                self.closed = True
            case ExecutionSuspended() | ExecutionResumed():
                pass  # the runtime's business
            case _:
                assert_never(event)

    def _start(self, input_: str) -> None:
        try:
            coroutine = self.program.start(Context(self), input_)
        except PayloadError as error:
            raise UndecodableError(
                f"The recorded input of {self.program.name} does not fit its signature: {error} "
                "Let the signature accept it again; the execution then resumes by itself."
            ) from error
        self._root = self._loop.create_root(coroutine, seed=self.seed)

    def _finish(self) -> None:
        """The root task is done: say how the execution ends, and end what it left behind."""
        root = self._root
        assert root is not None
        outcome: Command
        if self._loop.error is not None:
            outcome = self._outcome(root, self._loop.error)
        elif self._continuation is not None:
            inbox = self.inbox
            outcome = ContinueAsNew(
                self._continuation, inbox.carried, inbox.seen(self.now_ms), self.program.arguments.same
            )
        elif root.cancelled():
            outcome = self._cancelled()
        else:
            error = root.exception() or self._loop.unhandled_error()
            outcome = self._outcome(root, error)
        for seq in list(self._activities):
            self.withdraw(seq, CancelActivity(seq))
        if self._continuation is None:
            self.handlers.give_up()
        kept = {key: command for key, command in self._commands.items() if not isinstance(command, _DROPPED)}
        self.close()
        self.closed = True
        self._commands = {**kept, "outcome": outcome}

    def _cancelled(self) -> Command:
        if self._cancel_reason is not None:
            return CancelExecution(self._cancel_reason)
        return FailExecution(
            failure_of(asyncio.CancelledError("the orchestrator was cancelled, but nobody asked for it"))
        )

    def _outcome(self, root: asyncio.Task[Any], error: BaseException | None) -> Command:
        if isinstance(error, Stall):
            raise error
        exhausted = None if error is None else _exhaustion(error)
        if exhausted is not None:
            raise TurnLimitError(
                f"The orchestrator exhausted {'the stack' if isinstance(exhausted, RecursionError) else 'memory'}: "
                f"{exhausted}. Correct it; the execution then resumes by itself."
            ) from error
        if error is not None:
            return FailExecution(failure_of(error))
        try:
            return CompleteExecution(self.program.result.encode(root.result()), self.program.result.same)
        except PayloadError as refused:
            return FailExecution(failure_of(refused))


def _exhaustion(error: BaseException) -> RecursionError | MemoryError | None:
    """The error, or the one inside a group, that says that the process rather than the program failed."""
    if isinstance(error, RecursionError | MemoryError):
        return error
    return next((found for found in map(_exhaustion, members_of(error)) if found is not None), None)
