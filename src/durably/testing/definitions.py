"""What a test may run: the orchestrators that it starts, the activities that these name, and mocks in their place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any, cast

from durably.api.activity import Activity
from durably.api.orchestrator import Orchestrator
from durably.api.registry import Registry, RunnableActivity
from durably.core.errors import DefinitionError
from durably.core.execution import Program
from durably.core.payloads import PayloadCodec

_SKIPPED = sys.stdlib_module_names | {"durably"}


class OpenRegistry(Registry):
    """A registry that takes an orchestrator when a test starts it, and finds its activities by itself.

    An activity that was neither given nor mocked is looked for in the modules of the orchestrators and in the modules
    that those name.
    """

    def __init__(
        self,
        orchestrators: Iterable[Orchestrator[..., Any]],
        activities: Iterable[Activity[..., Any]],
        *,
        codec: PayloadCodec,
    ) -> None:
        self._admitted = list(orchestrators)
        self._given = list(activities)
        self._stand_ins: dict[str, RunnableActivity] = {}
        self._codec = codec
        self._build()

    def admit(self, orchestrator: Orchestrator[..., Any]) -> None:
        """Take an orchestrator.

        Raises:
            DefinitionError: another one has its name.
        """
        if all(known.fn is not orchestrator.fn or known.name != orchestrator.name for known in self._admitted):
            self._admitted.append(orchestrator)
            try:
                self._build()
            except DefinitionError:
                self._admitted.pop()
                self._build()
                raise

    def orchestrator(self, name: str) -> Orchestrator[..., Any] | None:
        """The admitted orchestrator that runs under a name; None for one of durably's own."""
        return next((one for one in self._admitted if name in (one.name, *one.aliases)), None)

    def stand_in(self, names: Iterable[str], runnable: RunnableActivity) -> None:
        """Let `runnable` run under these names instead of whatever has them."""
        self._stand_ins.update(dict.fromkeys(names, runnable))

    def program(self, name: str) -> Program | None:
        """The orchestrator of that name: admitted, or named by one that is."""
        found = super().program(name)
        if found is None:
            for orchestrator in self._reachable(Orchestrator, name):
                self.admit(orchestrator)
            found = super().program(name)
        return found

    def activity(self, name: str) -> RunnableActivity | None:
        """The activity of that name: a stand-in, given, or named by an orchestrator.

        Raises:
            DefinitionError: several activities of that name can be reached.
        """
        found = self._stand_ins.get(name) or super().activity(name)
        if found is None:
            for activity in self._reachable(Activity, name):
                self._given.append(activity)
                self._build()
            found = super().activity(name)
        return found

    def _build(self) -> None:
        super().__init__(self._admitted, self._given, codec=self._codec, code_version="test")

    def _reachable(self, kind: type[Any], name: str) -> list[Any]:
        """The definitions of a kind and name that the admitted orchestrators can reach; one for each function."""
        found: dict[int, Any] = {}
        for definition in _definitions(self._admitted):
            if isinstance(definition, kind) and name in (definition.name, *definition.aliases):
                found.setdefault(id(cast(Any, definition).fn), definition)
        if len(found) > 1:
            places = ", ".join(sorted(f"{one.__module__}.{one.__qualname__}" for one in found.values()))
            raise DefinitionError(
                f"The orchestrator can reach several definitions named {name!r}: {places}. Say which one is meant: "
                "Environment(orchestrators=[...], activities=[...])."
            )
        return list(found.values())


def _definitions(roots: Iterable[Orchestrator[..., Any]]) -> Iterator[Orchestrator[..., Any] | Activity[..., Any]]:
    """What is found in the roots' closures and modules, and in the modules and functions named there, and so on."""
    waiting: list[Any] = list(roots)
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if _is_a(value, Orchestrator, Activity):
            definition = cast("Orchestrator[..., Any] | Activity[..., Any]", value)
            yield definition
            waiting.append(cast(Any, definition).fn)
        elif _is_a(value, FunctionType):
            waiting.extend(_closure(value))
            waiting.append(_module_of(value))
        elif _is_a(value, type):
            waiting.append(_module_of(value))
        elif _is_a(value, ModuleType) and value.__name__.partition(".")[0] not in _SKIPPED:
            waiting.extend(list(cast(ModuleType, value).__dict__.values()))


def _is_a(value: object, *kinds: type[Any]) -> bool:
    """`isinstance`, without asking a proxy's `__class__`, which may do anything."""
    return issubclass(type(value), kinds)


def _module_of(value: Any) -> ModuleType | None:
    name = getattr(value, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def _closure(fn: Callable[..., Any]) -> Iterator[Any]:
    for cell in getattr(fn, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a variable that is not bound yet
            continue
