"""`python -m tests.golden.record [NAME ...]` records golden histories, all of them or those named, as they run today.

A golden history is what executions in production look like. Each story has a module of its name beside this one: its
`PATHS`, functions that take an execution along one path in an `Environment` with every activity mocked, and the
`ORCHESTRATORS` that replay them. Record a history when a story gets a new path, and keep those that are there: one that
no longer replays means that running executions would stall after an upgrade.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from demo.story import STORIES
from durably import Orchestrator
from durably.testing import Environment

HERE = Path(__file__).parent
TOLD = tuple(story for story in STORIES if (HERE / f"{story}.py").is_file())


def paths() -> dict[str, Callable[[Environment], None]]:
    """All paths of all stories, by the name of their history."""
    return {f"{story}_{path.__name__}": path for story in TOLD for path in _module(story).PATHS}


def orchestrators() -> list[Orchestrator[..., Any]]:
    """Those of all stories."""
    return [orchestrator for story in TOLD for orchestrator in _module(story).ORCHESTRATORS]


def recorded(path: Callable[[Environment], None]) -> str:
    """The history of the execution that a path starts last, without what is true of this machine only."""
    with Environment(run_activities=False) as env:
        path(env)
        document = json.loads(env.export())
    _strip_stacks(document)
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def file_of(name: str) -> Path:
    """Where the history of a path is kept."""
    return HERE / f"{name}.json"


def _module(story: str) -> Any:
    return import_module(f"tests.golden.{story}")


def _strip_stacks(value: Any) -> None:
    if isinstance(value, dict):
        value.pop("stack", None)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _strip_stacks(item)


def main(names: list[str]) -> None:
    known = paths()
    for name in names or known:
        file_of(name).write_text(recorded(known[name]), encoding="utf-8")
        print(file_of(name).relative_to(Path.cwd()))


if __name__ == "__main__":
    main(sys.argv[1:])
