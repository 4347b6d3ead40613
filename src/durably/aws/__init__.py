"""durably on AWS Lambda: a function's file is an import and `handler = ..._handler(...)`. Loaded when asked for, so
that each function imports only what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.aws.activity import activity_handler as activity_handler
    from durably.aws.api import api_handler as api_handler
    from durably.aws.callbacks import callbacks_handler as callbacks_handler
    from durably.aws.dead_letters import dead_letters_handler as dead_letters_handler
    from durably.aws.orchestrator import orchestrator_handler as orchestrator_handler
    from durably.aws.surroundings import Surroundings as Surroundings
    from durably.aws.sweeper import sweeper_handler as sweeper_handler
    from durably.aws.timers import timers_handler as timers_handler
    from durably.aws.triggers import trigger_handler as trigger_handler

_HOME_OF = {
    "Surroundings": "durably.aws.surroundings",
    "activity_handler": "durably.aws.activity",
    "api_handler": "durably.aws.api",
    "callbacks_handler": "durably.aws.callbacks",
    "dead_letters_handler": "durably.aws.dead_letters",
    "orchestrator_handler": "durably.aws.orchestrator",
    "sweeper_handler": "durably.aws.sweeper",
    "timers_handler": "durably.aws.timers",
    "trigger_handler": "durably.aws.triggers",
}

__all__ = [
    "Surroundings",
    "activity_handler",
    "api_handler",
    "callbacks_handler",
    "dead_letters_handler",
    "orchestrator_handler",
    "sweeper_handler",
    "timers_handler",
    "trigger_handler",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'durably.aws' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
