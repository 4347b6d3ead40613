"""`@orchestrator`: a plain `async def` that survives the process it runs in."""

from __future__ import annotations

import copy
import functools
import inspect
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # the other one raises outside a loop
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, cast, overload

from durably.api.names import check_aliases, check_execution_id, persisted_name
from durably.core.commands import CallSite
from durably.core.context import Context
from durably.core.errors import DefinitionError
from durably.core.execution import Execution, Program
from durably.core.loop import OrchestratorLoop
from durably.core.options import ChildOptions
from durably.core.others import ChildHandle, PreparedChild
from durably.core.payloads import ArgumentsShape, PayloadCodec
from durably.core.sites import frame_at

P = ParamSpec("P")
R = TypeVar("R")

IdReuse: TypeAlias = Literal["reject", "allow_if_closed", "use_existing"]
ParentClose: TypeAlias = Literal["terminate", "cancel", "abandon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How an execution is started.

    Attributes:
        id_reuse: what if the id is taken: "reject" always raises; "allow_if_closed" starts another life once the
            last one has ended; "use_existing" returns a handle of the one that is there, open or closed.
        request_id: the same start, repeated under the same request id, finds its own execution, until another request
            takes the id over (docs/adr/0011).
        pinned: only the code version that is deployed at the start takes its turns; under any other it stalls.
        execution_id: of a child; by default made of its parent's id, run and the child's number.
        parent_close: what becomes of a child when its parent's run ends first.
    """

    id_reuse: IdReuse = "reject"
    request_id: str | None = None
    pinned: bool = False
    execution_id: str | None = None
    parent_close: ParentClose = "terminate"


class Orchestrator(Generic[P, R]):
    """A declared orchestrator. Start it with `client.start(execution_id, orchestrator, ...)`.

    Inside another orchestrator, call it: `await ship(order)` starts a child execution and waits for its result;
    `handle = await ship.start(order)` waits only until it exists.
    """

    def __init__(self, fn: Callable[..., Any], *, name: str, aliases: tuple[str, ...]) -> None:
        self._fn = fn
        self.name = name
        self.aliases = aliases
        self.start_options = StartOptions()
        self.triggers: list[Any] = []  # those of `durably.on`
        functools.update_wrapper(cast("Callable[..., Any]", self), fn, updated=())

    def __repr__(self) -> str:
        return f"<orchestrator {self.name}>"

    @property
    def fn(self) -> Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]:
        """The function itself, for unit tests."""
        return self._fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """A coroutine of a child execution's result. Cancelling it cancels the child.

        Raises:
            DefinitionError: not called inside an orchestrator.
            ChildError: awaited, the child could not be started, failed, was cancelled or terminated.
        """
        execution, prepared, text = self._as_child(args, kwargs)
        frame = frame_at(1)
        return execution.others.call(prepared, text, CallSite(frame.f_code, frame.f_lineno))

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, ChildHandle[R]]:
        """A coroutine of a handle of a child execution, as soon as the child exists.

        Raises:
            DefinitionError: not called inside an orchestrator.
            ChildError: awaited, the child could not be started.
        """
        execution, prepared, text = self._as_child(args, kwargs)
        frame = frame_at(1)
        return execution.others.start(prepared, text, CallSite(frame.f_code, frame.f_lineno))

    def _as_child(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Execution, PreparedChild, str]:
        loop = _get_running_loop()
        if not isinstance(loop, OrchestratorLoop):
            raise DefinitionError(
                f"{self.name} is an orchestrator: outside another one, start it with "
                f"client.start(execution_id, {self.name}, ...)."
            )
        execution = cast(Execution, loop.owner)
        arguments = self.arguments_shape(execution.codec)
        start = self.start_options
        close, reuse = start.parent_close, start.id_reuse
        options = ChildOptions(
            parent_close=None if close == "terminate" else close,
            id_reuse="allow_if_closed" if reuse == "allow_if_closed" else None,
        )
        prepared = PreparedChild(
            self.name,
            arguments.same,
            execution.codec.result(self._fn).decode,
            start.execution_id,
            None if options == ChildOptions() else options,
        )
        return execution, prepared, arguments.encode(args, kwargs)

    def options(
        self,
        *,
        id_reuse: IdReuse | None = None,
        request_id: str | None = None,
        pinned: bool | None = None,
        execution_id: str | None = None,
        parent_close: ParentClose | None = None,
    ) -> Self:
        """The same orchestrator with other start options; those not given stay as they are.

        Raises:
            InvalidIdError: `execution_id` cannot be one.
        """
        other = copy.copy(self)
        given = {
            "id_reuse": id_reuse,
            "request_id": request_id,
            "pinned": pinned,
            "execution_id": None if execution_id is None else check_execution_id(execution_id),
            "parent_close": parent_close,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        other.start_options = replace(self.start_options, **changes)
        return other

    def arguments_shape(self, codec: PayloadCodec) -> ArgumentsShape:
        """The shape of its parameters after the context."""
        return codec.arguments(self._fn, skip=1)

    def program(self, codec: PayloadCodec) -> Program:
        """The orchestrator, prepared to run."""
        arguments = self.arguments_shape(codec)
        fn = self._fn

        def start(ctx: Context, text: str) -> Coroutine[Any, Any, Any]:
            args, kwargs = arguments.decode(text)
            return cast("Coroutine[Any, Any, Any]", fn(ctx, *args, **kwargs))

        return Program(name=self.name, start=start, arguments=arguments, result=codec.result(fn))


class OrchestratorDecorator(Protocol):
    """What `orchestrator(name=..., ...)` returns."""

    def __call__(self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Orchestrator[P, R]: ...


@overload
def orchestrator(fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Orchestrator[P, R]: ...
@overload
def orchestrator(*, name: str | None = None, aliases: Sequence[str] = ()) -> OrchestratorDecorator: ...
def orchestrator(
    fn: Callable[..., Any] | None = None, /, *, name: str | None = None, aliases: Sequence[str] = ()
) -> Any:
    """Make an `async def` an orchestrator. Its first parameter is the `Context`.

    Args:
        fn: the function. It must be deterministic: time, randomness and I/O come from `ctx` and activities.
        name: persisted name; the function's own by default.
        aliases: former names that running executions may still carry.

    Raises:
        DefinitionError: `fn` is not an `async def`, or takes no context.
    """

    def declare(function: Callable[..., Any]) -> Orchestrator[Any, Any]:
        if not inspect.iscoroutinefunction(function):
            yields = " without `yield`" if inspect.isasyncgenfunction(function) else ""
            raise DefinitionError(
                f"orchestrator {getattr(function, '__qualname__', function)!r} must be an `async def`{yields}."
            )
        chosen = persisted_name(function, name)
        if not _takes_context(function):
            raise DefinitionError(
                f"orchestrator {chosen} must take the Context as its first parameter: "
                f"async def {chosen}(ctx: Context, ...)."
            )
        return Orchestrator(function, name=chosen, aliases=check_aliases(aliases))

    return declare if fn is None else declare(fn)


def _takes_context(function: Callable[..., Any]) -> bool:
    """Whether there is a first parameter, and no class as its annotation that the context is no instance of."""
    for first in inspect.signature(function).parameters.values():
        kind = first.annotation
        return kind is first.empty or not isinstance(kind, type) or issubclass(Context, kind)
    return False
