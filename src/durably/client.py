"""The client: start executions, wait for their results, look at them, end them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar, cast

from durably.api.orchestrator import Orchestrator, StartOptions
from durably.api.registry import Registry
from durably.completions import Completions
from durably.core.channels import Query, Signal, Update, check_channel
from durably.core.errors import (
    DefinitionError,
    ExecutionCancelledError,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    InvalidIdError,
    ResultTimeoutError,
    UpdateFailedError,
    UpdateRejectedError,
)
from durably.core.events import (
    SignalReceived,
    UpdateAccepted,
)
from durably.core.failures import Failure, failure_of
from durably.core.history import HistoryEntry, read_history
from durably.core.payloads import Shape
from durably.descriptions import Description, describe
from durably.handles import Handle
from durably.polling import poll
from durably.ports.backend import Backend
from durably.ports.clock import Clock, Entropy
from durably.ports.messages import Delivery
from durably.ports.records import Record, Reply, Status
from durably.runtime.queries import answer_query
from durably.runtime.resets import fork_execution
from durably.runtime.start import existing_record, send_event, start_execution
from durably.steering import Steering

A = TypeVar("A")
C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Client(Completions, Steering):
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

    @property
    def registry(self) -> Registry:
        """The orchestrators that can be started, and the shapes of their inputs."""
        return self._registry

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
        if not isinstance(orchestrator, Orchestrator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"start() takes an id and an @orchestrator, got {orchestrator!r}. See start_by_name.")
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
        text = self._input(orchestrator, input_)
        return Handle(self, execution_id, self._start(execution_id, orchestrator, text, options or StartOptions()))

    def handle(self, execution_id: str, orchestrator: Orchestrator[P, R] | None = None) -> Handle[R]:
        """A handle of an execution started elsewhere; give its orchestrator for a typed result."""
        del orchestrator
        return Handle(self, execution_id, None)

    def describe(self, execution_id: str) -> Description:
        """An execution as it stands: status, pending activities with attempt and last failure, timers.

        Raises:
            ExecutionNotFoundError: there is none.
        """
        return describe(self._backend, execution_id)

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

    def fork(
        self,
        execution_id: str,
        new_id: str,
        /,
        *,
        to_event: int = 1,
        input_: str | None = None,
        request_id: str | None = None,
    ) -> Handle[Any]:
        """Start another execution with the history of this one through `to_event`.

        Args:
            execution_id: which execution.
            new_id: of the new one.
            to_event: number in the history of the last event to keep.
            input_: another input, JSON text by parameter name; only with `to_event` 1.
            request_id: the same fork under the same id happens once, and returns the same execution.

        An orchestrator that makes `ctx.execution_id` part of what it asks for (inputs of activities, ids of children
        that it chooses) asks for something else under another id: a fork that keeps such events stalls as
        non-deterministic, naming both. Terminate it, and fork from an event before the first of them, or from 1.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ExecutionExistsError: the new id is taken.
            ClientError: there is no such event, the input was changed after it was used, or it is a schedule.
            PayloadError: the input does not fit the orchestrator.
        """
        if input_ is not None:
            input_ = self._input(existing_record(self._backend, execution_id).orchestrator, input_)
        record = fork_execution(
            self._backend,
            self._clock,
            self._entropy,
            execution_id,
            new_id,
            to_event=to_event,
            input_=input_,
            request_id=self._request_id(request_id),
            code_version=self._registry.code_version,
        )
        return Handle(self, new_id, record.gen)

    # --- talking to executions -----------------------------------------------------------------------------

    def signal(self, execution_id: str, signal: Signal[T], payload: T, /, *, request_id: str | None = None) -> None:
        """Send a signal. When this returns it is stored: the execution gets it once, however often it is sent.

        Args:
            execution_id: whom.
            signal: which.
            payload: what.
            request_id: the same signal, sent again under the same id, arrives once.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            ExecutionClosedError: it has ended.
            PayloadError: the payload does not fit the signal's type.
        """
        send_event(self._backend, execution_id, self._signal(signal, payload, request_id))

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
        """Signal an execution, started with the signal if there is none (or none open, as its options allow).

        Raises:
            ExecutionExistsError: it has ended, and `Orchestrator.options(id_reuse=...)` allows no other life.
            PayloadError: payload or arguments do not fit.
        """
        text, options = self._registry.input_shape(orchestrator.name).encode(args, kwargs), orchestrator.start_options
        event = self._signal(signal, payload, options.request_id)
        return self._signal_or_start(execution_id, event, orchestrator.name, text, options)

    def query(self, execution_id: str, query: Query[R], /) -> R:
        """Ask an execution, open or closed, for what its handler of the query says.

        Raises:
            ExecutionNotFoundError: there is no such execution.
            QueryError: it has no such handler, or the handler raised.
            UnknownOrchestratorError: this process does not have its code.
        """
        check_channel(Query, query)
        text = answer_query(self._backend, self._registry, execution_id, query.name)
        return cast(R, self._registry.codec.value(query.result_type).decode(text))

    def update(
        self,
        execution_id: str,
        update: Update[A, R],
        payload: A,
        /,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> R:
        """Send a request and wait for the reply.

        Args:
            execution_id: whom.
            update: which.
            payload: what.
            request_id: the same update, sent again under the same id, is handled once and gets the same reply.
            timeout: seconds to wait at most; for ever by default.

        Raises:
            UpdateRejectedError: its validator refused; nothing happened.
            UpdateFailedError: its handler raised, or the execution ended first.
            ResultTimeoutError: there is no reply yet. Ask again under the same `request_id`.
            ExecutionNotFoundError: there is no such execution.
            ExecutionClosedError: it has ended.
        """
        check_channel(Update, update)
        payload_shape, result_shape = map(self._registry.codec.value, (update.payload_type, update.result_type))
        id_ = self._request_id(request_id)
        record = existing_record(self._backend, execution_id)
        reply = self._backend.read_reply(record.key, id_)
        if reply is None:
            event = UpdateAccepted(name=update.name, payload=payload_shape.encode(payload), request_id=id_)
            sent_to = send_event(self._backend, execution_id, event)
            reply = self._until(lambda: self._reply(sent_to, id_), timeout)
        if reply is None:
            raise ResultTimeoutError(f"execution {execution_id} did not reply within {timeout} s.")
        if not reply.accepted:
            raise UpdateRejectedError(execution_id, cast(Failure, reply.failure))
        if reply.result is None:
            raise UpdateFailedError(execution_id, cast(Failure, reply.failure))
        return cast(R, result_shape.decode(reply.result))

    # --- by name, with JSON text in and out: for those who do not have the constants ----------------------

    def signal_by_name(self, execution_id: str, name: str, payload: str, *, request_id: str | None = None) -> None:
        """Send a signal from its name and its payload as JSON text, which is read when somebody receives it.

        Raises:
            InvalidIdError: no signal can have this name.
            PayloadError: the payload is not JSON; and all that `signal` raises.
        """
        self.signal(execution_id, _named(Signal[Any], name), self._plain.decode(payload), request_id=request_id)

    def signal_with_start_by_name(
        self, execution_id: str, name: str, payload: str, /, *, orchestrator: str, input_: str, options: StartOptions
    ) -> Handle[Any]:
        """`signal_with_start` from names and JSON text; raises what `signal_by_name` and `start_by_name` raise."""
        signal, value = _named(Signal[Any], name), self._plain.decode(payload)
        text = self._input(orchestrator, input_)
        return self._signal_or_start(
            execution_id, self._signal(signal, value, options.request_id), orchestrator, text, options
        )

    def query_by_name(self, execution_id: str, name: str) -> str:
        """The answer to the query of that name, as JSON text; raises what `query` raises."""
        return answer_query(self._backend, self._registry, execution_id, name)

    def update_by_name(
        self,
        execution_id: str,
        name: str,
        payload: str,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Send an update from its name and its payload as JSON text; returns the reply as JSON text.

        Raises:
            InvalidIdError: no update can have this name.
            PayloadError: the payload is not JSON; and all that `update` raises.
        """
        update, value = _named(Update[Any, Any], name), self._plain.decode(payload)
        return self._plain.encode(self.update(execution_id, update, value, request_id=request_id, timeout=timeout))

    # --- inside --------------------------------------------------------------------------------------------

    def _signal(self, signal: Signal[T], payload: T, request_id: str | None) -> SignalReceived:
        check_channel(Signal, signal)
        text = self._registry.codec.value(signal.payload_type).encode(payload)
        return SignalReceived(name=signal.name, payload=text, request_id=self._request_id(request_id))

    @property
    def _plain(self) -> Shape:
        """The shape of any JSON."""
        return self._registry.codec.value(Any)

    def _signal_or_start(
        self, execution_id: str, event: SignalReceived, orchestrator: str, input_: str, options: StartOptions, /
    ) -> Handle[Any]:
        options = replace(options, request_id=event.request_id)
        while True:
            try:
                record = send_event(self._backend, execution_id, event)
                return Handle(self, execution_id, record.gen)
            except (ExecutionNotFoundError, ExecutionClosedError):
                try:
                    gen = self._start(execution_id, orchestrator, input_, options, first=event)
                    return Handle(self, execution_id, gen)
                except ExecutionExistsError:
                    if existing_record(self._backend, execution_id).closed:
                        raise

    def _until(self, look: Callable[[], T | None], timeout: float | None) -> T | None:
        return poll(look, timeout, self._pause)

    def _reply(self, record: Record, request_id: str) -> Reply | None:
        current = self._backend.read_record(record.execution_id)
        reply = self._backend.read_reply(record.key, request_id)
        if reply is None and (current is None or current.closed or current.gen != record.gen):
            gone = ExecutionClosedError("the execution ended before it handled the update")
            return Reply(run=record.key, request_id=request_id, failure=failure_of(gone))
        return reply

    def _start(
        self,
        execution_id: str,
        orchestrator: str,
        input_: str,
        options: StartOptions,
        first: SignalReceived | None = None,
    ) -> str:
        record, kept = start_execution(
            self._backend,
            self._clock,
            self._entropy,
            execution_id=execution_id,
            orchestrator=orchestrator,
            input_=input_,
            options=options,
            code_version=self._registry.code_version,
            first=first,
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
        closed = self._until(lambda: self._closed(execution_id), timeout)
        if closed is None:
            record = existing_record(self._backend, execution_id)
            state = f" It is stalled: {record.failure}" if record.status == "stalled" else ""
            raise ResultTimeoutError(f"execution {execution_id} did not close within {timeout} s.{state}")
        return self._result_of(closed)

    def _closed(self, execution_id: str) -> Record | None:
        record = existing_record(self._backend, execution_id)
        return record if record.closed else None

    def _result_of(self, record: Record) -> Any:
        if record.status != "completed" or record.result is None:
            assert record.failure is not None
            kind = ExecutionCancelledError if record.status == "cancelled" else ExecutionFailedError
            raise kind(record.execution_id, record.failure)
        program = self._registry.program(record.orchestrator)
        shape = program.result if program is not None else self._registry.codec.value(Any)
        return shape.decode(record.result)


def _named(channel: Callable[[str], C], name: str) -> C:
    try:
        return channel(name)
    except DefinitionError as error:
        raise InvalidIdError(str(error)) from error
