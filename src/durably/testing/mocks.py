"""Mocks: what answers in the place of an activity or a child, and remembers how it was called.

The mock of an activity runs where the activity's function would, and the mock of a child where its code would:
arguments were decoded from JSON, what it returns is encoded, and an error of an activity is retried as its policy says.
So nothing is shared with the orchestrator, and no mutation hidden.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from durably.api.activity import Activity, CallbackActivity, SyncActivity
from durably.api.attempt import Callback, attempt_info
from durably.api.orchestrator import Orchestrator
from durably.api.registry import RunnableActivity
from durably.core.errors import PayloadError
from durably.core.options import DEFAULT_OPTIONS
from durably.core.payloads import ArgumentsShape, PayloadCodec, Shape
from durably.testing.errors import Escape, MockError

P = ParamSpec("P")
R = TypeVar("R")

OPEN = object()  # what the mock of a callback activity answers with when its callback stays open


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attempt, or one child, that a mock answered.

    Attributes:
        arguments: by parameter name, defaults filled in, the callback left out.
        attempt: 1-based; always 1 for a child.
        execution_id: of the execution that asked for the activity; of a child its own.
        at: in virtual time.
    """

    arguments: dict[str, Any]
    attempt: int
    execution_id: str
    at: datetime


class Mock(Generic[P, R]):
    """Answers in the place of an activity or a child. Made by `Environment.mock`.

    Attributes:
        calls: every call so far; of an activity every attempt, retries included.
    """

    def __init__(
        self,
        name: str,
        arguments: ArgumentsShape,
        result: Shape,
        signature: inspect.Signature | None,
        now: Callable[[], datetime],
    ) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.duration = timedelta(0)
        self._arguments = arguments
        self._result = result
        self._signature = signature
        self._now = now
        self._behaviour: Callable[..., Any] = self._unspecified

    def __repr__(self) -> str:
        return f"<mock of {self.name}>"

    # --- what it answers -----------------------------------------------------------------------------------

    def returns(self, value: R, /, *more: R) -> Self:
        """Return `value` at each call; or, where several are given, one a call.

        Raises:
            PayloadError: a value does not fit what the activity returns.
        """
        for each in (value, *more):
            self._result.encode(each)
        if more:
            return self._in_turn((value, *more))
        self._behaviour = lambda *_, **__: value
        return self

    def raises(self, error: BaseException | type[BaseException], /) -> Self:
        """Raise `error` at each call. Of an activity, the retry policy decides what comes of it."""
        self._behaviour = _raising(error)
        return self

    @overload
    def side_effect(self, effect: Callable[P, R], /) -> Self: ...
    @overload
    def side_effect(self, effect: Callable[P, Coroutine[Any, Any, R]], /) -> Self: ...
    @overload
    def side_effect(self, effect: Iterable[R | BaseException | type[BaseException]], /) -> Self: ...
    def side_effect(self, effect: Any, /) -> Self:
        """Call `effect` with the activity's arguments; or return, or raise, one item of `effect` a call.

        An AssertionError of the function is the test's own: it ends the test instead of failing the activity.
        """
        if callable(effect):
            self._behaviour = _escaping(effect)
            return self
        return self._in_turn(tuple(effect))

    def takes(self, duration: timedelta, /) -> Self:
        """Let each attempt take so much virtual time; one that takes longer than its timeout fails at the timeout."""
        self.duration = duration
        return self

    # --- how it was called -----------------------------------------------------------------------------------

    def assert_called_with(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """The last call had these arguments."""
        expected = self._named(args, kwargs)
        assert self.calls, f"{self.name} was not called"
        actual = self.calls[-1].arguments
        assert actual == expected, f"{self.name} was last called with {actual}, not with {expected}"

    def assert_called_once_with(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """There was one call, and it had these arguments."""
        self.assert_called_once()
        self.assert_called_with(*args, **kwargs)

    def assert_called_once(self) -> None:
        """There was one call."""
        calls = [call.arguments for call in self.calls]
        assert len(calls) == 1, f"{self.name} was called {len(calls)} times, not once: {calls}"

    def assert_not_called(self) -> None:
        """There was none."""
        calls = [call.arguments for call in self.calls]
        assert not calls, f"{self.name} was called {len(calls)} times: {calls}"

    # --- inside ------------------------------------------------------------------------------------------------

    def answer(self, args: tuple[Any, ...], kwargs: dict[str, Any], execution_id: str, attempt: int = 1) -> Any:
        """Remember a call, and answer it."""
        arguments = self._named(args, kwargs)
        self.calls.append(Call(arguments=arguments, attempt=attempt, execution_id=execution_id, at=self._now()))
        return self._behaviour(*args, **kwargs)

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name, as they come out of a history."""
        args, kwargs = self._arguments.decode(self._arguments.encode(args, kwargs))
        if self._signature is None:
            return kwargs
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _in_turn(self, items: tuple[Any, ...]) -> Self:
        waiting = list(items)

        def next_item(*_: Any, **__: Any) -> Any:
            if not waiting:
                raise Escape(
                    MockError(
                        f"The mock of {self.name} has {len(items)} answers and was called once more. Give it another "
                        f'one, or let the code ask less often; its calls are in env.mock(...).calls of "{self.name}".'
                    )
                )
            item = waiting.pop(0)
            if isinstance(item, BaseException) or _is_error_type(item):
                raise item
            return item

        self._behaviour = next_item
        return self

    def _unspecified(self, *_: Any, **__: Any) -> Any:
        """None where the activity may return it, as one that is annotated `-> None` does."""
        try:
            self._result.encode(None)
        except PayloadError:
            raise Escape(
                MockError(
                    f"The mock of {self.name} was called and does not know what to return. "
                    f"Say so: env.mock({self.name}).returns(...)."
                )
            ) from None
        return None


class ActivityMock(Mock[P, R]):
    """Answers in the place of an activity.

    Attributes:
        runnable: what runs instead of it.
    """

    def __init__(
        self, activity: Activity[P, R], arguments: ArgumentsShape, result: Shape, now: Callable[[], datetime]
    ) -> None:
        fn = cast(Any, activity).fn
        super().__init__(
            activity.name, arguments, result, _signature(fn, skip=isinstance(activity, CallbackActivity)), now
        )
        stand_in = type(activity)(fn, name=activity.name, aliases=activity.aliases, settings=activity.settings)
        stand_in.implement(cast(Any, self._run))
        self.runnable = RunnableActivity(stand_in, arguments, result)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        attempt = attempt_info()
        return self.answer(args, kwargs, attempt.execution_id, attempt.attempt)


class CallbackMock(ActivityMock[P, R]):
    """Answers in the place of a callback activity: what it returns is what the callback brings, at once.

    Unless told otherwise it leaves the callback open, for `Environment.callback`, or for its deadline.
    """

    def leaves_open(self) -> Self:
        """Leave callbacks open."""
        self._behaviour = self._unspecified
        return self

    def _run(self, _: Callback[R], /, *args: Any, **kwargs: Any) -> Any:
        return super()._run(*args, **kwargs)

    def _unspecified(self, *_: Any, **__: Any) -> Any:
        return OPEN


class ChildMock(Mock[P, R]):
    """Answers in the place of a child execution: none is started, and signals to it go nowhere."""

    def __init__(self, orchestrator: Orchestrator[P, R], codec: PayloadCodec, now: Callable[[], datetime]) -> None:
        fn = cast("Callable[..., Any]", orchestrator.fn)
        super().__init__(
            orchestrator.name,
            orchestrator.arguments_shape(codec),
            codec.result(fn),
            _signature(fn, skip=True),
            now,
        )

    def answer_text(self, execution_id: str, input_: str, finish: Callable[[Awaitable[Any]], Any]) -> str:
        """Remember a call, and answer it with a result as a history holds it."""
        args, kwargs = self._arguments.decode(input_)
        value = self.answer(args, kwargs, execution_id)
        return self._result.encode(finish(value) if inspect.isawaitable(value) else value)


def mock_of(
    mocked: Activity[..., Any] | Orchestrator[..., Any] | str, codec: PayloadCodec, now: Callable[[], datetime]
) -> Mock[..., Any]:
    """A mock of an activity, of one of another code base that `Context.call` asks for by name, or of a child."""
    if isinstance(mocked, Orchestrator):
        return ChildMock[..., Any](mocked, codec, now)
    if isinstance(mocked, str):
        return _mock_by_name(mocked, codec, now)
    kind = CallbackMock[..., Any] if isinstance(mocked, CallbackActivity) else ActivityMock[..., Any]
    return kind(mocked, mocked.arguments_shape(codec), mocked.result_shape(codec), now)


def _mock_by_name(name: str, codec: PayloadCodec, now: Callable[[], datetime]) -> Mock[..., Any]:
    def elsewhere(**arguments: Any) -> Any:
        raise NotImplementedError

    activity = SyncActivity[..., Any](elsewhere, name=name, aliases=(), settings=DEFAULT_OPTIONS)
    mock = ActivityMock[..., Any](activity, _ByName(codec.value(dict[str, Any])), codec.value(Any), now)
    mock._signature = None  # pyright: ignore[reportPrivateUsage]  # nothing is known of it
    return mock


class _ByName:
    """Arguments of which nothing is known but their names. Implements `ArgumentsShape`."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if args:
            raise TypeError(f"An activity that is called by name takes its arguments by name, got {args}.")
        return self._shape.encode(kwargs)

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), json.loads(text)

    def same(self, recorded: str, current: str) -> bool:
        return self._shape.same(recorded, current)


def _is_error_type(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, BaseException)


def _raising(error: BaseException | type[BaseException]) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


def _escaping(effect: Callable[..., Any]) -> Callable[..., Any]:
    """`effect`, whose assertions are the test's."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            answer = effect(*args, **kwargs)
            return finish(answer) if inspect.isawaitable(answer) else answer
        except AssertionError as error:
            raise Escape(error) from None

    async def finish(answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except AssertionError as error:
            raise Escape(error) from None

    return call


def _signature(fn: Callable[..., Any], *, skip: bool) -> inspect.Signature:
    signature = inspect.signature(fn)
    return signature.replace(parameters=list(signature.parameters.values())[1 if skip else 0 :])
