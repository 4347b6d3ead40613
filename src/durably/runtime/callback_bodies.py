"""What is posted to a callback's address, whichever server takes it: bodies in, statuses out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from durably.core.errors import PayloadError
from durably.core.failures import Failure
from durably.runtime.callbacks import CallbackAnswer, Verdict, beat_callback, complete_callback, fail_callback
from durably.runtime.runtime import Runtime

STATUS: dict[Verdict, int] = {
    "accepted": 200,
    "invalid": 400,
    "unauthorised": 401,
    "conflict": 409,
    "gone": 410,
    "too large": 413,
}
_FIELDS: dict[str, type] = {"type": str, "message": str, "non_retryable": bool}


def complete_with_body(runtime: Runtime, token: str, body: bytes) -> CallbackAnswer:
    """Complete a callback with a body of JSON; an empty body is null."""
    return _refusing(lambda: complete_callback(runtime, token, json_of(body) or "null"))


def fail_with_body(runtime: Runtime, token: str, body: bytes) -> CallbackAnswer:
    """Fail a callback with a body of JSON: an object of `type`, `message` and `non_retryable`, all optional."""
    return _refusing(lambda: fail_callback(runtime, token, failure_in(body)))


def beat_with_body(runtime: Runtime, token: str, body: bytes) -> CallbackAnswer:
    """A heartbeat with details as a body of JSON; an empty body leaves them as they are."""
    return _refusing(lambda: beat_callback(runtime, token, json_of(body)))


def json_of(body: bytes) -> str | None:
    """A body as JSON text, compact; None for an empty one.

    Raises:
        PayloadError: it is not JSON, or none that can be stored.
    """
    if not body.strip():
        return None
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The body is not JSON that can be stored: {error}.") from error
    return text


def failure_in(body: bytes) -> Failure:
    """The failure that a body describes.

    Raises:
        PayloadError: it does not.
    """
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The body is not JSON that can be stored: {error}.") from error
    if not isinstance(value, dict):
        raise PayloadError('The body must be an object: {"type": "...", "message": "..."}.')
    fields = cast("dict[str, Any]", value)
    for name, given in fields.items():
        wanted = _FIELDS.get(name)
        if wanted is None:
            raise PayloadError(f"Unknown field {name!r}; there are {', '.join(_FIELDS)}.")
        if not isinstance(given, wanted):
            raise PayloadError(f"{name} must be a {wanted.__name__}, got {type(given).__name__}.")
    return Failure(
        type=fields.get("type", "CallbackFailed"),
        message=fields.get("message", ""),
        non_retryable=fields.get("non_retryable") or None,
    )


def _refusing(settle: Callable[[], CallbackAnswer]) -> CallbackAnswer:
    try:
        return settle()
    except PayloadError as error:
        return CallbackAnswer("invalid", str(error))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
