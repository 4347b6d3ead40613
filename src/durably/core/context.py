"""`Context`, what an orchestrator is given: its identity, its clock, its randomness, its logger."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, overload

from durably.core.channels import Query, Signal, Update, check_channel
from durably.core.commands import CallSite
from durably.core.flow import map_items, race
from durably.core.keys import checked_text
from durably.core.saga import Saga
from durably.core.sites import caller_at, frame_at

if TYPE_CHECKING:
    from durably.core.execution import Execution

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
_LONG = 10_000  # events: a cold start then takes about a tenth of a second to replay
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionInfo:
    """Facts about the execution that the orchestrator may read.

    Attributes:
        execution_id: chosen by whoever started it.
        run: 1, and one more after each continue-as-new.
        orchestrator: persisted name.
        started_at: when this run began.
        history_length: inbound events applied so far.
        cancel_requested: whether somebody asked for its cancellation.
        continue_as_new_suggested: whether the history is so long that going on in a new run would be wise.
    """

    execution_id: str
    run: int
    orchestrator: str
    started_at: datetime
    history_length: int
    cancel_requested: bool
    continue_as_new_suggested: bool


class Context:
    """The orchestrator's view of its execution. Everything it answers is the same at every replay."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._random: random.Random | None = None
        self._logger: ReplaySafeLogger | None = None

    @property
    def execution_id(self) -> str:
        """The id under which the execution was started."""
        return self._execution.run.execution_id

    def now(self) -> datetime:
        """The time of the event being applied, in UTC. It never goes back."""
        return instant(self._execution.now_ms)

    @property
    def random(self) -> random.Random:
        """A random generator of this run's own, seeded at the start.

        Raises:
            ReadOnlyError: in the handler of a query or a validator.
        """
        self._execution.may_change("ctx.random")
        if self._random is None:
            self._random = random.Random(self._execution.seed)
        return self._random

    def uuid4(self) -> uuid.UUID:
        """A random UUID that is the same at every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while history is replayed; records carry the execution's id."""
        if self._logger is None:
            self._logger = ReplaySafeLogger(self._execution)
        return self._logger

    @property
    def info(self) -> ExecutionInfo:
        """Identity and size of the execution."""
        execution = self._execution
        return ExecutionInfo(
            execution_id=execution.run.execution_id,
            run=execution.run.run,
            orchestrator=execution.program.name,
            started_at=instant(execution.started_ms),
            history_length=execution.applied,
            cancel_requested=execution.cancel_requested,
            continue_as_new_suggested=execution.applied >= _LONG,
        )

    # --- signals, queries, updates -------------------------------------------------------------------------

    def receive(self, signal: Signal[T], /) -> Coroutine[Any, Any, T]:
        """The oldest signal that nobody has received yet, as soon as there is one. Several may wait; the first gets it.

        A signal whose payload does not fit the type is recorded as rejected, and nobody gets it.
        """
        check_channel(Signal, signal)
        return self._execution.receive(signal)

    def signals(self, signal: Signal[T], /) -> Signals[T]:
        """All signals of a name, one after the other: `async for approval in ctx.signals(APPROVED)`."""
        return Signals(self, signal)

    def signal(self, execution_id: str, signal: Signal[T], payload: T, /) -> Coroutine[Any, Any, None]:
        """Send a signal to another execution; done when it is stored there or on its way.

        Raises:
            SignalError: there is no open execution of that id.
        """
        check_channel(Signal, signal)
        checked_text(execution_id, "An execution id")
        frame = frame_at(1)
        return self._execution.others.signal(execution_id, signal, payload, CallSite(frame.f_code, frame.f_lineno))

    def on_query(self, query: Query[R], answer: Callable[[], R], /) -> None:
        """Answer a query with `answer()`, a plain function that reads and changes nothing."""
        check_channel(Query, query)
        self._execution.handlers.on_query(query, answer)

    @overload
    def on_update(
        self,
        update: Update[A, R],
        handle: Callable[[A], Awaitable[R]],
        /,
        *,
        validate: Callable[[A], object] | None = None,
    ) -> None: ...
    @overload
    def on_update(
        self, update: Update[A, R], handle: Callable[[A], R], /, *, validate: Callable[[A], object] | None = None
    ) -> None: ...
    def on_update(
        self,
        update: Update[A, R],
        handle: Callable[[A], Any],
        /,
        *,
        validate: Callable[[A], object] | None = None,
    ) -> None:
        """Handle an update with `handle(argument)`, which may wait; what it returns is the reply.

        Args:
            update: which.
            handle: called for each update that `validate` lets pass.
            validate: raises to reject the update, which then leaves nothing in the history. It changes nothing.
        """
        check_channel(Update, update)
        self._execution.handlers.on_update(update, handle, validate)

    def set_status(self, status: object, /) -> None:
        """Show how far the execution is, to everybody who lists or describes it; any JSON value, kept small."""
        self._execution.set_status(status)

    # --- steps that belong together ---------------------------------------------------------------------------

    def saga(self, *, parallel: bool = False) -> Saga:
        """`async with ctx.saga() as saga:` undoes, last step first, what a body did that does not reach its end.

        What made the body end goes on afterwards, a cancellation too.

        Args:
            parallel: run all compensations at once.

        Raises:
            SagaCompensationError: on leaving the block: compensations failed. The others ran.
        """
        return Saga(parallel=parallel)

    @overload
    def map(
        self, fn: Callable[[A], Awaitable[R]], items: Iterable[A], /, *, concurrency: int | None = None
    ) -> Coroutine[Any, Any, list[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[A], Awaitable[R]],
        items: Iterable[A],
        /,
        *,
        concurrency: int | None = None,
        tolerated_failures: int | float,
    ) -> Coroutine[Any, Any, list[R | Exception]]: ...
    def map(
        self,
        fn: Callable[[A], Awaitable[R]],
        items: Iterable[A],
        /,
        *,
        concurrency: int | None = None,
        tolerated_failures: int | float = 0,
    ) -> Coroutine[Any, Any, Any]:
        """What `fn(item)` returns for each item, in the order of the items.

        Args:
            fn: an activity, an orchestrator (run as a child), or any async function of one argument.
            items: any number of them.
            concurrency: how many run at a time; all at once by default.
            tolerated_failures: how many items may fail, as a number (an `int`) or a fraction (a `float`). Their errors
                then stand in the results. One more cancels what still runs.

        Raises:
            Exception: what `fn` raised, where no failure is tolerated.
            ExceptionGroup: of all failures, where too many were.
            ValueError: `concurrency` or `tolerated_failures` makes no sense.
        """
        return map_items(fn, items, concurrency, tolerated_failures, caller_at(frame_at(1)))

    @overload
    def race(self, first: Awaitable[T], second: Awaitable[T2], /) -> Coroutine[Any, Any, T | T2]: ...
    @overload
    def race(
        self, first: Awaitable[T], second: Awaitable[T2], third: Awaitable[T3], /
    ) -> Coroutine[Any, Any, T | T2 | T3]: ...
    @overload
    def race(self, *contenders: Awaitable[T]) -> Coroutine[Any, Any, T]: ...
    def race(self, *contenders: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
        """What the first to finish returns or raises; the others are cancelled, and waited for.

        Of several that finish at once the leftmost wins. What losers return or raise is dropped. Give tasks to learn
        which one won: `task.done() and not task.cancelled()`.

        Raises:
            ValueError: there is no contender.
        """
        return race(contenders)

    # --- versions and runs -----------------------------------------------------------------------------------

    def patched(self, patch_id: str, /) -> bool:
        """Whether to take the new side of a change: True unless this run passed here before the change was deployed."""
        return self._execution.patched(checked_text(patch_id, "A patch's id"))

    def deprecate_patch(self, patch_id: str, /) -> None:
        """Say that no run is left that needs the old side of a patch. Remove it once none holds the patch."""

    def continue_as_new(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, NoReturn]:
        """Go on in a new run, with these arguments and an empty history. Awaited, it does not return.

        Signals that nobody received and updates that are not answered go along; activities and children that are
        still open do not.

        Raises:
            TypeError: the arguments do not fit the orchestrator's signature.
            PayloadError: an argument does not fit its annotation.
        """
        return self._execution.continue_as_new(args, kwargs)

    def call(self, name: str, /, *, returns: type[R], **arguments: Any) -> Coroutine[Any, Any, R]:
        """Call an activity of another code base by its persisted name.

        Args:
            name: the activity's persisted name.
            returns: type of its result.
            arguments: its arguments by parameter name; plain JSON values.
        """
        checked_text(name, "An activity's name")
        frame = frame_at(1)
        return self._execution.call_by_name(name, arguments, returns, CallSite(frame.f_code, frame.f_lineno))


class Signals(Generic[T]):
    """All signals of a name, as an asynchronous iterator that never ends."""

    def __init__(self, ctx: Context, signal: Signal[T]) -> None:
        self._ctx = ctx
        self._signal = signal

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await self._ctx.receive(self._signal)


class ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to "durably.orchestrator.NAME", not while replaying."""

    def __init__(self, execution: Execution) -> None:
        super().__init__(logging.getLogger(f"durably.orchestrator.{execution.program.name}"), {})
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:
        """False while history is replayed."""
        return not self._execution.replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add `execution_id` and `run` to the record."""
        run = self._execution.run
        kwargs["extra"] = {"execution_id": run.execution_id, "run": run.run, **(kwargs.get("extra") or {})}
        return msg, kwargs


def instant(at_ms: int) -> datetime:
    """The aware datetime of milliseconds since the epoch."""
    return _EPOCH + timedelta(milliseconds=at_ms)
