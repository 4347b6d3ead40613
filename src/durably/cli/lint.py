"""`durably lint`: finds the files, filters by code, and says what was found to people, programs or GitHub."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from durably.cli.arguments import Options
from durably.core.errors import ConfigurationError
from durably.embedded.discovery import python_files
from durably.lint import RULES, Finding
from durably.lint import lint as check

_DEFAULT_SOURCE = "orchestrators"


def lint(options: Options) -> int:
    """Exit code 0 if nothing was found, 1 if something was, 2 if it could not be looked for."""
    try:
        _refuse_unknown([*(options.select or ()), *options.ignore])
        files = _files(options.paths)
    except ConfigurationError as error:
        print(f"durably: {error}", file=sys.stderr)
        return 2
    report = check(files)
    found = [each for each in report.findings if _wanted(each.code, options)]
    if options.format == "json":
        print(json.dumps([_object(each) for each in found], indent=2))
    else:
        for each in found:
            print(_line(each) if options.format == "text" else _workflow_command(each))
    if not report.orchestrators and not found:
        print("durably: there is no orchestrator, so nothing was checked", file=sys.stderr)
    return 1 if found else 0


def _refuse_unknown(codes: Sequence[str]) -> None:
    unknown = [code for code in codes if not any(rule.code.startswith(code) for rule in RULES)]
    if unknown:
        raise ConfigurationError(
            f"No rule has the code {', '.join(unknown)}. There are {RULES[0].code} to {RULES[-1].code}; "
            "the beginning of a code stands for all that begin so."
        )


def _files(paths: Sequence[str]) -> list[Path]:
    if not paths and not Path(_DEFAULT_SOURCE).is_dir():
        raise ConfigurationError(f"There is no {_DEFAULT_SOURCE}/ here. Name what to check: durably lint PATH")
    return [file for path in paths or (_DEFAULT_SOURCE,) for file in python_files(path)]


def _wanted(code: str, options: Options) -> bool:
    selected: tuple[str, ...] = ("",) if options.select is None else options.select
    return code.startswith(selected) and not code.startswith(tuple(options.ignore))


def _line(found: Finding) -> str:
    return f"{_shown(found.file)}:{found.line}:{found.column}: {found.code} {found.message}"


def _object(found: Finding) -> dict[str, str | int]:
    return {
        "file": _shown(found.file),
        "line": found.line,
        "column": found.column,
        "code": found.code,
        "message": found.message,
    }


def _workflow_command(found: Finding) -> str:
    """What GitHub turns into an annotation of the line."""
    file = _escaped(_shown(found.file)).replace(":", "%3A").replace(",", "%2C")
    place = f"file={file},line={found.line},col={found.column},title={found.code}"
    return f"::error {place}::{_escaped(found.message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)
