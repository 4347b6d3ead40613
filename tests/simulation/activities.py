"""The activities that random programs call. What the outside world does about them is told to `outside`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from durably.api.activity import activity, callback_activity
from durably.api.attempt import AttemptInfo, Callback, attempt_info
from durably.core.errors import NonRetryableError, RetryAfterError
from durably.core.retry import RetryPolicy

if TYPE_CHECKING:
    from tests.simulation.hearts import Hearts


class Outside(Protocol):
    """Who hears of requests that activities hand over, and of their heartbeats."""

    hearts: Hearts

    def asked(self, callback: Callback[int], n: int, plan: str, attempt: AttemptInfo) -> None: ...

    def invited(self, name: str, n: int, size: int, what: str, attempt: AttemptInfo) -> None: ...


_outside: list[Outside] = []


def face(outside: Outside) -> None:
    """From now on requests go to `outside`."""
    _outside[:] = [outside]


def outside() -> Outside:
    """Who hears of it."""
    return _outside[0]


def answer(n: int) -> int:
    """What an activity with argument `n` returns."""
    return n * 7 + 1


@activity
def work(n: int) -> int:
    return answer(n)


@activity
async def work_async(n: int) -> int:
    return answer(n)


@activity(local=True)
def work_here(n: int) -> int:
    return answer(n)


@activity(retry=RetryPolicy(max_attempts=6))
def flaky(n: int, failures: int) -> int:
    if attempt_info().attempt <= failures:
        raise OSError("not yet")
    return answer(n)


@activity(retry=RetryPolicy(max_attempts=2, jitter=False))
def failing(n: int) -> int:
    raise ValueError(f"no {n}")


@activity(retry=RetryPolicy(max_attempts=5, non_retryable=[LookupError]))
def hopeless(n: int) -> int:
    raise KeyError(n)


@activity
def refusing(n: int) -> int:
    raise NonRetryableError(f"never {n}")


@activity
def patient(n: int) -> int:
    if attempt_info().attempt == 1:
        raise RetryAfterError("busy", seconds=3)
    return answer(n)


@activity(at_most_once=True, retry=RetryPolicy(max_attempts=3))
def once(n: int, failures: int) -> int:
    if attempt_info().attempt <= failures:
        raise OSError("not yet")
    return answer(n)


@activity(retry=RetryPolicy(max_attempts=2))
def unserialisable(n: int) -> int:
    value: Any = 1j
    return value  # type: ignore[no-any-return]


@activity(timeout=timedelta(seconds=5), retry=RetryPolicy(max_attempts=2))
def overrun(n: int) -> int:
    return answer(n)


@activity(schedule_to_close=timedelta(seconds=40), retry=RetryPolicy(max_attempts=4))
def hurried(n: int) -> int:
    if attempt_info().attempt == 1:
        raise OSError("not yet")
    return answer(n)


@activity
def do(saga: str, step: int) -> None:
    """A step of a saga."""


@activity(retry=RetryPolicy(max_attempts=2))
def undo(saga: str, step: int, fails: bool) -> None:
    """Its compensation."""
    if fails or (step and attempt_info().attempt == 1):
        raise ValueError(f"step {step} stays done")


@callback_activity(timeout=timedelta(hours=6))
def ask(callback: Callback[int], n: int, plan: str) -> None:
    _outside[0].asked(callback, n, plan, attempt_info())


@callback_activity
def ask_for_ever(callback: Callback[int], n: int, plan: str) -> None:
    _outside[0].asked(callback, n, plan, attempt_info())


@callback_activity(timeout=timedelta(seconds=5))
def ask_briefly(callback: Callback[int], n: int, plan: str) -> None:
    _outside[0].asked(callback, n, plan, attempt_info())


@callback_activity(timeout=timedelta(seconds=60), retry=RetryPolicy(max_attempts=3))
def ask_again(callback: Callback[int], n: int, plan: str) -> None:
    _outside[0].asked(callback, n, plan, attempt_info())


@activity
def invite(name: str, n: int, size: int, what: str) -> None:
    """Ask for so many signals, or for updates, of a name."""
    _outside[0].invited(name, n, size, what, attempt_info())


ACTIVITIES = (
    *(work, work_async, work_here, flaky, failing, hopeless, refusing, patient, once, unserialisable, overrun),
    *(hurried, do, undo, ask, ask_for_ever, ask_briefly, ask_again, invite),
)
