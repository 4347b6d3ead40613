"""What boto3's errors mean: nothing done, perhaps done, never to be done. botocore is imported when one is raised."""

from __future__ import annotations

from typing import Any, cast

from durably.core.errors import StorageError

_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
    }
)
# Sending the same again to the same place can only fail again.
_PERMANENT = frozenset(
    {
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "AWS.SimpleQueueService.NonExistentQueue",
        "BatchRequestTooLong",
        "InvalidAddress",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "QueueDoesNotExist",
    }
)


def aws_errors() -> tuple[type[Exception], ...]:
    """All that a client raises: for an `except` clause, which asks only when something was raised."""
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError


def response_of(error: Exception) -> dict[str, Any]:
    """The service's answer; empty if there was none."""
    return cast("dict[str, Any]", getattr(error, "response", None) or {})


def code_of(error: Exception) -> str:
    """The service's error code; empty if it never answered."""
    return str(response_of(error).get("Error", {}).get("Code", ""))


def is_ambiguous(error: Exception) -> bool:
    """Whether the request may have been carried out: no answer came, or one of the service's own trouble."""
    from botocore.exceptions import ConnectionError as NotConnectedError
    from botocore.exceptions import HTTPClientError

    if isinstance(error, (NotConnectedError, HTTPClientError)):
        return True  # an earlier attempt of boto's may have arrived
    return int(response_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500


def is_permanent(code: str, *, sender_fault: bool = False) -> bool:
    """Whether a message with this error can never be sent."""
    return code in _PERMANENT or (
        sender_fault and code not in _THROTTLED and not code.startswith(("Kms", "AccessDenied"))
    )


def storage_error(what: str, error: Exception) -> StorageError:
    """The error that callers of the backend see."""
    reason = code_of(error) or type(error).__name__
    if reason in _THROTTLED:
        cause = "the service throttles; it recovers, or its limits want raising"
    elif is_ambiguous(error):
        cause = "the service did not answer in time; whether it acted is found out when the call is repeated"
    else:
        cause = "look at the function's permissions and at the names in its DURABLY_* variables"
    return StorageError(
        f"expected to {what}, but AWS answered {reason}: {error}; {cause}. The message returns by itself."
    )
