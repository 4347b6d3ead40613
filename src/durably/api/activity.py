"""`@activity` and `@callback_activity`: ordinary functions whose calls are durable inside an orchestrator."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage]  # the other one raises outside a loop
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Protocol, Self, TypeVar, cast, get_args, overload

from durably.api.attempt import Callback
from durably.api.names import check_aliases, check_name, persisted_name
from durably.core.commands import CallSite
from durably.core.errors import DefinitionError
from durably.core.execution import Execution, PreparedActivity
from durably.core.loop import OrchestratorLoop
from durably.core.options import DEFAULT_OPTIONS, ActivityMode, ActivityOptions
from durably.core.payloads import ArgumentsShape, PayloadCodec, Shape
from durably.core.retry import LONGEST, RetryPolicy
from durably.core.sites import frame_at

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_logger = logging.getLogger("durably.activity")
_told: set[str] = set()
_ONCE = RetryPolicy(max_attempts=1)


class _Prepared(NamedTuple):
    encode: Callable[[tuple[Any, ...], dict[str, Any]], str]
    activity: PreparedActivity


class Activity(Generic[P, R]):
    """A function whose calls inside an orchestrator are scheduled, retried and recorded.

    Calling it returns a coroutine; await it, or give it to `asyncio.create_task`, `gather`, a `TaskGroup`.
    Arguments are encoded at the call. Outside an orchestrator it just runs.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str,
        aliases: tuple[str, ...],
        settings: ActivityOptions,
    ) -> None:
        self._fn = fn
        self.name = name
        self.aliases = aliases
        self.settings = settings
        self._implementations: list[Callable[..., Any]] = []
        self._key: object = object()  # what executions keep its preparation under
        functools.update_wrapper(cast("Callable[..., Any]", self), fn, updated=())

    def __repr__(self) -> str:
        return f"<activity {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """A coroutine of the activity's result."""
        loop = _get_running_loop()
        if isinstance(loop, OrchestratorLoop):
            owner: Any = loop.owner
            execution: Execution = owner
            prepared: _Prepared | None = execution.prepared.get(self._key)
            if prepared is None:
                prepared = execution.prepared[self._key] = self._prepare(execution.codec)
            text = prepared.encode(args, kwargs)
            frame = frame_at(1)
            call = execution.invoke(prepared.activity, text, CallSite(frame.f_code, frame.f_lineno))
        else:
            call = self._run_here(args, kwargs)
        call.__qualname__ = self.name  # type: ignore[attr-defined]  # what Python names if nobody awaits it
        return call

    def options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        schedule_to_start: timedelta | None = None,
        schedule_to_close: timedelta | None = None,
        heartbeat_timeout: timedelta | None = None,
        at_most_once: bool | None = None,
        local: bool | None = None,
    ) -> Self:
        """The same activity with other options; those not given stay as they are."""
        other = copy.copy(self)
        old = self.settings
        mode = old.mode if local is None else _mode(local, old.mode)
        other.settings = _settings(
            self.name,
            retry=old.retry if retry is None else retry,
            timeout=_duration(old.start_to_close_ms) if timeout is None else timeout,
            schedule_to_start=_duration(old.schedule_to_start_ms) if schedule_to_start is None else schedule_to_start,
            schedule_to_close=_duration(old.schedule_to_close_ms) if schedule_to_close is None else schedule_to_close,
            heartbeat_timeout=_duration(old.heartbeat_ms) if heartbeat_timeout is None else heartbeat_timeout,
            at_most_once=bool(old.at_most_once) if at_most_once is None else at_most_once,
            mode=mode,
        )
        other._key = (self._fn, other.settings)
        return other

    @overload
    def implement(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def implement(self, fn: Callable[P, R], /) -> Callable[P, R]: ...
    def implement(self, fn: Callable[P, Any], /) -> Callable[P, Any]:
        """Decorator: `fn` is what runs for this activity; the decorated function was only its contract.

        Raises:
            DefinitionError: it has an implementation already.
        """
        if self._implementations:
            raise DefinitionError(
                f"activity {self.name} already has the implementation {self._implementations[0].__qualname__}; "
                f"it cannot have {fn.__qualname__} as well. Remove one."
            )
        self._implementations.append(fn)
        return fn

    @property
    def implementation(self) -> Callable[..., Any]:
        """What runs: the implementation given, else the decorated function."""
        return self._implementations[0] if self._implementations else self._fn

    @property
    def implemented(self) -> bool:
        """Whether `implement` was used."""
        return bool(self._implementations)

    def arguments_shape(self, codec: PayloadCodec) -> ArgumentsShape:
        """The shape of its parameters."""
        return codec.arguments(self._fn)

    def result_shape(self, codec: PayloadCodec) -> Shape:
        """The shape of its result."""
        return codec.result(self._fn)

    def _prepare(self, codec: PayloadCodec) -> _Prepared:
        arguments = self.arguments_shape(codec)
        options = None if self.settings == DEFAULT_OPTIONS else self.settings
        return _Prepared(
            arguments.encode,
            PreparedActivity(
                name=self.name, same=arguments.same, decode=self.result_shape(codec).decode, options=options
            ),
        )

    async def _run_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        if self.name not in _told:
            _told.add(self.name)
            _logger.info(
                "activity %s was called outside an orchestrator: it just runs, without retries or history", self.name
            )
        result = self.implementation(*args, **kwargs)
        return cast(R, await result if inspect.isawaitable(result) else result)


class SyncActivity(Activity[P, R]):
    """An activity written as `def`."""

    @property
    def fn(self) -> Callable[P, R]:
        """The function itself, for unit tests."""
        return self._fn


class AsyncActivity(Activity[P, R]):
    """An activity written as `async def`."""

    @property
    def fn(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The function itself, for unit tests."""
        return self._fn


class CallbackActivity(Activity[P, R]):
    """An activity whose function only hands a request over; the result arrives at `Callback.url`."""

    @property
    def fn(self) -> Callable[Concatenate[Callback[R], P], Awaitable[None] | None]:
        """The function itself, for unit tests."""
        return self._fn

    def arguments_shape(self, codec: PayloadCodec) -> ArgumentsShape:
        """The shape of its parameters after the callback."""
        return codec.arguments(self._fn, skip=1)

    def result_shape(self, codec: PayloadCodec) -> Shape:
        """The shape of what the callback brings: T of `Callback[T]`."""
        return codec.value(_callback_type(self._fn))

    async def _run_here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:  # noqa: ARG002  # as the base
        raise DefinitionError(
            f"{self.name} is a callback activity: only inside an orchestrator is there an address to be called back "
            f"at. In a unit test call {self.name}.fn(callback, ...) with a Callback of your own."
        )


class ActivityDecorator(Protocol):
    """What `activity(name=..., ...)` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncActivity[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncActivity[P, R]: ...


class CallbackActivityDecorator(Protocol):
    """What `callback_activity(timeout=..., ...)` returns."""

    def __call__(
        self, fn: Callable[Concatenate[Callback[T], P], Coroutine[Any, Any, None] | None], /
    ) -> CallbackActivity[P, T]: ...


@overload
def activity(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    fn: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncActivity[P, R]: ...
@overload
def activity(fn: Callable[P, R], /) -> SyncActivity[P, R]: ...
@overload
def activity(
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    schedule_to_start: timedelta | None = None,
    schedule_to_close: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    at_most_once: bool = False,
    local: bool = False,
) -> ActivityDecorator: ...
def activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    schedule_to_start: timedelta | None = None,
    schedule_to_close: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
    at_most_once: bool = False,
    local: bool = False,
) -> Any:
    """Make a function an activity.

    Args:
        fn: the function, sync or async. It may do anything; it runs at least once.
        name: persisted name; the function's own by default.
        aliases: former names that running executions may still ask for.
        retry: retry policy; by default 3 attempts, 1 s initial interval, doubled each time, full jitter.
        timeout: start-to-close, how long one attempt may run.
        schedule_to_start: how long an attempt may wait in its queue.
        schedule_to_close: how long all attempts together may take.
        heartbeat_timeout: how long an attempt may go without `heartbeat()` before it counts as timed out.
        at_most_once: claim each attempt before it runs, so that no attempt runs twice.
        local: run beside the turn that schedules it, without a queue.

    Raises:
        DefinitionError: `fn` is a method, or options contradict each other.
    """

    def declare(function: Callable[..., Any]) -> Activity[Any, Any]:
        asynchronous = inspect.iscoroutinefunction(function)
        kind = cast("type[Activity[..., Any]]", AsyncActivity if asynchronous else SyncActivity)
        chosen = persisted_name(function, name)
        return kind(
            function,
            name=chosen,
            aliases=check_aliases(aliases),
            settings=_settings(
                chosen,
                retry=retry,
                timeout=timeout,
                schedule_to_start=schedule_to_start,
                schedule_to_close=schedule_to_close,
                heartbeat_timeout=heartbeat_timeout,
                at_most_once=at_most_once,
                mode="local" if local else None,
            ),
        )

    return declare if fn is None else declare(fn)


@overload
def callback_activity(
    fn: Callable[Concatenate[Callback[T], P], Coroutine[Any, Any, None] | None], /
) -> CallbackActivity[P, T]: ...
@overload
def callback_activity(
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    schedule_to_start: timedelta | None = None,
    schedule_to_close: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
) -> CallbackActivityDecorator: ...
def callback_activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    aliases: Sequence[str] = (),
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = None,
    schedule_to_start: timedelta | None = None,
    schedule_to_close: timedelta | None = None,
    heartbeat_timeout: timedelta | None = None,
) -> Any:
    """Make a function a callback activity: it hands a request over, the result arrives over HTTP.

    Args:
        fn: takes a `Callback[T]` first; returns when the request is handed over. It runs at least once per attempt,
            and a repetition within an attempt gets the same token.
        name: persisted name; the function's own by default.
        aliases: former names that running executions may still ask for.
        retry: retry policy for submissions that fail and deadlines that pass; one attempt by default.
        timeout: the deadline: how long after an attempt began its callback is accepted. By default for ever.
        schedule_to_start: how long an attempt may wait in its queue.
        schedule_to_close: how long all attempts together may take.
        heartbeat_timeout: how long an attempt may go without a POST to `callback.url + "/heartbeat"`.

    Raises:
        DefinitionError: `fn` does not take a `Callback[T]` first.
    """

    def declare(function: Callable[..., Any]) -> Activity[Any, Any]:
        chosen = persisted_name(function, name)
        return CallbackActivity(
            function,
            name=chosen,
            aliases=check_aliases(aliases),
            settings=_settings(
                chosen,
                retry=retry or _ONCE,
                timeout=timeout,
                schedule_to_start=schedule_to_start,
                schedule_to_close=schedule_to_close,
                heartbeat_timeout=heartbeat_timeout,
                at_most_once=False,
                mode="callback",
            ),
        )

    return declare if fn is None else declare(fn)


def _settings(
    name: str,
    *,
    retry: RetryPolicy | None,
    timeout: timedelta | None,
    schedule_to_start: timedelta | None,
    schedule_to_close: timedelta | None,
    heartbeat_timeout: timedelta | None,
    at_most_once: bool,
    mode: ActivityMode | None,
) -> ActivityOptions:
    check_name(name)
    if retry is not None and not isinstance(retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DefinitionError(f"activity {name}: retry must be a RetryPolicy(max_attempts=...), got {retry!r}.")
    if mode == "local" and at_most_once:
        raise DefinitionError(
            f"activity {name}: local=True and at_most_once=True exclude each other, because a local activity runs "
            "again when its turn is taken again. Drop one of them."
        )
    if mode == "callback" and at_most_once:
        raise DefinitionError(f"activity {name}: a callback activity cannot be at_most_once.")
    if mode == "local" and heartbeat_timeout is not None:
        raise DefinitionError(
            f"activity {name}: local=True and heartbeat_timeout exclude each other, because a local activity lasts no "
            "longer than the turn it runs beside. Drop one of them."
        )
    return ActivityOptions(
        retry=retry,
        start_to_close_ms=_milliseconds(name, "timeout", timeout),
        schedule_to_start_ms=_milliseconds(name, "schedule_to_start", schedule_to_start),
        schedule_to_close_ms=_milliseconds(name, "schedule_to_close", schedule_to_close),
        mode=mode,
        at_most_once=True if at_most_once else None,
        heartbeat_ms=_milliseconds(name, "heartbeat_timeout", heartbeat_timeout),
    )


def _mode(local: bool, old: ActivityMode | None) -> ActivityMode | None:
    if old == "callback":
        raise DefinitionError("A callback activity cannot be local.")
    return "local" if local else None


def _milliseconds(name: str, option: str, duration: object) -> int | None:
    if duration is None:
        return None
    if not isinstance(duration, timedelta) or duration <= timedelta(0):
        raise DefinitionError(f"activity {name}: {option} must be a positive timedelta, got {duration!r}.")
    if duration > LONGEST:
        raise DefinitionError(f"activity {name}: {option} is at most {LONGEST.days} days, got {duration}.")
    return max(1, round(duration / timedelta(milliseconds=1)))


def _duration(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


def _callback_type(fn: Callable[..., Any]) -> Any:
    from typing import get_type_hints

    parameters = list(inspect.signature(fn).parameters)
    try:
        hints = get_type_hints(fn, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"callback activity {fn.__qualname__}: {error}. Import the name at module level."
        ) from error
    arguments = get_args(hints.get(parameters[0])) if parameters else ()
    if len(arguments) != 1:
        raise DefinitionError(
            f"callback activity {fn.__qualname__} must take a Callback[T] as its first parameter, where T is what the "
            "callback brings."
        )
    return arguments[0]
