"""What requests carry in their bodies, as pydantic models: checked when they arrive, and described by OpenAPI."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from durably.api.orchestrator import IdReuse
from durably.core.errors import ClientError

LONGEST_WAIT_S = 8.0  # the function has ten


class Form(BaseModel):
    """A body: a JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class StartForm(Form):
    """Starts an execution."""

    execution_id: str = Field(description="Chosen by the caller.")
    orchestrator: str = Field(description="Its persisted name.")
    input: dict[str, Any] = Field({}, description="Arguments by parameter name.")
    id_reuse: IdReuse = Field("reject", description="What if the id is taken.")
    request_id: str | None = Field(None, description="The same start under the same request id happens once.")
    pinned: bool = Field(False, description="Only the code version of this moment takes its turns.")


class ReasonForm(Form):
    """Why something is done to an execution."""

    reason: str = Field("asked for through the API", description="Recorded in the history.")


class OnceForm(ReasonForm):
    """Why something is done to an execution, once."""

    request_id: str | None = Field(None, description="The same request under the same request id is carried out once.")


class SignalForm(Form):
    """A signal."""

    payload: Any = Field(None, description="What it carries.")
    request_id: str | None = Field(None, description="The same signal under the same request id arrives once.")


class SignalWithStartForm(Form):
    """A signal, and how to start the execution where there is none."""

    orchestrator: str = Field(description="Its persisted name.")
    input: dict[str, Any] = Field({}, description="Arguments by parameter name.")
    payload: Any = Field(None, description="What the signal carries.")
    id_reuse: IdReuse = Field("reject", description="What if an execution of that id has ended.")
    request_id: str | None = Field(None, description="The same request under the same request id happens once.")


class UpdateForm(Form):
    """A request for a reply."""

    payload: Any = Field(None, description="What it carries.")
    request_id: str | None = Field(None, description="The same update under the same request id is handled once.")
    timeout: float = Field(5.0, ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the reply.")


class ResetForm(OnceForm):
    """Where to go back to."""

    to_event: int = Field(ge=1, description="Number in the history of the last event to keep.")
    input: dict[str, Any] | None = Field(None, description="Other arguments; with event 1 only.")


class ForkForm(Form):
    """Another execution, with the history of this one up to an event."""

    execution_id: str = Field(description="Of the new execution.")
    to_event: int = Field(1, ge=1, description="Number in the history of the last event to keep.")
    input: dict[str, Any] | None = Field(None, description="Other arguments; with event 1 only.")
    request_id: str | None = Field(None, description="The same fork under the same request id happens once.")


F = TypeVar("F", bound=Form)
_WANTED = {
    "string_type": "a string",
    "dict_type": "an object",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def filled(form: type[F], fields: dict[str, Any]) -> F:
    """The form, filled in.

    Raises:
        ClientError: a field is missing, unknown, or not what it must be; the error names it.
    """
    try:
        return form.model_validate(fields)
    except ValidationError as error:
        raise ClientError(_complaint(form, error.errors(include_url=False)[0])) from error


def _complaint(form: type[Form], error: ErrorDetails) -> str:
    field = ".".join(map(str, error["loc"]))
    kind, got = error["type"], error["input"]
    match kind:
        case "missing":
            return f"The field {field} is missing."
        case "extra_forbidden":
            return f"Unknown field {field!r}; there are {', '.join(form.model_fields)}."
        case "literal_error":
            return f"{field} must be one of {error.get('ctx', {}).get('expected')}, got {got!r:.80}."
        case _ if kind in _WANTED:
            return f"{field} must be {_WANTED[kind]}, got {type(got).__name__}."
        case _:
            return f"{field}: {error['msg']}, got {got!r:.80}."
