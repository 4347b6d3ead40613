"""`Environment`: executions in memory and in virtual time, run by the real runtime when the test says so."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from durably.adapters.memory import MemoryBackend
from durably.adapters.tokens import HmacTokenSigner
from durably.api.activity import Activity, CallbackActivity
from durably.api.orchestrator import Orchestrator
from durably.client import Client
from durably.codec.exports import encode_export, exported
from durably.codec.payloads import PydanticCodec
from durably.core.context import instant
from durably.core.errors import ExecutionFailedError
from durably.core.history import HistoryEntry
from durably.handles import Handle
from durably.runtime.runtime import Limits, Runtime
from durably.runtime.start import existing_record
from durably.testing.callbacks import OpenCallback
from durably.testing.definitions import OpenRegistry
from durably.testing.driver import Driver
from durably.testing.errors import WaitsForEverError
from durably.testing.mocks import CallbackMock, Mock, mock_by_name
from durably.testing.safety import check_elsewhere, check_here
from durably.testing.virtual import SeededEntropy, VirtualClock, milliseconds
from durably.testing.waiting import what_is_waited_for

P = ParamSpec("P")
R = TypeVar("R")

START = datetime(2030, 1, 1, tzinfo=UTC)


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
        limits: Limits | None = None,
    ) -> None:
        self._registry = OpenRegistry(orchestrators, activities, codec=PydanticCodec("always"))
        self._clock = VirtualClock(start_at)
        entropy = SeededEntropy(seed)
        self._runtime = Runtime(
            backend=MemoryBackend(self._clock),
            registry=self._registry,
            clock=self._clock,
            entropy=entropy,
            signer=HmacTokenSigner("testing", {"testing": bytes(32)}, "testing"),
            callback_url="http://durably.invalid",
            limits=limits or Limits(),
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
        self._busy = False
        self._started = 0
        self._last_id = ""
        self.client = Client(self._runtime.backend, self._registry, self._clock, entropy, pause=lambda _: self._wait())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs."""
        self._driver.close()

    # --- executions ------------------------------------------------------------------------------------------

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

    def history(self, execution_id: str | None = None) -> list[HistoryEntry]:
        """What happened in an execution, by default in the one started last."""
        return self.client.history(self._last_id if execution_id is None else execution_id)

    def export(self, execution_id: str | None = None) -> str:
        """The history as a document that `replay` reads, by default of the execution started last."""
        record = existing_record(self._runtime.backend, self._last_id if execution_id is None else execution_id)
        return encode_export(exported(record, self._runtime.backend.load_turns(record.key)))

    def assert_replay_safe(self, orchestrator: Orchestrator[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run an execution that is thrown out of memory after each event and replayed; return its result.

        Its history is then replayed again with garbage collected at every event and memory laid out otherwise, and in
        other processes under other hash seeds.

        Raises:
            NonDeterminismError: a replay asked for something else; and all that `run` raises.
        """
        with self._driver.restarting():
            handle = self.start(self._new_id(), orchestrator, *args, **kwargs)
            with suppress(ExecutionFailedError):  # a failure is to be replayed as well
                handle.result()
        key = existing_record(self._runtime.backend, self._last_id).key
        turns = self._runtime.backend.load_turns(key)
        check_here(key, orchestrator.name, turns, self._registry)
        check_elsewhere(self.export(), orchestrator, self._hash_seeds)
        return handle.result()

    # --- activities --------------------------------------------------------------------------------------------

    @overload
    def mock(self, activity: CallbackActivity[P, R], /) -> CallbackMock[P, R]: ...
    @overload
    def mock(self, activity: Activity[P, R], /) -> Mock[P, R]: ...
    @overload
    def mock(self, activity: Activity[P, R], replacement: Callable[P, Coroutine[Any, Any, R]], /) -> Mock[P, R]: ...
    @overload
    def mock(self, activity: Activity[P, R], replacement: Callable[P, R], /) -> Mock[P, R]: ...
    @overload
    def mock(self, activity: str, /) -> Mock[..., Any]: ...
    def mock(self, activity: Any, replacement: Callable[..., Any] | None = None, /) -> Any:
        """Let a mock answer instead of an activity, or one of another code base by its name; the same one each time.

        Args:
            activity: which one, or its name.
            replacement: answers, as `Mock.side_effect` has it.
        """
        name: str = activity if isinstance(activity, str) else activity.name
        mock = self._mocks.get(name)
        if mock is None:
            mock = self._mocks[name] = self._new_mock(activity)
            self._registry.stand_in((name, *mock.runnable.activity.aliases), mock.runnable)
        if replacement is not None:
            mock.side_effect(replacement)
        return mock

    def _new_mock(self, activity: Activity[..., Any] | str) -> Mock[..., Any]:
        codec = self._registry.codec
        if isinstance(activity, str):
            return mock_by_name(activity, codec, lambda: self.now)
        if isinstance(activity, CallbackActivity):
            return CallbackMock[..., Any](activity, codec, lambda: self.now)
        return Mock[..., Any](activity, codec, lambda: self.now)

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

    # --- time ----------------------------------------------------------------------------------------------------

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
        if self._busy:
            return  # whoever is at it sees to this too
        self._busy = True
        try:
            while self._call_what_is_due() or self._driver.work(self.after):
                pass
        finally:
            self._busy = False

    # --- inside ----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Somebody waits for a result: do what is due, or move on to what will be."""
        self._refuse_inside("a result was waited for")
        before = self._driver.turns
        self.settle()
        if self._driver.turns > before:
            return
        due_ms = self._next_due_ms()
        if due_ms is None:
            raise WaitsForEverError(what_is_waited_for(self.client))
        self._clock.move_to(due_ms)
        self.settle()

    def _new_id(self) -> str:
        self._started += 1
        return f"execution-{self._started}"

    def _refuse_inside(self, what: str) -> None:
        if self._busy:
            raise WaitsForEverError(
                f"In an activity, or in a function given to env.after, {what}; the environment cannot go on until that "
                "has returned. Do it in the test itself."
            )

    def _call_what_is_due(self) -> bool:
        if not self._later or self._later[0][0] > self._clock.now_ms():
            return False
        heapq.heappop(self._later)[2]()
        return True

    def _next_due_ms(self) -> int | None:
        """When something happens next, None for never."""
        due = [due_ms for due_ms in (self._driver.next_due_ms(),) if due_ms is not None]
        return min([*due, *(at_ms for at_ms, _, _ in self._later[:1])], default=None)
