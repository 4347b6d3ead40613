"""Every error that durably raises, by who has to act. Each message says what was expected and what to do.

An error whose base is `Stall` means: the code cannot take this turn. It is not an `Exception`, so that
`except Exception` in an orchestrator cannot swallow it.
"""

from __future__ import annotations

import builtins

from durably.core.failures import Failure


class DurablyError(Exception):
    """Base of the errors durably raises on purpose."""


# --- the author of orchestrators and activities has to act ------------------------------------------------


class DefinitionError(DurablyError):
    """A function or an option cannot be what it is declared to be."""


class PayloadError(DurablyError):
    """A value does not fit its annotation, or would come back from JSON as something else.

    Attributes:
        path: where in the value, `order.lines[2].price`; empty for the value itself.
    """

    non_retryable = True

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class NotDurableError(DurablyError):
    """An orchestrator asked for something that cannot survive a replay (threads, sockets, subprocesses)."""


class Stall(BaseException):
    """The code cannot take its turn; the execution keeps its events and waits for a fixed version."""


class NonDeterminismError(Stall):
    """On replay the orchestrator asked for something else than its history holds (promise P3)."""


class TurnLimitError(Stall):
    """A turn ran longer than its budget of steps or seconds, or exhausted stack or memory."""


class TurnTimeoutError(TurnLimitError):
    """A turn ran longer than its budget of seconds."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "The orchestrator ran longer than a turn may take without waiting for anything durable. It probably "
            "loops or computes for long. Move long work into an @activity; the execution then resumes by itself."
        )


class DeadlyTurnError(TurnLimitError):
    """A turn ended its process at each of its tries."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "The process that took this turn died at each of its tries, so its code is not run again for now. "
            "Look for what ends the process (memory, os._exit, a crash in an extension module)."
        )


class UndecodableError(Stall):
    """A recorded payload no longer fits the annotation that it is read with."""


class MissingDefinitionError(Stall):
    """A history names an orchestrator that this process does not have."""


# --- what an orchestrator sees when something it awaits goes wrong ----------------------------------------


class ActivityError(DurablyError):
    """An activity failed for good. `__cause__` rebuilds the chain of what was raised there.

    Attributes:
        activity: the activity's name.
        failure: the serialised exception, with its stack.
        attempt: the last attempt, 1-based.
    """

    def __init__(self, activity: str, failure: Failure, attempt: int = 1) -> None:
        super().__init__(f"activity {activity} failed at attempt {attempt}: {failure}")
        self.activity = activity
        self.failure = failure
        self.attempt = attempt
        self.__cause__ = _remote(failure)

    @property
    def type(self) -> str:
        """Qualified name of the class that the activity raised."""
        return self.failure.type

    def matches(self, cls: str | builtins.type[BaseException]) -> bool:
        """Whether the activity raised `cls` (a class or a name) or a subclass of it."""
        return self.failure.matches(cls)


class ChildError(ActivityError):
    """A child execution could not be started, failed, was cancelled or terminated.

    Attributes:
        activity: the child's orchestrator.
        execution_id: the child.
        failure: why.
    """

    def __init__(self, orchestrator: str, execution_id: str, failure: Failure) -> None:
        super().__init__(orchestrator, failure)
        self.execution_id = execution_id
        self.args = (f"child {execution_id} ({orchestrator}) failed: {failure}",)


class SignalError(DurablyError):
    """A signal to another execution reached nobody.

    Attributes:
        execution_id: whom it was for.
        failure: why.
    """

    def __init__(self, execution_id: str, failure: Failure) -> None:
        super().__init__(f"signal to {execution_id} failed: {failure}")
        self.execution_id = execution_id
        self.failure = failure


class ReadOnlyError(DurablyError):
    """The handler of a query, or the validator of an update, asked for something that would change the execution."""


class RemoteError(DurablyError):
    """One link in the cause chain of an error that was raised in another process.

    Attributes:
        failure: that link, serialised.
    """

    passes_failure_on = True

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure
        if failure.cause is not None:
            self.__cause__ = RemoteError(failure.cause)


