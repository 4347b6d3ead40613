"""Finds definitions: imports the modules under files and folders and collects the orchestrators and activities.

What a module is called follows from where it lies, so that `from activities.routing import get_route` means the same
module here and in the user's code: the folder that holds its outermost package goes on `sys.path`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from durably.api.activity import Activity
from durably.api.orchestrator import Orchestrator
from durably.core.errors import ConfigurationError, DefinitionError
from durably.on import Trigger

_ASIDE = frozenset({"__pycache__", "node_modules", "site-packages", "tests", "venv"})
_NOT_DEFINITIONS = frozenset({"__main__.py", "conftest.py", "setup.py"})


class ImportFailedError(DefinitionError):
    """A file cannot be imported. `__cause__` is what it raised.

    Attributes:
        file: which one.
    """

    def __init__(self, file: Path, error: BaseException) -> None:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        super().__init__(f"{_shown(file)} cannot be imported: {type(error).__name__}: {what} ({_place(error, file)})")
        self.file = file
        self.__cause__ = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """What was found, each definition once, in the order found."""

    orchestrators: tuple[Orchestrator[..., Any], ...]
    activities: tuple[Activity[..., Any], ...]
    triggers: tuple[Trigger[Any], ...] = ()


def discover(paths: Sequence[str | os.PathLike[str]]) -> Definitions:
    """Import every module under `paths` (files and folders) and collect its definitions.

    Raises:
        ConfigurationError: a path does not exist, or is neither a folder nor a Python file.
        ImportFailedError: a file cannot be imported.
    """
    importlib.invalidate_caches()
    modules: dict[Path, ModuleType] = {}
    for path in paths:
        for file in python_files(path):
            if file not in modules:
                modules[file] = _import(file, _root(file, Path(path).resolve()))
    return _collect(modules.values())


def python_files(path: str | os.PathLike[str]) -> list[Path]:
    """The Python files that a path stands for: itself, or those of a folder, without tests and hidden ones.

    Raises:
        ConfigurationError: the path does not exist, or is neither a folder nor a Python file.
    """
    given = Path(path)
    resolved = given.resolve()
    if resolved.is_dir():
        return [file for file in _walk(resolved) if not _is_aside(file)]
    if resolved.is_file() and resolved.suffix == ".py":
        return [resolved]
    problem = "is neither a folder nor a Python file" if resolved.exists() else "does not exist"
    raise ConfigurationError(f"{given} {problem}. Name folders or .py files that hold orchestrators and activities.")


def imported_files() -> list[Path]:
    """The files of all modules imported by now that belong neither to Python, nor to durably, nor to a package
    that was installed: what somebody who works on the definitions may edit.
    """
    installed = [Path(place).resolve() for place in sysconfig.get_paths().values()]
    installed.append(Path(__file__).resolve().parents[1])
    files: list[Path] = []
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str) or not name.endswith(".py"):
            continue
        file = Path(name).resolve()
        if not any(file.is_relative_to(place) for place in installed):
            files.append(file)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):
        here = Path(directory)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _ASIDE and not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py") and not name.startswith("."))


def _is_aside(file: Path) -> bool:
    name = file.name
    return name in _NOT_DEFINITIONS or name.startswith("test_") or name.endswith("_test.py")


def _root(file: Path, given: Path) -> Path:
    """The folder that the name of `file`'s module counts from."""
    folder = file.parent if given.is_file() else given
    if not (folder / "__init__.py").exists():
        # `orchestrators/` is a package even without __init__.py; `src/`, or the project itself, is none
        return folder if given.is_file() or _holds_packages(folder) else folder.parent
    while (folder / "__init__.py").exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _holds_packages(folder: Path) -> bool:
    if folder == Path.cwd() or str(folder) in sys.path:
        return True
    entries = list(folder.iterdir())
    return not any(entry.suffix == ".py" for entry in entries) and any(
        (entry / "__init__.py").exists() for entry in entries
    )


def _import(file: Path, root: Path) -> ModuleType:
    """Import `file` under its name below `root`; where another module has that name, below root's parent."""
    try:
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        while True:
            if str(root) not in sys.path:
                sys.path.append(str(root))
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
            if _is_found_at(name, file):
                return importlib.import_module(name)
            if root == root.parent:
                raise ImportError(f"its name is taken: {name!r} is another module.", name=name)
            root = root.parent
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may raise anything, SystemExit included
        raise ImportFailedError(file, error) from error


def _is_found_at(name: str, file: Path) -> bool:
    """Whether importing `name` would import `file`, and not a module of the same name elsewhere."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            return False  # a package it seems to be in is a module elsewhere
        raise
    except ValueError:  # the name of a module that was run, not imported
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file


def _collect(modules: Iterable[ModuleType]) -> Definitions:
    orchestrators: dict[tuple[int, str], Orchestrator[..., Any]] = {}
    activities: dict[tuple[int, str], Activity[..., Any]] = {}
    triggers: dict[int, Trigger[Any]] = {}
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, Orchestrator):
                flow = cast("Orchestrator[..., Any]", value)
                orchestrators.setdefault((id(flow.fn), flow.name), flow)
            elif isinstance(value, Activity):
                task = cast("Activity[..., Any]", value)
                activities.setdefault((id(task.implementation), task.name), task)
            elif isinstance(value, Trigger):
                triggers[id(value)] = value  # pyright: ignore[reportUnknownArgumentType]  # of what kind does not matter
    triggers |= {id(each): each for flow in orchestrators.values() for each in flow.triggers}
    return Definitions(
        orchestrators=tuple(orchestrators.values()),
        activities=tuple(activities.values()),
        triggers=tuple(triggers.values()),
    )


def _place(error: BaseException, file: Path) -> str:
    """Where in the user's code an import went wrong: the file imported, or one that it imports."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_shown(Path(error.filename))}:{error.lineno}"
    place = _shown(file)
    ours = str(Path(__file__).parents[1])
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        if not name.startswith((ours, "<frozen ")) and f"{os.sep}importlib{os.sep}" not in name:
            place = f"{_shown(Path(name))}:{line}"
    return place


def _shown(file: Path) -> str:
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)
