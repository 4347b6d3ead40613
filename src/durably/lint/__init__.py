"""`durably lint`: what in the source of orchestrators would not survive a replay. Imports the standard library only."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from durably.lint.checks import Checker
from durably.lint.names import Class, Definition, Function, Scope, defined, module_scope
from durably.lint.project import EVERY_CODE, Project, Source, UnreadableError
from durably.lint.rules import RULES as RULES
from durably.lint.rules import UNREADABLE, Rule


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A place that breaks a rule; `line` and `column` are 1-based."""

    file: Path
    line: int
    column: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what was found, in the order of the files."""

    orchestrators: int
    findings: tuple[Finding, ...]


def lint(files: Iterable[Path]) -> Report:
    """What breaks the rules in the orchestrators of `files`, and in the functions of their project that they use.

    Nothing is imported or run. Lines with `# noqa`, or `# noqa:` and the code, are let through.
    """
    project, count = Project(), 0
    found: dict[tuple[object, ...], Finding] = {}
    for file in files:
        findings: list[Finding] = []
        try:
            for orchestrator in _orchestrators(module_scope(project, project.read(file.resolve()))):
                count += 1
                findings += _Walk(orchestrator).findings()
        except UnreadableError as error:
            findings = [_unreadable(file, str(error), error.line)]
        except RecursionError:
            findings = [_unreadable(file, "an expression in it, or in what it uses, is nested too deep", 1)]
        for each in findings:
            found.setdefault((each.file, each.line, each.column, each.code), each)
    return Report(count, tuple(sorted(found.values())))


def _unreadable(file: Path, why: str, line: int) -> Finding:
    message = f"{file.name} {UNREADABLE.problem}: {why}. {UNREADABLE.remedy}"
    return Finding(file.resolve(), line, 1, UNREADABLE.code, message)


class _Walk:
    """From an orchestrator through everything of the project that it uses."""

    def __init__(self, orchestrator: Function) -> None:
        self._orchestrator = orchestrator
        self._waiting = [orchestrator]
        self._seen = {orchestrator.node}
        self._current = orchestrator
        self._found: list[Finding] = []

    def findings(self) -> list[Finding]:
        while self._waiting:
            self._current = current = self._waiting.pop()
            Checker(current.scope.inner(current.node, current.owner), self._report, self._reach).check(current.node)
        return self._found

    def _reach(self, function: Function) -> None:
        if function.node not in self._seen:
            self._seen.add(function.node)
            self._waiting.append(function)

    def _report(self, source: Source, node: ast.AST, rule: Rule, subject: str) -> None:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        suppressed = source.noqa.get(line, frozenset())
        if suppressed != EVERY_CODE and rule.code not in suppressed:
            caller = "" if self._current is self._orchestrator else f" ({self._orchestrator.node.name} calls it)"
            message = f"{subject} {rule.problem}{caller}. {rule.remedy}"
            self._found.append(Finding(source.file, line, column, rule.code, message))


def _orchestrators(scope: Scope) -> Iterable[Function]:
    """The orchestrators that a module defines: by decorator, wherever, or by a call at its top level."""
    found = {function.node: function for function in _declared(scope.node, scope)}
    for name in scope.bindings:
        made = scope.own(name)
        function = made.function if isinstance(made, Definition) and made.kind == "orchestrator" else None
        if function is not None and function.scope.source is scope.source:
            found.setdefault(function.node, function)
    return found.values()


def _declared(node: ast.AST, scope: Scope, owner: Class | None = None) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            function = Function(child, scope, owner)
            what = defined(function)
            if isinstance(what, Definition) and what.kind == "orchestrator":
                yield function
            yield from _declared(child, scope.inner(child, owner))
        else:
            yield from _declared(child, scope, Class(child, scope) if isinstance(child, ast.ClassDef) else owner)