def _remote(failure: Failure) -> BaseException:
    if not failure.members:
        return RemoteError(failure)
    group = BaseExceptionGroup(failure.message or failure.type, [_remote(member) for member in failure.members])
    if failure.cause is not None:
        group.__cause__ = RemoteError(failure.cause)
    return group


# --- what an activity may raise to steer its retries ------------------------------------------------------


class NonRetryableError(DurablyError):
    """Raised by an activity: do not try again, whatever the policy says."""

    non_retryable = True


class RetryAfterError(DurablyError):
    """Raised by an activity: try again (if the policy allows another attempt) after `seconds`."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.retry_after_ms = max(0, round(seconds * 1000))


class ActivityTimeoutError(DurablyError):
    """An activity exceeded start-to-close, schedule-to-start, schedule-to-close, its heartbeat or callback deadline."""

    def __init__(self, message: str, *, non_retryable: bool = False) -> None:
        super().__init__(message)
        self.non_retryable = non_retryable


class ActivityCancelledError(BaseException):
    """Raised by `heartbeat()` in an activity: nobody waits for this attempt any more. Clean up, and let it through.

    Whatever the attempt returns or raises from now on is dropped. Like `KeyboardInterrupt` it is no `Exception`, so
    that `except Exception` around one step of many does not swallow it.
    """


class AttemptLostError(DurablyError):
    """An at-most-once attempt was claimed and never reported: whether it ran to its end is unknown."""


# --- the caller of the client has to act --------------------------------------------------------------------


class ClientError(DurablyError):
    """Base of what a caller can get wrong."""


class InvalidIdError(ClientError):
    """An execution id has characters or a length that no backend could store."""


class ExecutionExistsError(ClientError):
    """The id is taken and the reuse policy does not allow another life."""


class ExecutionNotFoundError(ClientError):
    """No execution has this id."""


class ExecutionOpenError(ClientError):
    """The execution is open; only what has ended can be purged."""


class ExecutionClosedError(ClientError):
    """The execution is closed; it accepts nothing more."""


class ActivityNotAwaitedError(ClientError):
    """No callback of the activity is awaited: it has none, it is over, or another result was recorded for it."""


class NothingToRetryError(ClientError):
    """The execution is open, or it completed."""


class UnknownOrchestratorError(ClientError):
    """A start names an orchestrator that the registry does not hold."""


class ExecutionFailedError(ClientError):
    """`Handle.result()` of an execution that failed or was terminated.

    Attributes:
        execution_id: which one.
        failure: why.
    """

    def __init__(self, execution_id: str, failure: Failure) -> None:
        super().__init__(f"execution {execution_id} did not complete: {failure}")
        self.execution_id = execution_id
        self.failure = failure
        self.__cause__ = _remote(failure)


class ExecutionCancelledError(ExecutionFailedError):
    """`Handle.result()` of an execution that was cancelled."""


class QueryError(ClientError):
    """A query has no answer: no handler of that name, or the handler raised."""


class UpdateRejectedError(ClientError):
    """An update was refused by its validator, or nobody handles it. It left nothing in the history.

    Attributes:
        failure: why.
    """

    def __init__(self, execution_id: str, failure: Failure) -> None:
        super().__init__(f"execution {execution_id} rejected the update: {failure.message}")
        self.execution_id = execution_id
        self.failure = failure


class UpdateFailedError(ClientError):
    """An update was accepted, and its handler raised.

    Attributes:
        failure: what.
    """

    def __init__(self, execution_id: str, failure: Failure) -> None:
        super().__init__(f"execution {execution_id} failed the update: {failure}")
        self.execution_id = execution_id
        self.failure = failure
        self.__cause__ = _remote(failure)


class ResultTimeoutError(ClientError, TimeoutError):
    """The execution did not close within the time given to `Handle.result()`."""


# --- the operator has to act ----------------------------------------------------------------------------------


class StorageError(DurablyError):
    """The store cannot be read or written (corrupt, read-only, full). Nothing was half-applied."""


class ContendedError(DurablyError):
    """Others kept changing the same item. Nothing was done; the message is to be handled again."""


class ConfigurationError(DurablyError):
    """The process was set up in a way that cannot work."""


# --- task tokens ------------------------------------------------------------------------------------------


class TokenError(DurablyError):
    """A task token is malformed, forged, or was signed for another deployment."""
