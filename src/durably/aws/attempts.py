"""Running a user's activity within its time, in the one thread that a Lambda function has."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from dataclasses import replace
from functools import cache
from typing import Any

from durably.api.attempt import current_attempt
from durably.aws.limits import TimeLimit
from durably.aws.logs import log_keys
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

_GRACE_S = 0.5


def run_task(runtime: Runtime, delivery: Delivery, *, seconds: float) -> Answer | None:
    """Handle one activity task from receipt to answer; None where that is settled already.

    Args:
        runtime: the surroundings.
        delivery: of an `ActivityTask`.
        seconds: the most that this process can give it; an attempt that needs longer is timed out.

    Raises:
        ContendedError: its item changed meanwhile; the delivery is to be handled again.
        StorageError: the store refused.
    """
    opened = open_attempt(runtime, delivery)
    if not isinstance(opened, Attempt):
        return opened
    limit_ms = max(1, round(seconds * 1000))
    attempt = replace(opened, timeout_ms=min(limit_ms, opened.timeout_ms or limit_ms))
    task = attempt.task
    with log_keys(execution_id=task.run.execution_id, activity=task.name, attempt=task.attempt):
        return _run(runtime, attempt)


def _run(runtime: Runtime, attempt: Attempt) -> Answer | None:
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
        return attempt_timed_out(runtime, attempt)
    if failure is not None:
        return attempt_raised(runtime, attempt, failure)
    return attempt_returned(runtime, attempt, value)


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
