"""A registry: the orchestrators and activities that one process knows, by persisted name."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durably.api.activity import Activity, CallbackActivity
from durably.api.orchestrator import Orchestrator
from durably.core.errors import DefinitionError, UnknownOrchestratorError
from durably.core.execution import Program
from durably.core.payloads import ArgumentsShape, PayloadCodec, Shape

_OWN = "durably."
_VERSION = "DURABLY_CODE_VERSION"


@dataclass(frozen=True, slots=True)
class RunnableActivity:
    """An activity, prepared to be run."""

    activity: Activity[Any, Any]
    arguments: ArgumentsShape
    result: Shape

    @property
    def is_callback(self) -> bool:
        """Whether its function takes a callback first."""
        return isinstance(self.activity, CallbackActivity)

    @property
    def is_async(self) -> bool:
        """Whether what runs is an `async def`."""
        return inspect.iscoroutinefunction(self.activity.implementation)


class Registry:
    """Definitions by persisted name. Annotations are resolved here, so a mistake shows when a process starts.

    Args:
        orchestrators: declared with `@orchestrator`.
        activities: declared with `@activity` or `@callback_activity`.
        codec: prepares payload shapes.
        code_version: recorded with each turn; by default what the variable DURABLY_CODE_VERSION says, else a hash of
            the source files of the orchestrators.

    Raises:
        DefinitionError: two definitions share a name, or an annotation cannot be resolved.
    """

    def __init__(
        self,
        orchestrators: Iterable[Orchestrator[..., Any]] = (),
        activities: Iterable[Activity[..., Any]] = (),
        *,
        codec: PayloadCodec,
        code_version: str | None = None,
    ) -> None:
        self.codec = codec
        self._programs: dict[str, Program] = {}
        self._inputs: dict[str, ArgumentsShape] = {}
        self._activities: dict[str, RunnableActivity] = {}
        self._met_own = False
        sources: dict[str, Callable[..., Any]] = {}
        for definition in orchestrators:
            _check_kind(definition, Orchestrator)
            for name in self._add_orchestrator(definition):
                self._claim(name, definition.fn, sources)
        orchestrator_functions = list(sources.values())
        for activity in activities:
            _check_kind(activity, Activity)
            for name in self._add_activity(activity):
                self._claim(name, activity.implementation, sources)
        self.code_version = code_version or os.environ.get(_VERSION) or _hash_of(orchestrator_functions)

    @property
    def orchestrator_names(self) -> tuple[str, ...]:
        """Persisted names and aliases, sorted."""
        return tuple(sorted(self._programs))

    @property
    def activity_names(self) -> tuple[str, ...]:
        """Persisted names and aliases, sorted."""
        return tuple(sorted(self._activities))

    def program(self, name: str) -> Program | None:
        """The orchestrator of that name, or None."""
        self._meet(name)
        return self._programs.get(name)

    def activity(self, name: str) -> RunnableActivity | None:
        """The activity of that name, or None."""
        self._meet(name)
        return self._activities.get(name)

    def input_shape(self, orchestrator: str) -> ArgumentsShape:
        """The shape of an orchestrator's input.

        Raises:
            UnknownOrchestratorError: there is none of that name.
        """
        self._meet(orchestrator)
        shape = self._inputs.get(orchestrator)
        if shape is None:
            known = ", ".join(self.orchestrator_names) or "none"
            raise UnknownOrchestratorError(
                f"No orchestrator is named {orchestrator!r}. This process knows: {known}. Import its module and give "
                "it to whatever runs it: Embedded(orchestrators=[...]), the folders of `durably dev`, a handler."
            )
        return shape

    def _add_orchestrator(self, definition: Orchestrator[..., Any]) -> tuple[str, ...]:
        names = (definition.name, *definition.aliases)
        self._programs.update(dict.fromkeys(names, definition.program(self.codec)))
        self._inputs.update(dict.fromkeys(names, definition.arguments_shape(self.codec)))
        return names

    def _add_activity(self, activity: Activity[..., Any]) -> tuple[str, ...]:
        names = (activity.name, *activity.aliases)
        shapes = activity.arguments_shape(self.codec), activity.result_shape(self.codec)
        self._activities.update(dict.fromkeys(names, RunnableActivity(activity, *shapes)))
        return names

    def _meet(self, name: str) -> None:
        """Learn durably's own definitions, those behind schedules, when one of them is asked for first."""
        if name.startswith(_OWN) and not self._met_own:
            from durably.api.scheduler import find_instants, run_schedule

            self._add_orchestrator(run_schedule)
            self._add_activity(find_instants)
            self._met_own = True

    def _claim(self, name: str, fn: Callable[..., Any], taken: dict[str, Callable[..., Any]]) -> None:
        if name.startswith(_OWN):
            raise DefinitionError(
                f"{_place(fn)} cannot be named {name!r}: names that begin with {_OWN!r} are durably's."
            )
        other = taken.get(name)
        if other is not None and other is not fn:
            raise DefinitionError(
                f"{_place(fn)} and {_place(other)} share the persisted name {name!r}. "
                "Give one of them another one with name=..."
            )
        taken[name] = fn


def _check_kind(definition: object, kind: type[Orchestrator[..., Any]] | type[Activity[..., Any]]) -> None:
    if not isinstance(definition, kind):
        word = kind.__name__.lower()
        remedy = (
            f"Decorate it with @{word}." if inspect.isroutine(definition) else "Orchestrators and activities go apart."
        )
        raise DefinitionError(f"{definition!r} is given as an {word}, and is none. {remedy}")


def _place(fn: Callable[..., Any]) -> str:
    return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', fn)}"


def _hash_of(functions: Iterable[Callable[..., Any]]) -> str:
    digest = hashlib.sha256()
    for path in sorted({_source_of(fn) for fn in functions}):
        if path:
            digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:12]


def _source_of(fn: Callable[..., Any]) -> str:
    try:
        path = inspect.getsourcefile(fn)
    except TypeError:
        return ""
    return path if path is not None and Path(path).is_file() else ""
