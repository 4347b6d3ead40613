"""Running a user's activity within its time, in the one thread that a Lambda function has."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeAlias, TypeVar

from durably.api.attempt import current_attempt
from durably.aws.limits import TimeLimit
from durably.aws.logs import log_keys
from durably.core.errors import StorageError
from durably.ports.messages import Delivery
from durably.runtime.attempt import (
    Answer,
    Attempt,
    attempt_raised,
    attempt_returned,
    attempt_timed_out,
    open_attempt,
)
from durably.runtime.runtime import Runtime

_logger = logging.getLogger("durably.activity")
_GRACE_S = 0.5
_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)

T = TypeVar("T")
Ending: TypeAlias = Callable[[], Answer | None]


def _at_once(ending: Ending) -> Answer | None:
    return ending()


def persistently(settle: Callable[[], T], *, seconds_left: Callable[[], float], sleep: Callable[[float], None]) -> T:
    """Settle how an attempt ended, and do it again while the store refuses and there is time: else all that the
    attempt did would be done again.

    Raises:
        StorageError: the store refused to the end.
    """
    for pause_s in _PAUSES_S:
        try:
            return settle()
        except StorageError as error:
            if seconds_left() < pause_s + _GRACE_S:
                raise
            _logger.warning("could not store how an attempt ended, trying again in %g s: %s", pause_s, error)
        sleep(pause_s)
    return settle()


def run_task(
    runtime: Runtime, delivery: Delivery, *, seconds: float, settle: Callable[[Ending], Answer | None] = _at_once
) -> Answer | None:
    """Handle one activity task from receipt to answer; None where that is settled already.

    Args:
        runtime: the surroundings.
        delivery: of an `ActivityTask`.
        seconds: the most that this process can give it; an attempt that needs longer is timed out.
        settle: does what is to be done about the attempt's end.

    Raises:
        ContendedError: its item changed meanwhile; the delivery is to be handled again.
        StorageError: the store refused.
    """
    opened = open_attempt(runtime, delivery, within_ms=max(1, round(seconds * 1000)))
    if not isinstance(opened, Attempt):
        return opened
    task = opened.task
    with log_keys(execution_id=task.run.execution_id, activity=task.name, attempt=task.attempt):
        return settle(_ran(runtime, opened))


def _ran(runtime: Runtime, attempt: Attempt) -> Ending:
    """Run the function; what is to be done about its end."""
    assert attempt.timeout_ms is not None
    seconds = attempt.timeout_ms / 1000
    context = contextvars.copy_context()
    context.run(current_attempt.set, attempt.info)
    failure: BaseException | None = None
    value: Any = None
    # a coroutine is cancelled first, and interrupted where it does not heed that
    limit = TimeLimit(seconds + (_GRACE_S if attempt.is_async else 0))
    try:
        with limit:
            value = context.run(_call, attempt, seconds)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's SystemExit must not end the process either
        failure = error
    if limit.exceeded and attempt.is_async:
        _forget_loop()
    if limit.exceeded or isinstance(failure, _CancelledInTimeError):
        return partial(attempt_timed_out, runtime, attempt)
    if failure is not None:
        return partial(attempt_raised, runtime, attempt, failure)
    return partial(attempt_returned, runtime, attempt, value)


class _CancelledInTimeError(BaseException):
    """A coroutine was cancelled at its deadline."""


def _call(attempt: Attempt, seconds: float) -> Any:
    value = attempt.call()
    if not inspect.isawaitable(value):
        return value
    return _runner().run(_within(value, seconds), context=contextvars.copy_context())


async def _within(value: Any, seconds: float) -> Any:
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            return await value
    except TimeoutError:
        if timeout.expired():
            raise _CancelledInTimeError from None
        raise


@cache
def _runner() -> asyncio.Runner:
    """One loop per process: what an activity keeps between its attempts (a session, a pool) stays usable."""
    return asyncio.Runner()


def _forget_loop() -> None:
    """A loop that was interrupted somewhere is not to be used again, nor can it be shut down in order."""
    _runner().get_loop().close()
    _runner.cache_clear()
