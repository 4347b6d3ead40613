"""`@orchestrator`: a plain `async def` that survives the process it runs in."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, Self, TypeAlias, TypeVar, cast, overload

from durably.api.names import check_aliases, persisted_name
from durably.core.context import Context
from durably.core.errors import DefinitionError
from durably.core.execution import Program
from durably.core.payloads import ArgumentsShape, PayloadCodec

P = ParamSpec("P")
R = TypeVar("R")

IdReuse: TypeAlias = Literal["reject", "allow_if_closed", "use_existing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How an execution is started.

    Attributes:
        id_reuse: what if the id is taken: "reject" always raises; "allow_if_closed" starts another life once the
            last one has ended; "use_existing" returns a handle of the one that is there, open or closed.
        request_id: the same start, repeated under the same request id, finds its own execution, until another request
            takes the id over (docs/adr/0009).
    """

    id_reuse: IdReuse = "reject"
    request_id: str | None = None


class Orchestrator(Generic[P, R]):
    """A declared orchestrator. Start it with `client.start(execution_id, orchestrator, ...)`."""

    def __init__(self, fn: Callable[..., Any], *, name: str, aliases: tuple[str, ...]) -> None:
        self._fn = fn
        self.name = name
        self.aliases = aliases
        self.start_options = StartOptions()
        functools.update_wrapper(cast("Callable[..., Any]", self), fn, updated=())

    def __repr__(self) -> str:
        return f"<orchestrator {self.name}>"

    @property
    def fn(self) -> Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]:
        """The function itself, for unit tests."""
        return self._fn

    def options(self, *, id_reuse: IdReuse | None = None, request_id: str | None = None) -> Self:
        """The same orchestrator with other start options; those not given stay as they are."""
        other = copy.copy(self)
        old = self.start_options
        other.start_options = replace(
            old,
            id_reuse=old.id_reuse if id_reuse is None else id_reuse,
            request_id=old.request_id if request_id is None else request_id,
        )
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

        return Program(name=self.name, start=start, result=codec.result(fn))


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
            raise DefinitionError(
                f"orchestrator {getattr(function, '__qualname__', function)!r} must be an `async def`."
            )
        chosen = persisted_name(function, name)
        if not inspect.signature(function).parameters:
            raise DefinitionError(f"orchestrator {chosen} must take the Context as its first parameter.")
        return Orchestrator(function, name=chosen, aliases=check_aliases(aliases))

    return declare if fn is None else declare(fn)
