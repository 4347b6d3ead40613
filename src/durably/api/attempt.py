"""What a running activity may know of itself, and the callback that a callback activity hands on."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, cast

from durably.core.errors import DefinitionError
from durably.core.failures import Failure

T = TypeVar("T")

_logger = logging.getLogger("durably.activity")
_told: list[bool] = []


class Heart(Protocol):
    """What `heartbeat` and `last_heartbeat` speak to."""

    def beat(self, details: object, details_type: Any) -> None:
        """See `heartbeat`."""
        ...

    def last(self, details_type: Any) -> Any:
        """See `last_heartbeat`."""
        ...


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
        heartbeat_details: the last that were stored, by an attempt before or by this one before its process died, as
            plain JSON; see also `last_heartbeat`.
        heart: takes what `heartbeat` is given; None in a unit test.
    """

    execution_id: str
    activity: str
    attempt: int
    idempotency_key: str
    last_failure: Failure | None = None
    heartbeat_details: Any = None
    heart: Heart | None = field(default=None, repr=False, compare=False)


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


def heartbeat(details: object = None, *, details_type: Any = None) -> None:
    """Say that the calling activity is alive, and how far it got. Call it often: most calls cost nothing.

    One call in a quarter of `heartbeat_timeout` (at most 5 s) is stored at once; the details of the others are stored
    with the next that is, or with the attempt's failure. Only the death of the process loses them. A stored heartbeat
    writes to the store before it returns, in an `async def` activity, too.

    Outside a running activity, as in a unit test, it does nothing. Threads of the activity's own need its context
    (`asyncio.to_thread`, or `contextvars.copy_context().run`).

    Args:
        details: how far the attempt got, for the next one; None leaves what was said before.
        details_type: annotation of `details`, where its class does not say all, as in `list[Step]`.

    Raises:
        ActivityCancelledError: nobody waits for the attempt any more: the activity was cancelled, its execution ended,
            or the attempt was given up. Clean up and let it through; whatever the attempt returns is dropped.
        PayloadError: `details` cannot be stored as JSON, or have more than 64 KiB.
    """
    heart = _heart()
    if heart is not None:
        heart.beat(details, details_type)


def last_heartbeat(details_type: type[T]) -> T | None:
    """The details of `attempt_info().heartbeat_details` as their type; None if there are none.

    Raises:
        PayloadError: they do not fit the type. Catch it to begin afresh.
    """
    heart = _heart()
    return None if heart is None else cast("T | None", heart.last(details_type))


def _heart() -> Heart | None:
    info = current_attempt.get(None)
    if info is None and not _told:
        _told.append(True)
        _logger.info("heartbeat() was called outside a running activity, or in a thread without its context: no effect")
    return None if info is None else info.heart


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback(Generic[T]):
    """Where a callback activity's result is to be sent.

    POST the result as JSON to `url` (to `url + "/failure"` an object with `type` and `message`, to
    `url + "/heartbeat"` details; its answer says whether it is `cancelled`). T is the result's type.

    Attributes:
        url: absolute, with the token in it.
        token: the signed task token by itself.
        expires_at: when the callback is no longer accepted.
    """

    url: str
    token: str
    expires_at: datetime
