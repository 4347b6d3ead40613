"""The function behind the management routes: start, describe, list, result, history, terminate.

API Gateway lets only requests through that IAM allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

from durably.api.orchestrator import IdReuse, Orchestrator, StartOptions
from durably.api.registry import Registry
from durably.aws.completions import add_completions
from durably.aws.requests import answer, answer_large, body_of, refusal_of, routed
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.client import Client
from durably.core.errors import (
    ActivityNotAwaitedError,
    ClientError,
    DurablyError,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    PayloadError,
    StorageError,
    UnknownOrchestratorError,
)
from durably.ports.records import Status
from durably.runtime.start import existing_record, start_execution
from durably.views import description_view, history_view, record_view, result_view

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_STATUS: dict[type[DurablyError], int] = {
    ActivityNotAwaitedError: 404,
    ExecutionNotFoundError: 404,
    UnknownOrchestratorError: 404,
    ExecutionExistsError: 409,
    ExecutionClosedError: 410,
    ClientError: 400,
    PayloadError: 400,
    StorageError: 503,
}
_A_STRING, _AN_OBJECT = (str, "a string"), (dict, "an object")
_Fields: TypeAlias = Mapping[str, tuple[type, str]]
_START: _Fields = {
    "execution_id": _A_STRING,
    "orchestrator": _A_STRING,
    "input": _AN_OBJECT,
    "id_reuse": _A_STRING,
    "request_id": _A_STRING,
}
_REQUIRED = ("execution_id", "orchestrator")
_ID_REUSE: tuple[IdReuse, ...] = get_args(IdReuse)
_STATUSES: tuple[Status, ...] = get_args(Status)
_LARGEST_PAGE = 1000


def api_handler(*orchestrators: Orchestrator[..., Any], surroundings: Surroundings | None = None) -> ApiHandler:
    """The handler of the function behind the management routes.

    Args:
        orchestrators: those that can be started; their inputs are checked here.
        surroundings: instead of those that the environment describes.
    """
    return ApiHandler(orchestrators, surroundings)


class ApiHandler:
    """Answers 200, 201 (started), 202 (termination on its way), 400, 404, 409, 410, 413, 415, 503."""

    def __init__(self, orchestrators: Sequence[Orchestrator[..., Any]], surroundings: Surroundings | None) -> None:
        self.orchestrators = tuple(orchestrators)
        self._given = surroundings
        app = self._app = APIGatewayHttpResolver()
        app.post("/executions")(self._start)
        app.get("/executions")(self._list)
        app.get("/executions/<execution_id>")(self._describe)
        app.get("/executions/<execution_id>/result")(self._result)
        app.get("/executions/<execution_id>/history")(self._history)
        app.post("/executions/<execution_id>/terminate")(self._terminate)
        add_completions(app, lambda: self._surroundings, lambda: self._registry)
        app.exception_handler(DurablyError)(self._refuse)
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
        fields = self._fields(_START, required=_REQUIRED)
        if isinstance(fields, Response):
            return fields
        reuse = fields.get("id_reuse", "reject")
        if reuse not in _ID_REUSE:
            raise ClientError(f"id_reuse must be one of {', '.join(_ID_REUSE)}, got {reuse!r}.")
        of, input_ = self._surroundings, json.dumps(fields.get("input", {}), ensure_ascii=False, separators=(",", ":"))
        self._registry.input_shape(fields["orchestrator"]).decode(input_)
        asked_at_ms = of.clock.now_ms()
        record, _ = start_execution(
            of.backend,
            of.clock,
            of.entropy,
            execution_id=fields["execution_id"],
            orchestrator=fields["orchestrator"],
            input_=input_,
            options=StartOptions(id_reuse=reuse, request_id=fields.get("request_id")),
            code_version=self._registry.code_version,
        )
        return answer(201 if record.started_at_ms >= asked_at_ms else 200, record_view(record))

    def _list(self) -> Response[str]:
        asked = self._query("status", "orchestrator", "limit", "cursor")
        status = cast("Status | None", asked.get("status"))
        if status is not None and status not in _STATUSES:
            raise ClientError(f"status must be one of {', '.join(_STATUSES)}, got {status!r}.")
        page = self._surroundings.backend.list_records(
            status=status,
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

    def _terminate(self, execution_id: str) -> Response[str]:
        fields = self._fields({"reason": _A_STRING})
        if isinstance(fields, Response):
            return fields
        id_ = unquote(execution_id)
        self._client.terminate(id_, fields.get("reason", "terminated through the API"))
        return answer(202, {"message": f"The termination of {id_} is on its way."})

    def _refuse(self, error: DurablyError) -> Response[str]:
        status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
        return answer(status, {"message": str(error)})

    # --- what requests carry ----------------------------------------------------------------------------------------

    def _fields(self, known: _Fields, required: Sequence[str] = ()) -> dict[str, Any] | Response[str]:
        """The fields of the body, which is an object, or the answer that refuses it."""
        event = self._app.current_event
        refusal = refusal_of(event, limit=self._surroundings.limits.payload_bytes)
        if refusal is not None:
            return refusal
        body = body_of(event)
        try:
            value: object = json.loads(body) if body.strip() else {}
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise ClientError(f"The body is not JSON that can be stored: {error}.") from error
        if not isinstance(value, dict):
            raise ClientError(f"The body must be a JSON object, got {type(value).__name__}.")
        fields = cast("dict[str, Any]", value)
        for name, given in fields.items():
            if name not in known:
                raise ClientError(f"Unknown field {name!r}; there are {', '.join(known)}.")
            kind, wanted = known[name]
            if not isinstance(given, kind):
                raise ClientError(f"{name} must be {wanted}, got {type(given).__name__}.")
        for name in required:
            if name not in fields:
                raise ClientError(f"The field {name} is missing.")
        return fields

    def _query(self, *known: str) -> dict[str, str]:
        """The query string's parameters."""
        asked = self._app.current_event.query_string_parameters
        for name in asked:
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "this route has none"
                raise ClientError(f"Unknown parameter {name!r}; {there}.")
        return asked


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
