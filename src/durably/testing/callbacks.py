"""Callbacks that a test completes by hand, as whoever was given their address would over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from durably.core.failures import Failure, failure_of
from durably.ports.tokens import TokenClaims
from durably.runtime.attempt import FOR_EVER_MS, Attempt
from durably.runtime.callbacks import CallbackAnswer, complete_callback, fail_callback
from durably.runtime.runtime import Runtime
from durably.testing.errors import CallbackRefusedError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCallback(Generic[T]):
    """A callback that was open when it was asked for.

    Attributes:
        activity: persisted name.
        arguments: of the activity, by parameter name.
        attempt: 1-based.
        token: the task token, as the activity got it.
    """

    activity: str
    arguments: dict[str, Any]
    attempt: int
    execution_id: str
    token: str
    _attempt: Attempt
    _runtime: Runtime
    _settle: Callable[[], None]

    def complete(self, value: T, /) -> None:
        """Bring `value`, and let the execution go on.

        Raises:
            CallbackRefusedError: too late, or another value was brought before.
            PayloadError: `value` does not fit what the callback takes.
        """
        text = self._attempt.runnable.result.encode(value)
        self._heed(complete_callback(self._runtime, self.token, text))

    def fail(self, error: BaseException | str = "failed by the test", /) -> None:
        """Say that it failed; the activity's retry policy decides what comes of it.

        Raises:
            CallbackRefusedError: too late, or something else was brought before.
        """
        failure = Failure(type="CallbackFailed", message=error) if isinstance(error, str) else failure_of(error)
        self._heed(fail_callback(self._runtime, self.token, failure))

    def _heed(self, answer: CallbackAnswer) -> None:
        if answer.verdict != "accepted":
            raise CallbackRefusedError(
                f"The callback of {self.activity} (attempt {self.attempt}, execution {self.execution_id}) was refused "
                f"as {answer.verdict}: {answer.message}"
            )
        self._settle()


def callback_of(runtime: Runtime, attempt: Attempt, settle: Callable[[], None]) -> OpenCallback[Any]:
    """The callback that an attempt was given."""
    item = attempt.item
    assert item is not None
    expires_at_ms = FOR_EVER_MS if item.deadline_ms is None else item.deadline_ms
    _, arguments = attempt.runnable.arguments.decode(attempt.task.input)
    return OpenCallback(
        activity=attempt.task.name,
        arguments=arguments,
        attempt=attempt.task.attempt,
        execution_id=attempt.task.run.execution_id,
        token=runtime.signer.sign(TokenClaims(key=item.key, attempt=item.attempt, expires_at_ms=expires_at_ms)),
        _attempt=attempt,
        _runtime=runtime,
        _settle=settle,
    )


def is_open(runtime: Runtime, attempt: Attempt) -> bool:
    """Whether an attempt's callback would still be accepted."""
    record = runtime.backend.read_record(attempt.task.run.execution_id)
    if record is None or record.closed or record.key != attempt.task.run:
        return False
    item = runtime.backend.read_item(attempt.task.key)
    return item is not None and item.state == "open" and item.attempt == attempt.task.attempt
