"""The checks of one function: walks its body, reports what breaks a rule, and names the functions it goes on to."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from durably.lint.names import (
    Annotation,
    Class,
    Definition,
    External,
    Function,
    FunctionNode,
    Import,
    Member,
    Scope,
    Thing,
    Value,
    defined,
    lineage,
    method_of,
    resolve,
)
from durably.lint.project import Source
from durably.lint.rules import (
    AS_COMPLETED,
    AWAITABLES,
    BYPASS,
    FORGOTTEN,
    GLOBALS,
    METHODS,
    PURE_WITH,
    SET_ORDER,
    SWALLOWED,
    Rule,
    rule_of,
)
from durably.lint.sets import is_set, makes_task

_IN_ORDER = frozenset(
    {f"builtins.{name}" for name in ("list", "tuple", "enumerate", "iter", "map", "filter", "zip", "str", "repr")}
    | {"builtins.dict.fromkeys", "functools.reduce", "itertools.chain"}
)
_IN_ANY_ORDER = frozenset(
    f"builtins.{name}" for name in ("sorted", "min", "max", "sum", "any", "all", "len", "set", "frozenset")
)
_MUTATORS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove"}
    | {"reverse", "setdefault", "sort", "update"}
)
_CANCELLATIONS = frozenset({"builtins.BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError"})
_TYPE_TESTS = frozenset({"builtins.isinstance", "builtins.issubclass"})
_NOT_THE_FIRST = frozenset({"typing.cast"})  # a type
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Report = Callable[[Source, ast.AST, Rule, str], None]
_Reach = Callable[[Function], None]


class Checker(ast.NodeVisitor):
    """Walks a function that an orchestrator runs.

    Args:
        scope: the function's own.
        report: takes what breaks a rule.
        reach: takes the functions of the project that this one uses.
    """

    def __init__(self, scope: Scope, report: _Report, reach: _Reach) -> None:
        self._scope = scope
        self._report = report
        self._reach = reach

    def check(self, node: FunctionNode) -> None:
        """Check its body, and the defaults of its parameters."""
        self._visit_all([*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body])

    def _tell(self, node: ast.AST, rule: Rule, subject: str) -> None:
        self._report(self._scope.source, node, rule, subject)

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    # --- names -------------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._use(node, resolve(node, self._scope))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        meant = resolve(node, self._scope)
        if self._use(node, meant):
            root = _root(node)
            if not isinstance(root, ast.Name):
                self.visit(root)
            return
        if meant is None and node.attr in METHODS:
            self._tell(node, METHODS[node.attr], ast.unparse(node))
        self.visit(node.value)

    def _use(self, node: ast.expr, meant: Thing | None) -> bool:
        """Report a use if it breaks a rule, and say whether it did."""
        match meant:
            case External(dotted):
                rule = rule_of(dotted)
                if rule is not None:
                    self._tell(node, rule, _named(node, dotted))
                return rule is not None
            case Member(Definition("activity"), "fn"):
                self._tell(node, BYPASS, ast.unparse(node))
                return True
            case Function():
                self._reach(meant)
                return False
            case _:
                return False

    # --- calls -------------------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        meant = resolve(node.func, self._scope)
        arguments: list[ast.AST] = [*node.args, *node.keywords]
        match meant:
            case External(dotted) if dotted in PURE_WITH:
                rule, enough = PURE_WITH[dotted]
                if len(arguments) < enough:
                    self._tell(node, rule, _named(node.func, dotted))
                self._visit_all(arguments)
                return
            case External(dotted):
                arguments = self._check_call(node, dotted, arguments)
            case Class():
                self._construct(meant)
            case _:
                pass
        self._check_method(node)
        self._visit_all([node.func, *arguments])

    def _check_call(self, node: ast.Call, dotted: str, arguments: list[ast.AST]) -> list[ast.AST]:
        """Check a call of something from outside; those of its arguments that are to be visited."""
        if dotted in _TYPE_TESTS:
            return arguments[:1]
        if dotted in _NOT_THE_FIRST:
            return arguments[1:]
        if dotted in _IN_ANY_ORDER:
            return [part for argument in arguments for part in _without_order(argument)]
        if dotted in _IN_ORDER:
            self._check_order(node.args)
        if dotted == "asyncio.as_completed":
            self._check_as_completed(node)
        return arguments

    def _check_method(self, node: ast.Call) -> None:
        match node.func:
            case ast.Attribute(value=receiver, attr="pop") if not node.args and is_set(receiver, self._scope):
                self._tell(node, SET_ORDER, ast.unparse(node.func))
            case ast.Attribute(attr="join"):
                self._check_order(node.args)
            case ast.Attribute(value=receiver, attr=name) if name in _MUTATORS and self._is_state(receiver):
                self._tell(node, GLOBALS, ast.unparse(node.func))
            case _:
                pass

    def _check_as_completed(self, node: ast.Call) -> None:
        match node.args[0] if node.args else None:
            case ast.List(elts) | ast.Tuple(elts) | ast.Set(elts):
                bare = any(isinstance(each, ast.Call) and not makes_task(each) for each in elts)
            case ast.ListComp(elt) | ast.SetComp(elt) | ast.GeneratorExp(elt):
                bare = isinstance(elt, ast.Call) and not makes_task(elt)
            case ast.Call() as made:
                bare = resolve(made.func, self._scope) == External("builtins.map")
            case _:
                bare = False
        if bare:
            self._tell(node, AS_COMPLETED, "asyncio.as_completed")

    def _construct(self, of: Class) -> None:
        for name in ("__init__", "__post_init__", "__new__"):
            method = method_of(of, name)
            if isinstance(method, Function):
                self._reach(method)
        for each in lineage(of):
            fields = [statement for statement in each.node.body if isinstance(statement, ast.AnnAssign | ast.Assign)]
            for part in (part for statement in fields for part in ast.walk(statement)):
                if isinstance(part, ast.keyword) and part.arg == "default_factory":
                    Checker(each.scope, self._report, self._reach).visit(part.value)

    # --- sets --------------------------------------------------------------------------------------------------

    def _check_order(self, nodes: Iterable[ast.expr]) -> None:
        for node in nodes:
            iterated = node.value if isinstance(node, ast.Starred) else node
            if is_set(iterated, self._scope):
                self._tell(iterated, SET_ORDER, f"iterating over {_brief(iterated)}")

    def visit_For(self, node: ast.For) -> None:
        self._check_order([node.iter])
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if isinstance(node.ctx, ast.Load):
            self._check_order([node.value])
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self._check_order([node.value])
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self._check_order([node.value])
        self.generic_visit(node)

    def _visit_comprehension(self, node: _Comprehension) -> None:
        if not isinstance(node, ast.SetComp) or _awaits(node):
            self._check_order([generator.iter for generator in node.generators])
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    # --- state of the module -------------------------------------------------------------------------------------

    def visit_Global(self, node: ast.Global) -> None:
        self._tell(node, GLOBALS, f"global {', '.join(node.names)}")

    def visit_Assign(self, node: ast.Assign) -> None:
        self._check_targets(node.targets)
        if any(isinstance(target, ast.Tuple | ast.List) for target in node.targets):
            self._check_order([node.value])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._check_targets([node.target])
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._check_targets([node.target])
        if node.value is not None:
            self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._check_targets(node.targets)
        self.generic_visit(node)

    def _check_targets(self, targets: Iterable[ast.expr]) -> None:
        for target in targets:
            match target:
                case ast.Subscript(value=changed) | ast.Attribute(value=changed):
                    if self._is_state(changed) or isinstance(resolve(changed, self._scope), Scope | Class):
                        self._tell(target, GLOBALS, ast.unparse(target))
                case ast.Tuple(elts) | ast.List(elts):
                    self._check_targets(elts)
                case _:
                    pass

    def _is_state(self, node: ast.expr) -> bool:
        """Whether an expression is, or is part of, what a module of the project assigned to a name of its own."""
        match node:
            case ast.Name(name):
                holder = self._scope.holder(name)
                return holder is not None and holder.around is None and _is_assigned(holder, name)
            case ast.Attribute(value, name):
                module = resolve(value, self._scope)
                return _is_assigned(module, name) if isinstance(module, Scope) else self._is_state(value)
            case ast.Subscript(value):
                return self._is_state(value)
            case _:
                return False

    # --- awaits ------------------------------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and _makes_awaitable(resolve(node.value.func, self._scope)):
            self._tell(node.value, FORGOTTEN, _brief(node.value))
        self.generic_visit(node)

    def _visit_try(self, node: ast.Try | ast.TryStar) -> None:
        self._check_handlers(node.body, node.handlers)
        self._visit_all([*node.body, *node.orelse, *node.finalbody])
        for handler in node.handlers:  # the types it catches are not used
            self._visit_all(handler.body)

    visit_Try = visit_TryStar = _visit_try

    def _check_handlers(self, body: list[ast.stmt], handlers: list[ast.ExceptHandler]) -> None:
        if not any(map(_awaits, body)) or self._ends_a_task(body):
            return
        for handler in handlers:
            if self._catches_cancellation(handler.type):
                if not any(isinstance(each, ast.Raise) for each in _own_nodes(handler)):
                    caught = "" if handler.type is None else f" {ast.unparse(handler.type)}"
                    self._tell(handler, SWALLOWED, f"except{caught}")
                return

    def _catches_cancellation(self, caught: ast.expr | None) -> bool:
        if caught is None:
            return True
        if isinstance(caught, ast.Tuple):
            return any(map(self._catches_cancellation, caught.elts))
        of = resolve(caught, self._scope)
        return isinstance(of, External) and of.dotted in _CANCELLATIONS

    def _ends_a_task(self, body: list[ast.stmt]) -> bool:
        """Whether `body` awaits no more than a task that this function cancels: its cancellation is expected."""
        match body:
            case [ast.Expr(ast.Await(ast.Name(task)))]:
                return any(
                    isinstance(each, ast.Attribute) and each.attr == "cancel" and _name(each.value) == task
                    for each in ast.walk(self._scope.node)
                )
            case _:
                return False

    def _visit_with(self, node: ast.With | ast.AsyncWith) -> None:
        self._check_suppress(node)
        self.generic_visit(node)

    visit_With = visit_AsyncWith = _visit_with

    def _check_suppress(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            match item.context_expr:
                case ast.Call(func, args) if resolve(func, self._scope) == External("contextlib.suppress"):
                    swallows = any(map(self._catches_cancellation, args)) and any(map(_awaits, node.body))
                    if swallows and not self._ends_a_task(node.body):
                        self._tell(item.context_expr, SWALLOWED, ast.unparse(item.context_expr))
                case _:
                    pass

    # --- functions inside ----------------------------------------------------------------------------------------

    def _visit_function(self, node: FunctionNode, owner: Class | None = None) -> None:
        if isinstance(defined(Function(node, self._scope)), Function):
            Checker(self._scope.inner(node, owner), self._report, self._reach).check(node)

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function

    def visit_Lambda(self, node: ast.Lambda) -> None:
        Checker(self._scope.inner(node), self._report, self._reach).visit(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self._visit_function(statement, Class(node, self._scope))


def _named(node: ast.expr, dotted: str) -> str:
    """The name as it is written, and what it stands for where that is another."""
    plain = dotted.removeprefix("builtins.")
    written = _brief(node)
    return written if written == plain else f"{written} ({plain})"


def _brief(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _root(node: ast.expr) -> ast.expr:
    return _root(node.value) if isinstance(node, ast.Attribute) else node


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below, without those of functions and classes inside."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def _awaits(node: ast.AST) -> bool:
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    return isinstance(node, waits) or any(isinstance(each, waits) for each in _own_nodes(node))


def _without_order(argument: ast.AST) -> list[ast.AST]:
    """What is to be checked of an argument whose order does not matter."""
    if not isinstance(argument, ast.GeneratorExp | ast.ListComp):
        return [argument]
    parts: list[ast.AST] = [argument.elt]
    for generator in argument.generators:
        parts += [generator.iter, *generator.ifs]
    return parts


def _is_assigned(module: Scope, name: str) -> bool:
    """Whether a module assigns a name, itself or where it imports it from."""
    for binding in module.bindings.get(name, ()):
        if isinstance(binding, Value | Annotation):
            return True
        if isinstance(binding, Import) and binding.name is not None:
            origin = module.imported(Import(binding.module, binding.level, None))
            return isinstance(origin, Scope) and origin is not module and _is_assigned(origin, binding.name)
    return False


def _makes_awaitable(callee: Thing | None) -> bool:
    match callee:
        case Definition() | Member(Definition("orchestrator"), "start"):
            return True
        case Function(node):
            if not isinstance(node, ast.AsyncFunctionDef):
                return False
            return not any(isinstance(each, ast.Yield | ast.YieldFrom) for each in _own_nodes(node))
        case External(dotted):
            return dotted in AWAITABLES
        case _:
            return False
