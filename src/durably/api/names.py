"""Names and ids: what may be persisted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from durably.core.errors import DefinitionError, InvalidIdError
from durably.core.keys import PERSISTED_NAME

SCHEDULER = "durably.schedule"  # the orchestrator behind every schedule
_ID = re.compile(r"[A-Za-z0-9._:/@=+\-]{1,256}")


def check_name(name: str) -> str:
    """`name`, if it can be the persisted name of an activity or orchestrator.

    Raises:
        DefinitionError: it cannot.
    """
    if not PERSISTED_NAME.fullmatch(name):
        raise DefinitionError(
            f"{name!r} cannot be a persisted name: 1 to 128 letters, digits, '_', '.' and '-', not starting with a "
            "digit. Give the function another one with name=..."
        )
    return name


def check_execution_id(execution_id: object) -> str:
    """`execution_id`, if it can be one.

    Raises:
        InvalidIdError: it cannot.
    """
    if not isinstance(execution_id, str) or not _ID.fullmatch(execution_id):
        raise InvalidIdError(
            f"{execution_id!r} cannot be an execution id: 1 to 256 characters from A-Z a-z 0-9 . _ : / @ = + and -."
        )
    return execution_id


def persisted_name(fn: Callable[..., Any], name: str | None) -> str:
    """The name given, or the function's own.

    Raises:
        DefinitionError: there is none, or `fn` is a method declared in a class body.
    """
    qualified: str = getattr(fn, "__qualname__", "")
    bare: str | None = getattr(fn, "__name__", None)
    parent = qualified.rpartition(".")[0]
    if parent and not parent.endswith("<locals>") and not hasattr(fn, "__self__"):
        raise DefinitionError(
            f"{qualified} is a method. An instance cannot be stored in a history: decorate a function, or bind the "
            f"method first, `activity(service.{bare})`."
        )
    if name is None and (bare is None or bare == "<lambda>"):
        raise DefinitionError(f"{fn!r} has no name to persist. Give it one with name=...")
    return check_name(name if name is not None else str(bare))


def check_aliases(aliases: Iterable[str]) -> tuple[str, ...]:
    """Former persisted names under which running executions may still ask."""
    if isinstance(aliases, str):
        raise DefinitionError(f"aliases must be a sequence of names, got the string {aliases!r}.")
    return tuple(check_name(alias) for alias in aliases)
