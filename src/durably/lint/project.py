"""The files of a project as syntax trees, found where Python would import them from, without importing anything."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from dataclasses import dataclass, field
from pathlib import Path

EVERY_CODE = frozenset({"*"})

_NOQA = re.compile(r"#\s*noqa(?P<codes>\s*:\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?", re.IGNORECASE)
_TOPS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
_TALLEST = 4


class UnreadableError(Exception):
    """A file is not Python.

    Attributes:
        line: where, 1-based.
    """

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A parsed file.

    Attributes:
        noqa: codes that are suppressed, by line; `EVERY_CODE` for a bare `# noqa`.
        roots: folders that the absolute imports of the file may count from, nearest first.
    """

    file: Path
    tree: ast.Module
    noqa: dict[int, frozenset[str]]
    roots: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """A package, with or without `__init__.py`."""

    path: Path


@dataclass(slots=True)
class Project:
    """Sources by file, each read once.

    Attributes:
        scopes: what their names mean, kept by `names`.
    """

    scopes: dict[Source, object] = field(default_factory=dict[Source, object])
    _sources: dict[Path, Source | None] = field(default_factory=dict[Path, Source | None])

    def read(self, file: Path) -> Source:
        """The file, parsed.

        Raises:
            UnreadableError: it is not Python, or not there.
        """
        known = self._sources.get(file)
        if known is None:
            known = self._sources[file] = _read(file)
        return known

    def find(self, parts: list[str], places: tuple[Path, ...]) -> Source | Folder | None:
        """The module or package of that dotted name below the first of `places` that has it."""
        for place in places:
            path = place.joinpath(*parts)
            file = path.with_name(f"{path.name}.py")
            if file.is_file():
                return self._try_to_read(file)
            if path.is_dir() and next(path.glob("*.py"), None) is not None:
                return Folder(path)
        return None

    def imported(self, importer: Source, module: str, level: int) -> Source | Folder | None:
        """What `import module` or `from ..module import` in a file of the project brings, if it is the project's."""
        parts = module.split(".") if module else []
        if level:
            return (
                self.find(parts, (importer.file.parents[level - 1],)) if level <= len(importer.file.parents) else None
            )
        if parts[0] in sys.stdlib_module_names or parts[0] == "durably":
            return None
        return self.find(parts, importer.roots)

    def init_of(self, folder: Folder) -> Source | None:
        """The `__init__.py` of a package."""
        file = folder.path / "__init__.py"
        return self._try_to_read(file) if file.is_file() else None

    def _try_to_read(self, file: Path) -> Source | None:
        if file not in self._sources:
            try:
                return self.read(file)
            except UnreadableError:
                self._sources[file] = None
        return self._sources[file]


def _read(file: Path) -> Source:
    try:
        text = file.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a linter of other things says so
            tree = ast.parse(text, str(file))
        return Source(file, tree, _noqa(text), _roots(file))
    except SyntaxError as error:
        raise UnreadableError(error.msg, error.lineno or 1) from error
    except (OSError, ValueError, RecursionError, tokenize.TokenError) as error:
        raise UnreadableError(str(error) or type(error).__name__) from error


def suppressed(line: str) -> frozenset[str]:
    """The codes that a line's `# noqa` lets through: `EVERY_CODE` if it names none; empty without one."""
    comment = _NOQA.search(line)
    if comment is None:
        return frozenset()
    return frozenset(re.findall(r"[A-Z]+[0-9]+", (comment["codes"] or "").upper())) or EVERY_CODE


def _noqa(text: bytes) -> dict[int, frozenset[str]]:
    found: dict[int, frozenset[str]] = {}
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        codes = suppressed(token.string) if token.type == tokenize.COMMENT else None
        if codes:
            found[token.start[0]] = codes
    return found


def _roots(file: Path) -> tuple[Path, ...]:
    """Where the outermost package lies, and the folders above, up to the project's own."""
    folder = file.parent
    while (folder / "__init__.py").exists() and folder != folder.parent:
        folder = folder.parent
    roots = [folder]
    while len(roots) < _TALLEST and folder != Path.cwd() and not any((folder / top).exists() for top in _TOPS):
        folder = folder.parent
        roots.append(folder)
    return tuple(roots)
