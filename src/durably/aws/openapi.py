"""The management API as an OpenAPI document. Bodies are described by the models that check them.

Powertools can write one too, but wants annotations that it also enforces, with its own errors, and costs every cold
start; this module is loaded when somebody asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic.json_schema import models_json_schema

from durably import __version__
from durably.aws.forms import (
    ForkForm,
    Form,
    OnceForm,
    ReasonForm,
    ResetForm,
    SignalForm,
    SignalWithStartForm,
    StartForm,
    UpdateForm,
)
from durably.ports.records import LISTED

_PARAMETERS: dict[str, dict[str, Any]] = {
    "status": {"type": "string", "enum": list(LISTED)},
    "orchestrator": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "cursor": {"type": "string", "description": "Of the page before."},
    "closed_before": {"type": "string", "format": "date-time"},
    "dry_run": {"type": "boolean", "description": "Only say what would go."},
    "after": {"type": "integer", "minimum": 0, "description": "Number of the last event of the page before."},
}
_REFUSALS = {
    400: "The request is malformed; the message names the field.",
    404: "There is no such execution, orchestrator or activity that awaits a callback.",
    409: "The id is taken, the execution has not failed or not ended, or another result was recorded.",
    410: "The execution has ended.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The execution refused, or could not answer; the message says why.",
    503: "The store cannot be reached, or others keep changing the execution. Nothing was half-done; try again.",
}


class Operation(NamedTuple):
    """What a route does.

    Attributes:
        summary: one line.
        answers: meanings of good status codes.
        form: of the body.
        parameters: names of what the query string may carry.
        refusals: status codes beside those that every operation has.
    """

    summary: str
    answers: Mapping[int, str]
    form: type[Form] | None = None
    parameters: tuple[str, ...] = ()
    refusals: tuple[int, ...] = ()


_ONE = "/executions/{execution_id}"
_AN_ACTIVITY = f"{_ONE}/activities/{{activity}}"
_OF_CALLBACKS = (404, 409, 410, 413, 415)
_ON_ITS_WAY = {202: "Stored, and on its way."}
OPERATIONS: dict[str, Operation] = {
    "POST /executions": Operation(
        "Start an execution.", {200: "It had been started already.", 201: "Started."}, StartForm, refusals=(404, 409)
    ),
    "GET /executions": Operation(
        "List executions, newest first.",
        {200: "A page."},
        parameters=("status", "orchestrator", "limit", "cursor"),
    ),
    f"GET {_ONE}": Operation("How it stands, and what it waits for.", {200: "A description."}, refusals=(404,)),
    f"GET {_ONE}/result": Operation("How it ended, or that it has not.", {200: "Its result."}, refusals=(404,)),
    f"GET {_ONE}/history": Operation(
        "What happened in it.", {200: "A page of events."}, parameters=("after", "limit"), refusals=(404,)
    ),
    f"POST {_ONE}/signals/{{name}}": Operation("Send a signal.", _ON_ITS_WAY, SignalForm, refusals=(404, 410)),
    f"PUT {_ONE}/signals/{{name}}": Operation(
        "Send a signal; start the execution with it if there is none.",
        {200: "Sent.", 201: "Started with it."},
        SignalWithStartForm,
        refusals=(404, 409),
    ),
    f"POST {_ONE}/updates/{{name}}": Operation(
        "Send a request and wait for the reply.",
        {200: "The reply.", 202: "No reply yet; send it again under the request id that is answered."},
        UpdateForm,
        refusals=(404, 410, 422),
    ),
    f"GET {_ONE}/queries/{{name}}": Operation("Ask it, open or closed.", {200: "The answer."}, refusals=(404, 422)),
    f"POST {_ONE}/cancel": Operation("Ask it to cancel itself.", _ON_ITS_WAY, ReasonForm, refusals=(404, 410)),
    f"POST {_ONE}/suspend": Operation("Keep its events, run nothing.", _ON_ITS_WAY, OnceForm, refusals=(404, 410)),
    f"POST {_ONE}/resume": Operation("Go on after a suspension.", _ON_ITS_WAY, OnceForm, refusals=(404, 410)),
    f"POST {_ONE}/terminate": Operation("End it without asking it.", _ON_ITS_WAY, ReasonForm, refusals=(404, 410)),
    f"POST {_ONE}/retry": Operation(
        "Open it again at its last good point.", {200: "It goes on."}, OnceForm, refusals=(404, 409)
    ),
    f"POST {_ONE}/reset": Operation(
        "Go back to an event, in a new run.", {200: "It goes on."}, ResetForm, refusals=(404,)
    ),
    f"POST {_ONE}/forks": Operation(
        "Start another one from an event of this one.",
        {200: "It had been started already.", 201: "Started."},
        ForkForm,
        refusals=(404, 409),
    ),
    f"DELETE {_ONE}": Operation(
        "Purge it: delete what is stored of it, once it has ended.", {200: "Purged."}, refusals=(404, 409)
    ),
    "DELETE /executions": Operation(
        "Purge executions that were closed before an instant, for some seconds; `more` says whether any may be left.",
        {200: "Those that are purged."},
        parameters=("closed_before", "status", "orchestrator", "limit", "dry_run"),
    ),
    f"POST {_AN_ACTIVITY}/complete": Operation(
        "Complete a callback activity without its token; the body is the result.",
        {200: "The result is recorded."},
        refusals=_OF_CALLBACKS,
    ),
    f"POST {_AN_ACTIVITY}/fail": Operation(
        "Fail a callback activity without its token; the body is an object of type, message and non_retryable.",
        {200: "The failure is recorded."},
        refusals=_OF_CALLBACKS,
    ),
    f"POST {_AN_ACTIVITY}/heartbeat": Operation(
        "Say that a callback activity is being worked on; the body is how far it got.",
        {200: "Recorded; the answer says whether it was cancelled."},
        refusals=_OF_CALLBACKS,
    ),
    "GET /openapi.json": Operation("This document.", {200: "An OpenAPI document."}),
}


def document() -> dict[str, Any]:
    """The document, as JSON."""
    forms = sorted({each.form for each in OPERATIONS.values() if each.form is not None}, key=lambda form: form.__name__)
    references, schemas = models_json_schema(
        [(form, "validation") for form in forms], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for key, operation in OPERATIONS.items():
        method, _, path = key.partition(" ")
        body = None if operation.form is None else references[operation.form, "validation"]
        paths.setdefault(path, {})[method.lower()] = _described(path, operation, body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "durably", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _described(path: str, operation: Operation, body: Mapping[str, Any] | None) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    in_query = [{"name": name, "in": "query", "schema": _PARAMETERS[name]} for name in operation.parameters]
    refusals = {400, 503, *operation.refusals, *(() if body is None else (413, 415))}
    answers = {**operation.answers, **{status: _REFUSALS[status] for status in sorted(refusals)}}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [*in_path, *in_query],
        "responses": {
            str(status): {"description": said, "content": {"application/json": {"schema": {"type": "object"}}}}
            for status, said in answers.items()
        },
    }
    if body is not None:
        described["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return described
