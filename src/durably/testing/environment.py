"""`Environment`: executions in memory and in virtual time, run by the real runtime when the test says so."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from durably.adapters.memory import MemoryBackend
from durably.adapters.tokens import HmacTokenSigner
from durably.adapters.watchdog import Watchdog
from durably.api.activity import Activity, CallbackActivity
from durably.api.orchestrator import Orchestrator
from durably.client import Client
from durably.codec.exports import encode_export
from durably.codec.payloads import PydanticCodec
from durably.core.channels import Query, Signal, Update
from durably.core.context import instant
from durably.core.errors import ConfigurationError, ExecutionFailedError
from durably.core.history import HistoryEntry
from durably.handles import Handle
from durably.runtime.runtime import Limits, Runtime, unlimited
from durably.runtime.start import existing_record
from durably.testing.callbacks import OpenCallback
from durably.testing.definitions import OpenRegistry
from durably.testing.driver import Driver
from durably.testing.errors import MockError, WaitsForEverError
from durably.testing.guard import refuse_io
from durably.testing.mocks import ActivityMock, CallbackMock, Mock, mock_of
from durably.testing.replaying import stored_history
from durably.testing.safety import check_elsewhere, check_here
from durably.testing.virtual import SeededEntropy, VirtualClient, VirtualClock, milliseconds
from durably.testing.waiting import what_is_waited_for

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

START = datetime(2030, 1, 1, tzinfo=UTC)
_MOCKABLE: tuple[type[Any], ...] = (Activity, Orchestrator, str)


class Environment:
    """Runs orchestrators in a test: synchronously, in memory, in virtual time, the same at every run.

    Time stands still while something is due and jumps to the next thing that will be: timers, retries, deadlines and
    time-outs take none. Use it as a context manager, or call `close`.

    Args:
        orchestrators: what may be started by name; one that the test starts need not be given.
        activities: what runs; those that an orchestrator's modules name need not be given.
        run_activities: let activities without a mock run for real; if not, asking for one ends the test.
        replay_every_turn: replay the execution from scratch after each of its turns and compare. The cost grows with
            the square of the history's length; turn it off where that hurts.
        start_at: the virtual time at which the environment begins.
        seed: of everything random: `ctx.random`, ids, back-off.
        hash_seeds: under which `assert_replay_safe` replays in other processes; none for an orchestrator that is
            defined inside a function, where no other process can import it.
        max_turns: after so many turns an execution is taken to run for ever.
        turn_seconds: of real time that a turn may take; None for any, as under a debugger.
        limits: the runtime's.
    """

    def __init__(
        self,
        *,
        orchestrators: Iterable[Orchestrator[..., Any]] = (),
        activities: Iterable[Activity[..., Any]] = (),
        run_activities: bool = True,
        replay_every_turn: bool = True,
        start_at: datetime = START,
        seed: int = 0,
        hash_seeds: Sequence[int] = (1, 2),
        max_turns: int = 2_000,
        turn_seconds: float | None = 10.0,
        limits: Limits | None = None,
    ) -> None:
        refuse_io()
        self._registry = OpenRegistry(orchestrators, activities, codec=PydanticCodec("always"))
        self._clock = VirtualClock(start_at)
        entropy = SeededEntropy(seed)
        self._watchdog = None if turn_seconds is None else Watchdog(turn_seconds)
        self._runtime = Runtime(
            backend=MemoryBackend(self._clock),
            registry=self._registry,
            clock=self._clock,
            entropy=entropy,
            signer=HmacTokenSigner("testing", {"testing": bytes(32)}, "testing"),
            callback_url="http://durably.invalid",
            limits=limits or Limits(),
            budget=unlimited if self._watchdog is None else self._watchdog.budget,
        )
        self._mocks: dict[str, Mock[..., Any]] = {}
        self._driver = Driver(
            self._runtime,
            self._mocks,
            run_activities=run_activities,
            replay_every_turn=replay_every_turn,
            max_turns=max_turns,
        )
        self._hash_seeds = hash_seeds
        self._later: list[tuple[int, int, Callable[[], object]]] = []
        self._order = count()
        self._working = self._calling = self._closed = False
        self._started = 0
        self._last_id = ""
        self.client: Client = VirtualClient(self._runtime, wait=self._wait)
        if self._watchdog is not None:
            self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs."""
        if self._closed:
            return
        self._closed = True
        self._driver.close()
        if self._watchdog is not None:
            self._watchdog.stop()

    # --- executions -------------------------------------------------------------------------------------------------

    def run(self, orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start an execution and return its result, whatever virtual time that takes.

        Raises:
            ExecutionFailedError: it failed.
            WaitsForEverError: it waits for something that nothing brings.
            NonDeterminismError: it asked for something else when it was replayed.
        """
        return self.start(self._new_id(), orchestrator, *args, **kwargs).result()

    def start(
        self, execution_id: str, orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Handle[R]:
        """Start an execution and let it go as far as it comes without time passing. Raises as `run`, and as a start."""
        self._registry.admit(orchestrator)
        handle = self.client.start(execution_id, orchestrator, *args, **kwargs)
        self._last_id = execution_id
        self.settle()
        return handle

    @property
    def latest(self) -> Handle[Any]:
        """The execution started last."""
        if not self._last_id:
            raise ConfigurationError("Nothing was started yet: there is no latest execution. env.start comes first.")
        return self.client.handle(self._last_id)

    def history(self, execution_id: str | None = None) -> list[HistoryEntry]:
        """What happened in the current run of an execution, by default of the one started last."""
        return self.client.history(self._last_id if execution_id is None else execution_id)

    def export(self, execution_id: str | None = None) -> str:
        """The history as a document that `replay` reads, by default of the execution started last."""
        backend = self._runtime.backend
        record = existing_record(backend, self._last_id if execution_id is None else execution_id)
        return encode_export(stored_history(backend, record))

    def assert_replay_safe(self, orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an execution that is thrown out of memory after each event and replayed; return its result.

        Its history, and that of its children, is then replayed again with garbage collected at every event and memory
        laid out otherwise, and in other processes under other hash seeds.

        Raises:
            NonDeterminismError: a replay asked for something else; and all that `run` raises.
        """
        before = {record.gen for record in self.client.list()}
        with self._driver.restarting():
            handle = self.start(self._new_id(), orchestrator, *args, **kwargs)
            with suppress(ExecutionFailedError):  # a failure is to be replayed as well
                handle.result()
        records = [record for record in self.client.list() if record.gen not in before]
        histories = [stored_history(self._runtime.backend, record) for record in reversed(records)]
        for history in histories:
            check_here(history, self._registry)
        found = {history.orchestrator: self._registry.orchestrator(history.orchestrator) for history in histories}
        theirs = {name: definition for name, definition in found.items() if definition is not None}
        check_elsewhere([one for one in histories if one.orchestrator in theirs], theirs, self._hash_seeds)
        return handle.result()

    # --- signals, queries, updates ----------------------------------------------------------------------------------

    def signal(self, execution: Handle[Any] | str, signal: Signal[T], payload: T, /) -> None:
        """Send a signal, and let what it makes due happen. Raises as `Client.signal`."""
        self.client.signal(_id_of(execution), signal, payload)
        self.settle()

    def signal_with_start(
        self,
        execution_id: str,
        signal: Signal[T],
        payload: T,
        orchestrator: Orchestrator[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Handle[R]:
        """Signal an execution, started with the signal if there is none. Raises as `Client.signal_with_start`."""
        self._registry.admit(orchestrator)
        handle = self.client.signal_with_start(execution_id, signal, payload, orchestrator, *args, **kwargs)
        self._last_id = execution_id
        self.settle()
        return handle

    def query(self, execution: Handle[Any] | str, query: Query[R], /) -> R:
        """Ask an execution, open or closed. Raises as `Client.query`."""
        return self.client.query(_id_of(execution), query)

    def update(self, execution: Handle[Any] | str, update: Update[A, R], payload: A, /) -> R:
        """Send a request, and wait for the reply whatever virtual time that takes. Raises as `Client.update`."""
        return self.client.update(_id_of(execution), update, payload)

    def cancel(self, execution: Handle[Any] | str, reason: str = "cancelled by the test") -> None:
        """Ask an execution to cancel itself, and let its clean-up begin. Raises as `Client.cancel`."""
        self.client.cancel(_id_of(execution), reason)
        self.settle()

    # --- activities and children ------------------------------------------------------------------------------------

    @overload
    def mock(self, activity: CallbackActivity[P, R], /) -> CallbackMock[P, R]: ...
    @overload
    def mock(self, activity: Activity[P, R], /) -> Mock[P, R]: ...
    @overload
    def mock(self, activity: Activity[P, R], replacement: Callable[P, Coroutine[Any, Any, R]], /) -> Mock[P, R]: ...
    @overload
    def mock(self, activity: Activity[P, R], replacement: Callable[P, R], /) -> Mock[P, R]: ...
    @overload
    def mock(self, child: Orchestrator[P, R], /) -> Mock[P, R]: ...
    @overload
    def mock(self, child: Orchestrator[P, R], replacement: Callable[P, Coroutine[Any, Any, R]], /) -> Mock[P, R]: ...
    @overload
    def mock(self, child: Orchestrator[P, R], replacement: Callable[P, R], /) -> Mock[P, R]: ...
    @overload
    def mock(self, activity: str, /) -> Mock[..., Any]: ...
    def mock(self, mocked: Any, replacement: Callable[..., Any] | None = None, /) -> Any:
        """Let a mock answer instead of an activity, of one of another code base by its name, or of a child.

        It is the same mock each time. A child that is mocked is not started, and signals to it go nowhere; an
        execution that the test itself starts runs for real.

        Args:
            mocked: which activity, its name, or the orchestrator of the child.
            replacement: answers, as `Mock.side_effect` has it.
        """
        if not isinstance(mocked, _MOCKABLE):
            raise MockError(f"{mocked!r} is no activity and no orchestrator. Mock what the orchestrator calls.")
        name: str = mocked if isinstance(mocked, str) else mocked.name
        mock = self._mocks.get(name)
        if mock is None:
            mock = self._mocks[name] = mock_of(mocked, self._registry.codec, lambda: self.now)
            if isinstance(mock, ActivityMock):
                self._registry.stand_in((name, *mock.runnable.activity.aliases), mock.runnable)
        if replacement is not None:
            mock.side_effect(replacement)
        return mock

    @property
    def callbacks(self) -> list[OpenCallback[Any]]:
        """The callbacks that are open now, oldest first."""
        return self._driver.open_callbacks(self.settle)

    def callback(self, activity: CallbackActivity[P, R], /, execution_id: str | None = None) -> OpenCallback[R]:
        """The oldest open callback of an activity, to be completed by hand.

        Raises:
            WaitsForEverError: none is open.
        """
        found = self.callbacks
        for callback in found:
            if callback.activity == activity.name and execution_id in (None, callback.execution_id):
                return callback
        others = ", ".join(f"{one.activity} of {one.execution_id}" for one in found) or "none"
        raise WaitsForEverError(
            f"No callback of {activity.name} is open at {self.now}; open are: {others}. Has the execution come that "
            "far (env.start, env.advance), and does the mock leave its callback open?"
        )

    # --- time -------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return instant(self._clock.now_ms())

    def after(self, delay: timedelta, do: Callable[[], object], /) -> None:
        """Call `do` once so much virtual time has passed."""
        heapq.heappush(self._later, (self._clock.now_ms() + milliseconds(delay), next(self._order), do))

    def advance(self, duration: timedelta, /) -> None:
        """Let virtual time pass, and everything happen that is due meanwhile."""
        self._refuse_inside("time was advanced")
        until_ms = self._clock.now_ms() + milliseconds(duration)
        self.settle()
        while (due_ms := self._next_due_ms()) is not None and due_ms <= until_ms:
            self._clock.move_to(due_ms)
            self.settle()
        self._clock.move_to(until_ms)

    def settle(self) -> None:
        """Do everything that is due now, and what that makes due, without time passing."""
        while not self._working and (self._call_what_is_due() or self._work()):
            pass  # where an activity asked for it, whoever runs the activity sees to it

    # --- inside -----------------------------------------------------------------------------------------------------

    def _wait(self, until_ms: float) -> bool:
        """Somebody waits for something: do what is due, or move on to what will be; False where the time is over."""
        before = self._driver.turns
        self.settle()
        if self._driver.turns > before:
            return True
        now_ms, due_ms = self._clock.now_ms(), self._next_due_ms()
        if now_ms >= until_ms:
            return False
        self._refuse_inside("a result was waited for")
        if due_ms is None and until_ms == math.inf:
            raise WaitsForEverError(what_is_waited_for(self.client, self._runtime))
        self._clock.move_to(round(min(until_ms, math.inf if due_ms is None else due_ms)))
        self.settle()
        return True

    def _work(self) -> bool:
        self._working = True
        try:
            return self._driver.work(self.after)
        finally:
            self._working = False

    def _new_id(self) -> str:
        self._started += 1
        return f"execution-{self._started}"

    def _refuse_inside(self, what: str) -> None:
        if self._working or self._calling:
            raise WaitsForEverError(
                f"In an activity, or in a function given to env.after, {what}; the environment cannot go on until that "
                "has returned. Do it in the test itself."
            )

    def _call_what_is_due(self) -> bool:
        if not self._later or self._later[0][0] > self._clock.now_ms():
            return False
        call = heapq.heappop(self._later)[2]
        outside, self._calling = self._calling, True
        try:
            call()
        finally:
            self._calling = outside
        return True

    def _next_due_ms(self) -> int | None:
        """When something happens next, None for never."""
        due = [due_ms for due_ms in (self._driver.next_due_ms(),) if due_ms is not None]
        return min([*due, *(at_ms for at_ms, _, _ in self._later[:1])], default=None)


def _id_of(execution: Handle[Any] | str) -> str:
    return execution if isinstance(execution, str) else execution.execution_id
