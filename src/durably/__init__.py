"""durably: durable functions for Python. What users import; everything is loaded when first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.api.activity import Activity as Activity
    from durably.api.activity import activity as activity
    from durably.api.activity import callback_activity as callback_activity
    from durably.api.attempt import AttemptInfo as AttemptInfo
    from durably.api.attempt import Callback as Callback
    from durably.api.attempt import attempt_info as attempt_info
    from durably.api.attempt import heartbeat as heartbeat
    from durably.api.attempt import last_heartbeat as last_heartbeat
    from durably.api.orchestrator import Orchestrator as Orchestrator
    from durably.api.orchestrator import orchestrator as orchestrator
    from durably.api.registry import Registry as Registry
    from durably.client import Client as Client
    from durably.core.channels import Query as Query
    from durably.core.channels import Signal as Signal
    from durably.core.channels import Update as Update
    from durably.core.context import Context as Context
    from durably.core.errors import ActivityCancelledError as ActivityCancelledError
    from durably.core.errors import ActivityError as ActivityError
    from durably.core.errors import ActivityNotAwaitedError as ActivityNotAwaitedError
    from durably.core.errors import ActivityTimeoutError as ActivityTimeoutError
    from durably.core.errors import AttemptLostError as AttemptLostError
    from durably.core.errors import ChildError as ChildError
    from durably.core.errors import DefinitionError as DefinitionError
    from durably.core.errors import DurablyError as DurablyError
    from durably.core.errors import ExecutionCancelledError as ExecutionCancelledError
    from durably.core.errors import ExecutionClosedError as ExecutionClosedError
    from durably.core.errors import ExecutionExistsError as ExecutionExistsError
    from durably.core.errors import ExecutionFailedError as ExecutionFailedError
    from durably.core.errors import ExecutionNotFoundError as ExecutionNotFoundError
    from durably.core.errors import ExecutionOpenError as ExecutionOpenError
    from durably.core.errors import NonRetryableError as NonRetryableError
    from durably.core.errors import PayloadError as PayloadError
    from durably.core.errors import QueryError as QueryError
    from durably.core.errors import ReadOnlyError as ReadOnlyError
    from durably.core.errors import ResultTimeoutError as ResultTimeoutError
    from durably.core.errors import RetryAfterError as RetryAfterError
    from durably.core.errors import SignalError as SignalError
    from durably.core.errors import UpdateFailedError as UpdateFailedError
    from durably.core.errors import UpdateRejectedError as UpdateRejectedError
    from durably.core.failures import Failure as Failure
    from durably.core.others import ChildHandle as ChildHandle
    from durably.core.retry import RetryPolicy as RetryPolicy
    from durably.core.saga import Saga as Saga
    from durably.core.saga import SagaCompensationError as SagaCompensationError
    from durably.descriptions import Description as Description
    from durably.handles import Handle as Handle

_HOMES = {
    "durably.api.activity": ("Activity", "activity", "callback_activity"),
    "durably.api.attempt": ("AttemptInfo", "Callback", "attempt_info", "heartbeat", "last_heartbeat"),
    "durably.api.orchestrator": ("Orchestrator", "orchestrator"),
    "durably.api.registry": ("Registry",),
    "durably.client": ("Client",),
    "durably.core.channels": ("Query", "Signal", "Update"),
    "durably.core.context": ("Context",),
    "durably.core.errors": (
        "ActivityCancelledError",
        "ActivityError",
        "ActivityNotAwaitedError",
        "ActivityTimeoutError",
        "AttemptLostError",
        "ChildError",
        "DefinitionError",
        "DurablyError",
        "ExecutionCancelledError",
        "ExecutionClosedError",
        "ExecutionExistsError",
        "ExecutionFailedError",
        "ExecutionNotFoundError",
        "ExecutionOpenError",
        "NonRetryableError",
        "PayloadError",
        "QueryError",
        "ReadOnlyError",
        "ResultTimeoutError",
        "RetryAfterError",
        "SignalError",
        "UpdateFailedError",
        "UpdateRejectedError",
    ),
    "durably.core.failures": ("Failure",),
    "durably.core.others": ("ChildHandle",),
    "durably.core.retry": ("RetryPolicy",),
    "durably.core.saga": ("Saga", "SagaCompensationError"),
    "durably.descriptions": ("Description",),
    "durably.handles": ("Handle",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Activity",
    "ActivityCancelledError",
    "ActivityError",
    "ActivityNotAwaitedError",
    "ActivityTimeoutError",
    "AttemptInfo",
    "AttemptLostError",
    "Callback",
    "ChildError",
    "ChildHandle",
    "Client",
    "Context",
    "DefinitionError",
    "Description",
    "DurablyError",
    "ExecutionCancelledError",
    "ExecutionClosedError",
    "ExecutionExistsError",
    "ExecutionFailedError",
    "ExecutionNotFoundError",
    "ExecutionOpenError",
    "Failure",
    "Handle",
    "NonRetryableError",
    "Orchestrator",
    "PayloadError",
    "Query",
    "QueryError",
    "ReadOnlyError",
    "Registry",
    "ResultTimeoutError",
    "RetryAfterError",
    "RetryPolicy",
    "Saga",
    "SagaCompensationError",
    "Signal",
    "SignalError",
    "Update",
    "UpdateFailedError",
    "UpdateRejectedError",
    "activity",
    "attempt_info",
    "callback_activity",
    "heartbeat",
    "last_heartbeat",
    "orchestrator",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'durably' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
