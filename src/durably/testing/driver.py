"""Handles messages as a process in production does: takes turns, runs attempts, keeps deadlines. Checks each turn."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # the other one raises outside a loop
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from durably.adapters.memory import MemoryBackend
from durably.api.attempt import current_attempt
from durably.core import errors
from durably.core.errors import (
    ActivityCancelledError,
    ConfigurationError,
    ContendedError,
    DurablyError,
    Stall,
    TurnTimeoutError,
)
from durably.core.events import ChildCompleted, ChildFailed, ChildStarted, InboundEvent, SignalDelivered
from durably.core.failures import Failure, failure_of
from durably.core.keys import RunKey
from durably.ports.backend import Settlement
from durably.ports.messages import (
    ActivityTask,
    CallbackDeadline,
    Delivery,
    Errand,
    EventMessage,
    HeartbeatCheck,
    Outgoing,
)
from durably.ports.records import Record
from durably.runtime.attempt import (
    Answer,
    Attempt,
    attempt_raised,
    attempt_returned,
    attempt_timed_out,
    open_attempt,
    settle_answer,
)
from durably.runtime.callbacks import callback_deadline, complete_callback
from durably.runtime.errands import run_errand
from durably.runtime.heartbeats import check_heartbeat
from durably.runtime.runtime import Runtime
from durably.runtime.start import existing_record
from durably.runtime.turn import TurnTaker
from durably.testing.callbacks import OpenCallback, callback_of, is_open
from durably.testing.errors import Escape, MockError, WaitsForEverError
from durably.testing.mocks import OPEN, ActivityMock, ChildMock, Mock
from durably.testing.replaying import replay_turns
from durably.testing.virtual import milliseconds

_LEASE_MS = 10**15  # nothing is delivered twice: the process of a test does not die
_NEVER_MS = 10**14
_PUT_OFF_MS = 1_000
_OWN = "durably."  # what schedules are made of
_BATCH = 1_000

Later = Callable[[timedelta, Callable[[], object]], None]
End = Callable[[], Answer | None]


class Driver:
    """The one process of an environment.

    Attributes:
        turns: how many were taken.
    """

    def __init__(
        self,
        runtime: Runtime,
        mocks: Mapping[str, Mock[..., Any]],
        *,
        run_activities: bool,
        replay_every_turn: bool,
        max_turns: int,
    ) -> None:
        self._runtime = runtime
        self._backend = cast(MemoryBackend, runtime.backend)
        self._mocks = mocks
        self._run_activities = run_activities
        self._replay_every_turn = replay_every_turn
        self._max_turns = max_turns
        self._taker = TurnTaker(runtime)
        self._restarts = False
        self._taken: Counter[RunKey] = Counter()
        self._checked: dict[str, RunKey] = {}
        self._callbacks: list[Attempt] = []
        self._mocked: set[str] = set()
        self._runner: asyncio.Runner | None = None

    @property
    def turns(self) -> int:
        """How many were taken in all."""
        return self._taken.total()

    def close(self) -> None:
        """Close live executions, and the loop of asynchronous activities."""
        self._taker.clear()
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    @contextmanager
    def restarting(self) -> Generator[None]:
        """Meanwhile, apply one event a turn, and throw every execution out of memory after it."""
        usual = self._taker
        usual.clear()
        limits = replace(self._runtime.limits, events_per_turn=1)
        self._taker, self._restarts = TurnTaker(replace(self._runtime, limits=limits)), True
        try:
            yield
        finally:
            self._taker.clear()
            self._taker, self._restarts = usual, False

    def next_due_ms(self) -> int | None:
        """When the next message is due, None for never."""
        due_ms = self._backend.next_due_ms()
        return None if due_ms is None or due_ms >= _NEVER_MS else due_ms

    def open_callbacks(self, settle: Callable[[], None]) -> list[OpenCallback[Any]]:
        """Those that would be accepted now, oldest first."""
        self._callbacks = [attempt for attempt in self._callbacks if is_open(self._runtime, attempt)]
        return [callback_of(self._runtime, attempt, settle) for attempt in self._callbacks]

    def work(self, later: Later) -> bool:
        """Handle the messages that are due now; False if there are none.

        Args:
            later: calls a function once so much virtual time has passed.
        """
        due = self._backend.receive(now_ms=self._runtime.clock.now_ms(), limit=_BATCH, visibility_ms=_LEASE_MS)
        groups: dict[str, list[Delivery]] = {}
        for delivery in due:
            if isinstance(delivery.message, ActivityTask):
                self._attempt(delivery, delivery.message, later)
            elif isinstance(delivery.message, CallbackDeadline):
                callback_deadline(self._runtime, delivery)
            elif isinstance(delivery.message, Errand):
                self._run_errand(delivery, delivery.message, later)
            elif isinstance(delivery.message, HeartbeatCheck):
                check_heartbeat(self._runtime, delivery)
            else:
                groups.setdefault(delivery.message.run.execution_id, []).append(delivery)
        if groups:
            self._take(groups)
        return bool(due)

    # --- turns -------------------------------------------------------------------------------------------------

    def _take(self, groups: Mapping[str, list[Delivery]]) -> None:
        taken = self._taker.take(groups)
        if self._restarts:
            self._taker.clear()
        if taken.returned:
            raise DurablyError(f"The turn of {', '.join(taken.returned)} could not be taken; its log says why.")
        for execution_id in groups:
            self._check(execution_id)

    def _check(self, execution_id: str) -> None:
        record = existing_record(self._backend, execution_id)
        if record.status == "stalled" and record.failure is not None:
            raise _stall_of(record.failure)
        self._taken[record.key] += 1
        if self._taken[record.key] > self._max_turns:
            raise WaitsForEverError(
                f"Execution {execution_id} of {record.orchestrator} has taken {self._max_turns} turns and goes on. "
                "Does it poll for something that nothing brings? If it is meant to be that long, say "
                "Environment(max_turns=...)."
            )
        if self._replay_every_turn or self._restarts:
            self._replay(record)

    def _replay(self, record: Record) -> None:
        """Replay what was stored since the last time: the current run, and runs before it that it went on from."""
        checked = self._checked.get(record.execution_id)
        self._checked[record.execution_id] = record.key
        first = checked.run if checked is not None and checked.gen == record.gen else 1
        for number in range(first, record.run + 1):
            run = replace(record.key, run=number)
            with self._runtime.budget() as budget:
                replay_turns(run, record.orchestrator, self._backend.load_turns(run), self._runtime.registry)
            if budget.exceeded:
                raise TurnTimeoutError

    # --- other executions ----------------------------------------------------------------------------------------

    def _run_errand(self, delivery: Delivery, errand: Errand, later: Later) -> None:
        if errand.action == "start":
            mock = self._mocks.get(errand.name)
            if isinstance(mock, ChildMock):
                self._mocked.add(errand.execution_id)
                self._answer_for(mock, delivery, errand, later)
                return
            if self._runtime.registry.program(errand.name) is None:
                raise MockError(
                    f"Execution {errand.run.execution_id} asked for the child {errand.name!r}, which is neither mocked "
                    "nor found in what its orchestrator's module names. Mock it, env.mock(...), or give it: "
                    "Environment(orchestrators=[...])."
                )
        elif errand.action == "signal" and self._is_mocked(errand.execution_id):
            self._settle_errand(delivery, SignalDelivered(seq=errand.key.seq))
            return
        try:
            run_errand(self._runtime, delivery)
        except ContendedError:
            self._backend.release(delivery.receipt, due_ms=self._runtime.clock.now_ms() + _PUT_OFF_MS)

    def _is_mocked(self, execution_id: str) -> bool:
        record = self._backend.read_record(execution_id)
        return execution_id in self._mocked and (record is None or record.closed)

    def _answer_for(self, mock: ChildMock[..., Any], delivery: Delivery, errand: Errand, later: Later) -> None:
        """Tell the parent what the mock of a child answers, without a child."""
        item = self._backend.read_item(errand.key)
        if item is not None and item.state == "cancelled":
            self._settle_errand(delivery)
            return
        announced = errand.options is not None and errand.options.announced
        self._settle_errand(delivery, *((ChildStarted(seq=errand.key.seq),) if announced else ()))
        end = self._end_of(mock, errand)
        if mock.duration:
            later(mock.duration, lambda: self._tell(errand.run, end))
        else:
            self._tell(errand.run, end)

    def _end_of(self, mock: ChildMock[..., Any], errand: Errand) -> InboundEvent:
        try:
            text = mock.answer_text(
                errand.execution_id, errand.payload, lambda value: self._awaited(value, contextvars.copy_context())
            )
        except Escape as escape:
            raise escape.error from escape.error.__cause__
        except (Exception, asyncio.CancelledError) as error:
            return ChildFailed(seq=errand.key.seq, failure=failure_of(error))
        return ChildCompleted(seq=errand.key.seq, result=text)

    def _settle_errand(self, delivery: Delivery, *told: InboundEvent) -> None:
        run = delivery.message.run
        send = tuple(Outgoing(EventMessage(run=run, event=event)) for event in told)
        self._backend.settle(Settlement(send=send, acknowledge=(delivery.receipt,)))

    def _tell(self, run: RunKey, event: InboundEvent) -> None:
        self._backend.send([Outgoing(EventMessage(run=run, event=event))])

    # --- activities ------------------------------------------------------------------------------------------------

    def _attempt(self, delivery: Delivery, task: ActivityTask, later: Later) -> None:
        mock = self._mock_of(task)
        opened = open_attempt(self._runtime, delivery)
        if not isinstance(opened, Attempt):
            self._settle(opened)
            return
        if opened.runnable.is_callback:
            self._callbacks.append(opened)
        end = self._ran(opened, mock)
        if mock is None or not mock.duration:
            self._settle(end())
            return
        takes_ms = milliseconds(mock.duration)
        if opened.timeout_ms is not None and opened.timeout_ms <= takes_ms:
            takes_ms = opened.timeout_ms
            end = lambda: attempt_timed_out(self._runtime, opened)  # noqa: E731
        later(timedelta(milliseconds=takes_ms), lambda: self._settle(end()))

    def _mock_of(self, task: ActivityTask) -> ActivityMock[..., Any] | None:
        """The mock that runs for a task; None where the activity itself does."""
        runnable = self._runtime.registry.activity(task.name)
        for mock in self._mocks.values():
            if isinstance(mock, ActivityMock) and mock.runnable is runnable:
                return mock
        if runnable is None:
            raise MockError(
                f"Execution {task.run.execution_id} asked for the activity {task.name!r}, which is neither mocked nor "
                f"found in what its orchestrator's module names. Mock it, env.mock({task.name!r}), or give it: "
                "Environment(activities=[...])."
            )
        if not self._run_activities and not task.name.startswith(_OWN):
            raise MockError(
                f"Execution {task.run.execution_id} asked for the activity {task.name!r}, which has no mock, and this "
                f"environment runs no activities. Mock it: env.mock({task.name}).returns(...)."
            )
        return None

    def _ran(self, attempt: Attempt, mock: Mock[..., Any] | None) -> End:
        """Run the function; what is to be done about its end."""
        context = contextvars.copy_context()
        context.run(current_attempt.set, attempt.info)
        try:
            value = context.run(attempt.call)
            if inspect.isawaitable(value):
                value = self._awaited(value, context)
        except Escape as escape:
            raise escape.error from escape.error.__cause__
        except (Exception, SystemExit, asyncio.CancelledError, ActivityCancelledError) as error:
            if type(error) is NotImplementedError and not attempt.runnable.activity.implemented and not str(error):
                raise MockError(
                    f"The activity {attempt.task.name!r} is a contract without an implementation here. Mock it, "
                    f"env.mock({attempt.task.name}).returns(...), or import the module that holds its "
                    f"@{attempt.task.name}.implement."
                ) from None
            failure = error
            return lambda: attempt_raised(self._runtime, attempt, failure)
        if mock is not None and attempt.runnable.is_callback and value is not OPEN:
            return lambda: self._called_back(attempt, value)
        return lambda: attempt_returned(self._runtime, attempt, value)

    def _awaited(self, value: Any, context: contextvars.Context) -> Any:
        if _get_running_loop() is not None:
            value.close()
            raise Escape(
                ConfigurationError(
                    "The environment is synchronous, and an asyncio loop is running around it. Make the test a plain "
                    "`def`: the environment runs asynchronous orchestrators and activities by itself."
                )
            )

        async def main() -> Any:
            return await value

        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(main(), context=context)

    def _called_back(self, attempt: Attempt, value: Any) -> Answer | None:
        """A mock answered in the place of whoever would call back."""
        text = attempt.runnable.result.encode(value)
        answer = attempt_returned(self._runtime, attempt, None)
        complete_callback(self._runtime, callback_of(self._runtime, attempt, lambda: None).token, text)
        return answer

    def _settle(self, answer: Answer | None) -> None:
        if answer is not None:
            settle_answer(self._runtime, answer)


def _stall_of(failure: Failure) -> Stall:
    """The error that a record's failure describes."""
    kind = getattr(errors, failure.type.rpartition(".")[2], Stall)
    return cast(Stall, kind(failure.message))
