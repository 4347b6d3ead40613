"""The client: start executions, wait for their results, look at them, end them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypeVar, cast

from durably.api.orchestrator import Orchestrator, StartOptions
from durably.api.registry import Registry
from durably.core.context import instant
from durably.core.errors import ExecutionFailedError, ResultTimeoutError
from durably.core.events import TimerStarted
from durably.core.failures import Failure
from durably.core.history import HistoryEntry, read_history
from durably.core.replay import RunState
from durably.ports.backend import Backend
from durably.ports.clock import Clock, Entropy
from durably.ports.messages import Delivery
from durably.ports.records import Record, Status
from durably.runtime.start import existing_record, start_execution, terminate_execution

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingActivity:
    """An activity that an execution waits for.

    Attributes:
        attempt: the attempt that is queued, running or awaiting its callback, 1-based.
        last_failure: of the attempt before, None for the first.
        state: "scheduled", "retrying", "claimed", "open" (a callback is awaited).
    """

    seq: int
    name: str
    call_site: str
    attempt: int
    state: str
    last_failure: Failure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingTimer:
    """A timer that has not fired."""

    seq: int
    due_at: datetime
    call_site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An execution as an operator sees it.

    Attributes:
        failure: why it failed, was terminated or is stalled.
        history_length: inbound events stored.
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


class Handle(Generic[R]):
    """A started execution."""

    def __init__(self, client: Client, execution_id: str, gen: str | None) -> None:
        self._client = client
        self.execution_id = execution_id
        self.gen = gen

    def __repr__(self) -> str:
        return f"<execution {self.execution_id}>"

    def result(self, timeout: float | None = None) -> R:
        """Wait for the execution to close and return what its orchestrator returned.

        Args:
            timeout: seconds to wait at most; for ever by default.

        Raises:
            ExecutionFailedError: it failed or was terminated.
            ResultTimeoutError: it is still open. It goes on; ask again.
            ExecutionNotFoundError: there is no such execution.
        """
        return cast(R, self._client.wait(self.execution_id, timeout))

    def describe(self) -> Description:
        """The execution as it stands."""
        return self._client.describe(self.execution_id)

    def terminate(self, reason: str = "terminated through its handle") -> None:
        """End the execution without asking its code."""
        self._client.terminate(self.execution_id, reason)


class Client:
    """Reaches the executions of one backend.

    Args:
        backend: where they are stored.
        registry: the orchestrators that can be started, and the shapes of their inputs and results.
        clock: stamps starts.
        entropy: draws generations and seeds.
        handed_over: takes the wake of a start at once where the runtime is in the same process.
        pause: waits up to so many seconds for something to close.
    """

    def __init__(
        self,
        backend: Backend,
        registry: Registry,
        clock: Clock,
        entropy: Entropy,
        *,
        handed_over: Callable[[tuple[Delivery, ...]], None] | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._backend = backend
        self._registry = registry
        self._clock = clock
        self._entropy = entropy
        self._handed_over = handed_over
        self._pause = pause

    def start(
        self, execution_id: str, orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handle[R]:
        """Start an execution. When this returns, the start is stored.

        Raises:
            InvalidIdError: the id has illegal characters.
            ExecutionExistsError: the id is taken; see `Orchestrator.options(id_reuse=...)`.
            UnknownOrchestratorError: the registry does not hold the orchestrator.
            TypeError: the arguments do not fit its signature.
            PayloadError: an argument does not fit its annotation.
        """
        text = self._registry.input_shape(orchestrator.name).encode(args, kwargs)
        return Handle(
            self, execution_id, self._start(execution_id, orchestrator.name, text, orchestrator.start_options)
        )

    def start_by_name(
        self, execution_id: str, orchestrator: str, input_: str, options: StartOptions | None = None
    ) -> Handle[Any]:
        """Start an execution from a name and its input as JSON text, an object by parameter name.

        Raises:
            PayloadError: the input does not fit the orchestrator's signature; and all that `start` raises.
        """
        shape = self._registry.input_shape(orchestrator)
        input_ = shape.encode(*shape.decode(input_))  # as `start` would store it, limits included
        return Handle(self, execution_id, self._start(execution_id, orchestrator, input_, options or StartOptions()))

    def handle(self, execution_id: str, orchestrator: Orchestrator[P, R] | None = None) -> Handle[R]:
        """A handle of an execution started elsewhere; give its orchestrator for a typed result."""
        del orchestrator
        return Handle(self, execution_id, None)

    def describe(self, execution_id: str) -> Description:
        """An execution as it stands: status, pending activities with attempt and last failure, timers.

        Raises:
            ExecutionNotFoundError: there is none.
        """
        record = existing_record(self._backend, execution_id)
        state = RunState()
        for turn in self._backend.load_turns(record.key):
            state.add(turn)
        items = {item.key.seq: item for item in self._backend.read_items(record.key)} if not record.closed else {}
        activities: list[PendingActivity] = []
        timers: list[PendingTimer] = []
        for event in () if record.closed else state.unresolved.values():
            if isinstance(event, TimerStarted):
                timers.append(PendingTimer(seq=event.seq, due_at=instant(event.due_ms), call_site=event.call_site))
            else:
                item = items.get(event.seq)
                activities.append(
                    PendingActivity(
                        seq=event.seq,
                        name=event.name,
                        call_site=event.call_site,
                        attempt=1 if item is None else item.attempt,
                        state="scheduled" if item is None else item.state,
                        last_failure=None if item is None else item.last_failure,
                    )
                )
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
        )

    def history(self, execution_id: str) -> list[HistoryEntry]:
        """The events of the current run, each followed by what it caused.

        Raises:
            ExecutionNotFoundError: there is no such execution.
        """
        record = existing_record(self._backend, execution_id)
        return list(read_history(self._backend.load_turns(record.key)))

    def list(self, *, status: Status | None = None, orchestrator: str | None = None) -> Iterator[Record]:
        """Records of all executions, newest start first, read page by page."""
        cursor: str | None = None
        while True:
            page = self._backend.list_records(status=status, orchestrator=orchestrator, cursor=cursor)
            yield from page.records
            cursor = page.cursor
            if cursor is None:
                return

    def terminate(self, execution_id: str, reason: str = "terminated by an operator") -> None:
        """End an execution at once, without asking its code. When this returns, its end is stored or on its way.

        Raises:
            ExecutionNotFoundError: there is none.
            ExecutionClosedError: it has ended already.
        """
        terminate_execution(self._backend, execution_id, reason)

    def _start(self, execution_id: str, orchestrator: str, input_: str, options: StartOptions) -> str:
        record, kept = start_execution(
            self._backend,
            self._clock,
            self._entropy,
            execution_id=execution_id,
            orchestrator=orchestrator,
            input_=input_,
            options=options,
            code_version=self._registry.code_version,
            keep=self._handed_over is not None,
        )
        if self._handed_over is not None and kept:
            self._handed_over(kept)
        return record.gen

    def wait(self, execution_id: str, timeout: float | None = None) -> Any:
        """Wait for an execution to close and return its result; `Handle.result` with a type.

        Raises:
            ExecutionFailedError: it failed or was terminated.
            ResultTimeoutError: it is still open after `timeout` seconds.
            ExecutionNotFoundError: there is none.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE_S
        while True:
            record = existing_record(self._backend, execution_id)
            if record.closed:
                return self._result_of(record)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                state = f" It is stalled: {record.failure}" if record.status == "stalled" else ""
                raise ResultTimeoutError(f"execution {execution_id} did not close within {timeout} s.{state}")
            self._pause(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)

    def _result_of(self, record: Record) -> Any:
        if record.status != "completed" or record.result is None:
            assert record.failure is not None
            raise ExecutionFailedError(record.execution_id, record.failure)
        program = self._registry.program(record.orchestrator)
        shape = program.result if program is not None else self._registry.codec.value(Any)
        return shape.decode(record.result)
