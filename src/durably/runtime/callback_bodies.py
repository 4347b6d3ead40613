"""What is posted to a callback's address, whichever server takes it: bodies in, statuses out."""

from __future__ import annotations

import json
from typing import Any, cast

from durably.core.failures import Failure
from durably.runtime.callbacks import CallbackAnswer, Verdict, complete_callback, fail_callback
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
    try:
        value = json.loads(body, parse_constant=_refuse_constant) if body.strip() else None
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        return CallbackAnswer("invalid", f"The body is not JSON that can be stored: {error}.")
    return complete_callback(runtime, token, text)


def fail_with_body(runtime: Runtime, token: str, body: bytes) -> CallbackAnswer:
    """Fail a callback with a body of JSON: an object of `type`, `message` and `non_retryable`, all optional."""
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return CallbackAnswer("invalid", f"The body is not JSON that can be stored: {error}.")
    if not isinstance(value, dict):
        return CallbackAnswer("invalid", 'The body must be an object: {"type": "...", "message": "..."}.')
    fields = cast("dict[str, Any]", value)
    for name, given in fields.items():
        wanted = _FIELDS.get(name)
        if wanted is None:
            return CallbackAnswer("invalid", f"Unknown field {name!r}; there are {', '.join(_FIELDS)}.")
        if not isinstance(given, wanted):
            return CallbackAnswer("invalid", f"{name} must be a {wanted.__name__}, got {type(given).__name__}.")
    failure = Failure(
        type=fields.get("type", "CallbackFailed"),
        message=fields.get("message", ""),
        non_retryable=fields.get("non_retryable") or None,
    )
    return fail_callback(runtime, token, failure)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
