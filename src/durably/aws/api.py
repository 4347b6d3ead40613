"""The function behind the management routes: start executions, look at them, talk to them, steer them.

API Gateway lets only requests through that IAM allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

from durably.api.orchestrator import Orchestrator, StartOptions
from durably.api.registry import Registry
from durably.aws.completions import add_completions
from durably.aws.forms import (
    LONGEST_WAIT_S,
    F,
    ForkForm,
    OnceForm,
    ReasonForm,
    ResetForm,
    SignalForm,
    SignalWithStartForm,
    StartForm,
    UpdateForm,
    filled,
)
from durably.aws.limits import TimeLimit
from durably.aws.requests import answer, answer_large, body_of, refusal_of, routed
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.client import Client
from durably.core.errors import (
    ActivityNotAwaitedError,
    ClientError,
    ContendedError,
    DurablyError,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    ExecutionOpenError,
    NothingToRetryError,
    PayloadError,
    QueryError,
    ResultTimeoutError,
    StorageError,
    TurnTimeoutError,
    UnknownOrchestratorError,
    UpdateFailedError,
    UpdateRejectedError,
)
from durably.ports.records import ENDED, LISTED, Record, Status
from durably.runtime.start import existing_record, start_execution
from durably.views import description_view, history_view, record_view, result_view, update_view

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_STATUS: dict[type[DurablyError], int] = {
    ActivityNotAwaitedError: 404,
    ExecutionNotFoundError: 404,
    UnknownOrchestratorError: 404,
    ExecutionExistsError: 409,
    ExecutionOpenError: 409,
    NothingToRetryError: 409,
    ExecutionClosedError: 410,
    QueryError: 422,
    ClientError: 400,
    PayloadError: 400,
    ContendedError: 503,
    StorageError: 503,
}
_LARGEST_PAGE = 1000
_PURGE_MS = 6_000  # and then the one that was begun


class _RefusedBodyError(Exception):
    def __init__(self, refusal: Response[str]) -> None:
        super().__init__()
        self.answer = refusal


def api_handler(*orchestrators: Orchestrator[..., Any], surroundings: Surroundings | None = None) -> ApiHandler:
    """The handler of the function behind the management routes.

    Args:
        orchestrators: those that can be started; their inputs are checked here.
        surroundings: instead of those that the environment describes.
    """
    return ApiHandler(orchestrators, surroundings)


class ApiHandler:
    """Answers 200, 201 (started), 202 (stored, and on its way), 400, 404, 409, 410, 413, 415, 422, 503."""

    def __init__(self, orchestrators: Sequence[Orchestrator[..., Any]], surroundings: Surroundings | None) -> None:
        self.orchestrators = tuple(orchestrators)
        self._given = surroundings
        app = self._app = APIGatewayHttpResolver()
        app.post("/executions")(self._start)
        app.get("/executions")(self._list)
        app.get("/executions/<execution_id>")(self._describe)
        app.get("/executions/<execution_id>/result")(self._result)
        app.get("/executions/<execution_id>/history")(self._history)
        app.post("/executions/<execution_id>/signals/<name>")(self._signal)
        app.put("/executions/<execution_id>/signals/<name>")(self._signal_with_start)
        app.post("/executions/<execution_id>/updates/<name>")(self._update)
        app.get("/executions/<execution_id>/queries/<name>")(self._ask)
        app.post("/executions/<execution_id>/cancel")(self._cancel)
        app.post("/executions/<execution_id>/suspend")(self._suspend)
        app.post("/executions/<execution_id>/resume")(self._resume)
        app.post("/executions/<execution_id>/terminate")(self._terminate)
        app.post("/executions/<execution_id>/retry")(self._retry)
        app.post("/executions/<execution_id>/reset")(self._reset)
        app.post("/executions/<execution_id>/forks")(self._fork)
        app.delete("/executions/<execution_id>")(self._purge)
        app.delete("/executions")(self._purge_closed)
        app.get("/openapi.json")(self._openapi)
        add_completions(app, lambda: self._surroundings, lambda: self._registry)
        app.exception_handler(DurablyError)(self._refuse)
        app.exception_handler(_RefusedBodyError)(self._refuse_body)
        prepare_in_lambda(lambda: self._client)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Handle a request."""
        return self._app.resolve(routed(event), context)

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _registry(self) -> Registry:
        return self._surroundings.registry(self.orchestrators)

    @cached_property
    def _client(self) -> Client:
        of = self._surroundings
        return Client(of.backend, self._registry, of.clock, of.entropy)

    # --- routes ---------------------------------------------------------------------------------------------------

    def _start(self) -> Response[str]:
        form = self._form(StartForm)
        of, input_ = self._surroundings, _text(form.input)
        self._registry.input_shape(form.orchestrator).decode(input_)
        asked_at_ms = of.clock.now_ms()
        record, _ = start_execution(
            of.backend,
            of.clock,
            of.entropy,
            execution_id=form.execution_id,
            orchestrator=form.orchestrator,
            input_=input_,
            options=StartOptions(id_reuse=form.id_reuse, request_id=form.request_id, pinned=form.pinned),
            code_version=self._registry.code_version,
        )
        return self._started(record, asked_at_ms)

    def _list(self) -> Response[str]:
        asked = self._query("status", "orchestrator", "limit", "cursor")
        page = self._surroundings.backend.list_records(
            status=_status(asked, LISTED),
            orchestrator=asked.get("orchestrator"),
            limit=_number(asked, "limit", default=100),
            cursor=asked.get("cursor"),
        )
        view = {"executions": [record_view(record) for record in page.records], "cursor": page.cursor}
        return answer_large(self._app.current_event, view)

    def _describe(self, execution_id: str) -> Response[str]:
        self._query()
        described = self._client.describe(unquote(execution_id))
        return answer_large(self._app.current_event, description_view(described))

    def _result(self, execution_id: str) -> Response[str]:
        self._query()
        record = existing_record(self._surroundings.backend, unquote(execution_id))
        return answer_large(self._app.current_event, result_view(record))

    def _history(self, execution_id: str) -> Response[str]:
        asked = self._query("after", "limit")
        after = _number(asked, "after", default=0, least=0, most=None)
        limit = _number(asked, "limit", default=_LARGEST_PAGE)
        entries = self._client.history(unquote(execution_id))
        page = entries[after : after + limit]
        following = after + limit if len(entries) > after + limit else None
        return answer_large(self._app.current_event, {"events": history_view(page), "after": following})

    def _signal(self, execution_id: str, name: str) -> Response[str]:
        form = self._form(SignalForm)
        id_, name, request_id = unquote(execution_id), unquote(name), form.request_id or self._new_id()
        self._client.signal_by_name(id_, name, _text(form.payload), request_id=request_id)
        return answer(202, {"message": f"The signal {name} to {id_} is on its way.", "request_id": request_id})

    def _signal_with_start(self, execution_id: str, name: str) -> Response[str]:
        form = self._form(SignalWithStartForm)
        id_, asked_at_ms = unquote(execution_id), self._surroundings.clock.now_ms()
        self._client.signal_with_start_by_name(
            id_,
            unquote(name),
            _text(form.payload),
            orchestrator=form.orchestrator,
            input_=_text(form.input),
            options=StartOptions(id_reuse=form.id_reuse, request_id=form.request_id),
        )
        return self._started(existing_record(self._surroundings.backend, id_), asked_at_ms)

    def _update(self, execution_id: str, name: str) -> Response[str]:
        form = self._form(UpdateForm)
        id_, request_id = unquote(execution_id), form.request_id or self._new_id()
        try:
            reply = self._client.update_by_name(
                id_, unquote(name), _text(form.payload), request_id=request_id, timeout=form.timeout
            )
        except ResultTimeoutError:
            said = "There is no reply yet. Send the same request again, with this request_id, to get it."
            return answer(202, {"message": said, "request_id": request_id})
        except (UpdateRejectedError, UpdateFailedError) as error:
            return answer(422, {"message": str(error), **update_view(id_, request_id, refusal=error)})
        view = update_view(id_, request_id, result=json.loads(reply))
        return answer_large(self._app.current_event, view)

    def _ask(self, execution_id: str, name: str) -> Response[str]:
        self._query()
        id_, name = unquote(execution_id), unquote(name)
        with TimeLimit(LONGEST_WAIT_S, TurnTimeoutError):
            text = self._client.query_by_name(id_, name)
        view = {"execution_id": id_, "query": name, "answer": json.loads(text)}
        return answer_large(self._app.current_event, view)

    def _cancel(self, execution_id: str) -> Response[str]:
        return self._steer(execution_id, self._client.cancel, "cancellation")

    def _suspend(self, execution_id: str) -> Response[str]:
        form = self._form(OnceForm)
        self._client.suspend(unquote(execution_id), form.reason, request_id=form.request_id)
        return _on_its_way("suspension", execution_id)

    def _resume(self, execution_id: str) -> Response[str]:
        form = self._form(OnceForm)
        self._client.resume(unquote(execution_id), form.reason, request_id=form.request_id)
        return _on_its_way("resumption", execution_id)

    def _terminate(self, execution_id: str) -> Response[str]:
        return self._steer(execution_id, self._client.terminate, "termination")

    def _steer(self, execution_id: str, steer: Callable[[str, str], None], what: str) -> Response[str]:
        steer(unquote(execution_id), self._form(ReasonForm).reason)
        return _on_its_way(what, execution_id)

    def _retry(self, execution_id: str) -> Response[str]:
        form = self._form(OnceForm)
        self._client.retry(unquote(execution_id), form.reason, request_id=form.request_id)
        return self._record(200, unquote(execution_id))

    def _reset(self, execution_id: str) -> Response[str]:
        form = self._form(ResetForm)
        input_ = None if form.input is None else _text(form.input)
        id_, to_event = unquote(execution_id), form.to_event
        self._client.reset(id_, to_event, form.reason, input_=input_, request_id=form.request_id)
        return self._record(200, unquote(execution_id))

    def _fork(self, execution_id: str) -> Response[str]:
        form = self._form(ForkForm)
        input_ = None if form.input is None else _text(form.input)
        source, of = unquote(execution_id), self._surroundings
        asked_at_ms = of.clock.now_ms()
        self._client.fork(source, form.execution_id, to_event=form.to_event, input_=input_, request_id=form.request_id)
        return self._started(existing_record(of.backend, form.execution_id), asked_at_ms)

    def _purge(self, execution_id: str) -> Response[str]:
        self._query()
        id_ = unquote(execution_id)
        self._client.purge(id_)
        return answer(200, {"execution_id": id_, "status": "purged"})

    def _purge_closed(self) -> Response[str]:
        """As many as there is time for, and at most `limit`; `more` says whether any may be left."""
        asked = self._query("closed_before", "status", "orchestrator", "limit", "dry_run")
        limit, of = _number(asked, "limit", default=100), self._surroundings
        until_ms = of.clock.now_ms() + _PURGE_MS
        found = self._client.purge_closed(
            closed_before=_instant(asked, "closed_before"),
            status=_status(asked, ENDED),
            orchestrator=asked.get("orchestrator"),
            dry_run=_yes(asked, "dry_run"),
        )
        records: list[Record] = []
        more = True
        while len(records) < limit and of.clock.now_ms() < until_ms:
            record = next(found, None)
            if record is None:
                more = False
                break
            records.append(record)
        view = {"executions": [record_view(record) for record in records], "more": more}
        return answer_large(self._app.current_event, view)

    def _openapi(self) -> Response[str]:
        from durably.aws.openapi import document  # only who asks pays for it

        self._query()
        return answer(200, document())

    # --- answers ----------------------------------------------------------------------------------------------------

    def _started(self, record: Record, asked_at_ms: int) -> Response[str]:
        return answer(201 if record.started_at_ms >= asked_at_ms else 200, record_view(record))

    def _record(self, status: int, execution_id: str) -> Response[str]:
        return answer(status, record_view(existing_record(self._surroundings.backend, execution_id)))

    def _new_id(self) -> str:
        return self._surroundings.entropy.ulid(self._surroundings.clock.now_ms())

    def _refuse(self, error: DurablyError) -> Response[str]:
        status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
        return answer(status, {"message": str(error)})

    def _refuse_body(self, error: _RefusedBodyError) -> Response[str]:
        return error.answer

    # --- what requests carry ----------------------------------------------------------------------------------------

    def _form(self, form: type[F]) -> F:
        """The body, filled into a form."""
        event = self._app.current_event
        refusal = refusal_of(event, limit=self._surroundings.limits.payload_bytes)
        if refusal is not None:
            raise _RefusedBodyError(refusal)
        body = body_of(event)
        try:
            value: object = json.loads(body) if body.strip() else {}
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise ClientError(f"The body is not JSON that can be stored: {error}.") from error
        if not isinstance(value, dict):
            raise ClientError(f"The body must be a JSON object, got {type(value).__name__}.")
        return filled(form, cast("dict[str, Any]", value))

    def _query(self, *known: str) -> dict[str, str]:
        """The query string's parameters."""
        asked = self._app.current_event.query_string_parameters
        for name in asked:
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "this route has none"
                raise ClientError(f"Unknown parameter {name!r}; {there}.")
        return asked


def _on_its_way(what: str, execution_id: str) -> Response[str]:
    return answer(202, {"message": f"The {what} of {unquote(execution_id)} is on its way."})


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _number(
    asked: Mapping[str, str], name: str, *, default: int, least: int = 1, most: int | None = _LARGEST_PAGE
) -> int:
    text = asked.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if number < least or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ClientError(f"{name} must be a whole number {bounds}, got {text[:80]!r}.")
    return number


def _status(asked: Mapping[str, str], allowed: Sequence[Status]) -> Status | None:
    status = cast("Status | None", asked.get("status"))
    if status is not None and status not in allowed:
        raise ClientError(f"status must be one of {', '.join(allowed)}, got {status!r:.80}.")
    return status


def _instant(asked: Mapping[str, str], name: str) -> datetime:
    text = asked.get(name, "")
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ClientError(
            f"{name} must be an instant with its time zone, such as 2030-01-31T12:00:00Z, got {text!r:.80}."
        )
    return instant


def _yes(asked: Mapping[str, str], name: str) -> bool:
    text = asked.get(name, "false")
    if text not in ("true", "false"):
        raise ClientError(f"{name} must be true or false, got {text!r:.80}.")
    return text == "true"
