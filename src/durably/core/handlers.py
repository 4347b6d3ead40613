"""The handlers that an orchestrator registers: of queries, which change nothing, and of updates, which may."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from durably.core.channels import Query, Update
from durably.core.commands import CompleteUpdate, FailUpdate
from durably.core.errors import DefinitionError, ExecutionClosedError, QueryError, TurnTimeoutError
from durably.core.events import UpdateAccepted
from durably.core.failures import Failure, failure_of
from durably.core.payloads import Shape

if TYPE_CHECKING:
    from durably.core.execution import Execution

REJECTED = "durably.UpdateRejected"


class _UpdateHandler(NamedTuple):
    handle: Callable[[Any], Any]
    validate: Callable[[Any], object] | None
    payload: Shape
    result: Shape


class _QueryHandler(NamedTuple):
    answer: Callable[[], Any]
    result: Shape


class Handlers:
    """The handlers of one run."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._queries: dict[str, _QueryHandler] = {}
        self._updates: dict[str, _UpdateHandler] = {}
        self._registered: dict[str, asyncio.Event] = {}

    def on_query(self, query: Query[Any], answer: Callable[[], Any]) -> None:
        """Register (or replace) the handler of a query."""
        if inspect.iscoroutinefunction(answer) or not callable(answer):
            raise DefinitionError(
                f"The handler of the query {query.name!r} must be a plain function, `def` or `lambda`, got {answer!r}. "
                "It cannot wait."
            )
        self._queries[query.name] = _QueryHandler(answer, self._execution.codec.value(query.result_type))

    def on_update(
        self,
        update: Update[Any, Any],
        handle: Callable[[Any], Any | Awaitable[Any]],
        validate: Callable[[Any], object] | None,
    ) -> None:
        """Register (or replace) the handler of an update."""
        if validate is not None and inspect.iscoroutinefunction(validate):
            raise DefinitionError(f"The validator of the update {update.name!r} must be a plain `def`: it cannot wait.")
        value = self._execution.codec.value
        self._updates[update.name] = _UpdateHandler(
            handle, validate, value(update.payload_type), value(update.result_type)
        )
        registered = self._registered.pop(update.name, None)
        if registered is not None:
            registered.set()

    def answer(self, name: str) -> str:
        """The answer to a query, encoded.

        Raises:
            QueryError: there is no handler of that name, or it raised.
        """
        handler = self._queries.get(name)
        if handler is None:
            known = ", ".join(sorted(self._queries)) or "none"
            raise QueryError(
                f"The execution {self._execution.run.execution_id} answers no query {name!r}; it answers: {known}."
            )
        try:
            with self._execution.reading():
                return handler.result.encode(handler.answer())
        except TurnTimeoutError as error:
            raise QueryError(f"The handler of the query {name!r} ran longer than a turn may take.") from error
        except Exception as error:
            raise QueryError(f"The handler of the query {name!r} raised {failure_of(error)}") from error

    def refusal(self, update: UpdateAccepted) -> Failure | None:
        """Why an update is not accepted; None if it is."""
        handler = self._updates.get(update.name)
        if handler is None:
            known = ", ".join(sorted(self._updates)) or "none"
            return Failure(
                type=REJECTED,
                message=f"it has no handler of the update {update.name!r} (now); it handles: {known}",
                non_retryable=True,
            )
        try:
            with self._execution.reading():
                value = handler.payload.decode(update.payload)
                if handler.validate is not None:
                    handler.validate(value)
        except Exception as error:
            return failure_of(error)
        return None

    async def handle(self, update: UpdateAccepted) -> None:
        """Run the handler of an accepted update, as soon as there is one: an earlier run may have accepted it."""
        execution, id_ = self._execution, update.request_id
        while (handler := self._updates.get(update.name)) is None:
            await self._registered.setdefault(update.name, asyncio.Event()).wait()
        try:
            result = handler.handle(handler.payload.decode(update.payload))
            if inspect.isawaitable(result):
                result = await result
            answer = CompleteUpdate(id_, handler.result.encode(result), handler.result.same)
        except (Exception, asyncio.CancelledError) as error:  # what it waits for may have been cancelled
            execution.answer_update(FailUpdate(id_, failure_of(error)))
        else:
            execution.answer_update(answer)

    def give_up(self) -> None:
        """The execution ends: fail the updates that are not answered."""
        for update in self._execution.inbox.unanswered:
            missing = "" if update.name in self._updates else f", for which it registered none ({update.name!r})"
            error = ExecutionClosedError(f"The execution ended before the handler of the update did{missing}.")
            self._execution.answer_update(FailUpdate(update.request_id, failure_of(error)))
