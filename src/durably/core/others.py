"""What an execution wants of other executions: children, and signals to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from durably.core.channels import Signal
from durably.core.commands import CallSite, CancelChild, ScheduleChild, SendSignal
from durably.core.errors import ChildError, PayloadError, SignalError, UndecodableError
from durably.core.events import ChildCompleted, ChildFailed, ChildStarted, SignalDelivered, SignalFailed
from durably.core.options import ChildOptions
from durably.core.sites import frame_at

if TYPE_CHECKING:
    from durably.core.execution import Execution

R = TypeVar("R")
T = TypeVar("T")

News: TypeAlias = ChildStarted | ChildCompleted | ChildFailed | SignalDelivered | SignalFailed


class PreparedChild(NamedTuple):
    """An orchestrator, prepared to be asked for as a child.

    Attributes:
        name: persisted name.
        same: whether two encoded inputs mean the same.
        decode: turns an encoded result into a value.
        execution_id: None for one made of the parent's id and the child's number.
        options: None for the defaults.
    """

    name: str
    same: Callable[[str, str], bool]
    decode: Callable[[str], Any]
    execution_id: str | None
    options: ChildOptions | None


class Child(NamedTuple):
    """A child that was asked for."""

    seq: int
    execution_id: str
    prepared: PreparedChild
    started: asyncio.Future[None] | None
    ended: asyncio.Future[str]


class _Sent(NamedTuple):
    """A signal that was sent."""

    execution_id: str
    delivered: asyncio.Future[None]


class Others:
    """The children of one run, and the signals that it sends."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._children: dict[int, Child] = {}
        self._signals: dict[int, _Sent] = {}

    async def call(self, prepared: PreparedChild, input_: str, site: CallSite) -> Any:
        """Start a child and wait for its result."""
        return await self.result_of(self._ask(prepared, input_, site, announced=False))

    async def start(self, prepared: PreparedChild, input_: str, site: CallSite) -> ChildHandle[Any]:
        """Start a child and wait until it exists."""
        child = self._ask(prepared, input_, site, announced=True)
        assert child.started is not None
        try:
            await child.started
        except asyncio.CancelledError:
            self.cancel(child)
            raise
        return ChildHandle(self, child)

    async def result_of(self, child: Child) -> Any:
        """Wait for a child's result; cancelling the wait cancels the child."""
        try:
            text = await child.ended
        except asyncio.CancelledError:
            self.cancel(child)
            raise
        try:
            return child.prepared.decode(text)
        except PayloadError as error:
            self._execution.stall(
                UndecodableError(
                    f"The recorded result of the child {child.execution_id} no longer fits the annotation of "
                    f"{child.prepared.name}: {error} Let it accept the recorded value again (give new fields "
                    "defaults); the execution then resumes by itself."
                )
            )

    def cancel(self, child: Child) -> None:
        """Ask a child to cancel itself, once; nobody waits for it any more."""
        if self._children.pop(child.seq, None) is not None:
            self._execution.withdraw(child.seq, CancelChild(child.seq, child.execution_id))
            child.ended.cancel()

    async def signal(self, execution_id: str, signal: Signal[T], payload: T, site: CallSite) -> None:
        """Send a signal, and wait until it is stored or on its way."""
        execution = self._execution
        shape = execution.codec.value(signal.payload_type)
        text = shape.encode(payload)
        seq = execution.next_seq()
        delivered = execution.future()
        self._signals[seq] = _Sent(execution_id, delivered)
        execution.ask(seq, SendSignal(seq, execution_id, signal.name, text, shape.same, site))
        await delivered  # cancelled or not, it is sent once it is asked for

    def deliver(self, event: News) -> None:
        """Hand news of another execution to whoever waits for them."""
        match event:
            case ChildStarted(seq=seq):
                if (child := self._children.get(seq)) is not None:
                    _resolve(child.started, None)
            case ChildCompleted(seq=seq, result=result):
                if (child := self._children.pop(seq, None)) is not None:
                    _resolve(child.started, None)  # the news of its start come later, or never
                    _resolve(child.ended, result)
            case ChildFailed(seq=seq, failure=failure):
                if (child := self._children.pop(seq, None)) is not None:
                    error = ChildError(child.prepared.name, child.execution_id, failure)
                    _fail(child.started, error)
                    _fail(child.ended, error)
            case SignalDelivered(seq=seq):
                if (sent := self._signals.pop(seq, None)) is not None:
                    _resolve(sent.delivered, None)
            case SignalFailed(seq=seq, failure=failure):
                if (sent := self._signals.pop(seq, None)) is not None:
                    _fail(sent.delivered, SignalError(sent.execution_id, failure))

    def clear(self) -> None:
        """Forget everything."""
        self._children.clear()
        self._signals.clear()

    def _ask(self, prepared: PreparedChild, input_: str, site: CallSite, *, announced: bool) -> Child:
        execution = self._execution
        seq = execution.next_seq()
        chosen = prepared.execution_id is not None
        execution_id = prepared.execution_id or f"{execution.run.execution_id}/{execution.origin}.{seq}"
        options = prepared.options or ChildOptions()
        options = replace(
            options,
            id_reuse=options.id_reuse if chosen else "allow_if_closed",  # the parent's id may have lived before
            announced=True if announced else None,
        )
        execution.ask(
            seq, ScheduleChild(seq, prepared.name, execution_id, input_, options, prepared.same, site, chosen)
        )
        started = execution.future() if announced else None
        child = self._children[seq] = Child(seq, execution_id, prepared, started, execution.future())
        return child


class ChildHandle(Generic[R]):
    """A child that was started: `await handle` is its result.

    Cancelling whoever awaits it cancels the child; `asyncio.shield(handle)` keeps that away.
    """

    def __init__(self, others: Others, child: Child) -> None:
        self._others = others
        self._child = child

    def __repr__(self) -> str:
        return f"<child {self.execution_id}>"

    def __await__(self) -> Generator[Any, Any, R]:
        return self._others.result_of(self._child).__await__()

    @property
    def execution_id(self) -> str:
        """The child's execution id."""
        return self._child.execution_id

    def cancel(self) -> None:
        """Ask the child to cancel itself. Whoever awaits it gets a `CancelledError` at once."""
        self._others.cancel(self._child)

    def signal(self, signal: Signal[T], payload: T, /) -> Coroutine[Any, Any, None]:
        """Send the child a signal; done when it is stored or on its way to it.

        Raises:
            SignalError: the child has ended.
        """
        frame = frame_at(1)
        return self._others.signal(self.execution_id, signal, payload, CallSite(frame.f_code, frame.f_lineno))


def _resolve(future: asyncio.Future[T] | None, value: T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T] | None, error: Exception) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
