"""What a running activity may know of itself, and the callback that a callback activity hands on."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from durably.core.errors import DefinitionError
from durably.core.failures import Failure

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptInfo:
    """The attempt that is being run.

    Attributes:
        execution_id: of the execution that asked for it.
        activity: persisted name.
        attempt: 1-based.
        idempotency_key: the same for every attempt of this call and for no other call; hand it to services
            that drop duplicates.
        last_failure: of the attempt before, None for the first.
    """

    execution_id: str
    activity: str
    attempt: int
    idempotency_key: str
    last_failure: Failure | None = None


current_attempt: ContextVar[AttemptInfo] = ContextVar("durably_attempt")


def attempt_info() -> AttemptInfo:
    """The attempt that the calling activity is.

    Raises:
        DefinitionError: called outside an activity that durably runs.
    """
    try:
        return current_attempt.get()
    except LookupError:
        raise DefinitionError(
            "attempt_info() was called outside a running activity. In a unit test of an activity's function, set it "
            "through durably.api.attempt.current_attempt."
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback(Generic[T]):
    """Where a callback activity's result is to be sent.

    POST the result as JSON to `url` (to `url + "/failure"` an object with `type` and `message`). T is its type.

    Attributes:
        url: absolute, with the token in it.
        token: the signed task token by itself.
        expires_at: when the callback is no longer accepted.
    """

    url: str
    token: str
    expires_at: datetime
