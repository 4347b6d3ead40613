"""What a name in a file means: something from outside by its dotted name, or a definition of the project.

Syntax trees rather than bytecode: with every binding followed (imports, aliases, parameters, closures, attributes of
modules, classes and instances) they resolve the same names, and know columns, loops and handlers too.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from durably.lint.project import Folder, Project, Source
from durably.lint.rules import listed_below

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Kind: TypeAlias = Literal["orchestrator", "activity"]

_KINDS: dict[str, Kind] = {
    "durably.orchestrator": "orchestrator",
    "durably.api.orchestrator.orchestrator": "orchestrator",
    "durably.activity": "activity",
    "durably.callback_activity": "activity",
    "durably.api.activity.activity": "activity",
    "durably.api.activity.callback_activity": "activity",
}
_CONNECTIONS = """
    boto3.client boto3.resource psycopg.connect psycopg2.connect pymysql.connect redis.from_url sqlalchemy.create_engine
    sqlite3.connect
"""
_INSTANCES = {  # functions that make what a rule is about
    "logging.getLogger": "logging.getLogger()",
    **{name: name for name in _CONNECTIONS.split()},
}
_BUILTINS = frozenset(dir(builtins))
_WRAPPERS = frozenset({"typing.Optional", "typing.Annotated", "typing.Final", "typing.ClassVar"})


@dataclass(frozen=True, slots=True)
class External:
    """Something that is not the project's: a module, a function, a class or an instance of it, by dotted name."""

    dotted: str


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A function of the project; `scope` is where it is defined, `owner` its class."""

    node: FunctionNode
    scope: Scope
    owner: Class | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class of the project; `scope` is where it is defined."""

    node: ast.ClassDef
    scope: Scope


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a class of the project."""

    of: Class


@dataclass(frozen=True, slots=True)
class Definition:
    """An orchestrator or an activity, and the function behind it where that is known."""

    kind: Kind
    function: Function | None


@dataclass(frozen=True, slots=True)
class Member:
    """An attribute of an orchestrator or an activity, such as `options`."""

    definition: Definition
    name: str


@dataclass(frozen=True, slots=True)
class Import:
    """What an import statement binds a name to; without a name the module itself."""

    module: str
    level: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Annotation:
    """A name of which only the type is known."""

    node: ast.expr


@dataclass(frozen=True, slots=True)
class Value:
    """A name that an expression was assigned to."""

    node: ast.expr


Binding: TypeAlias = "Import | Annotation | Value | FunctionNode | ast.ClassDef | Instance | Class | None"


class Scope:
    """The names of a module, a function or a lambda, and of what is around it.

    Args:
        project: knows other files.
        source: the file.
        node: the module, function or lambda.
        around: the scope that encloses it; None for a module.
        owner: the class whose method it is.

    Attributes:
        bindings: what is bound to each name here, in the order of the source, parameters first.
        is_global: names that a `global` statement gives back to the module.
        asked: names that are being looked into, so that `a = b; b = a` ends.
    """

    def __init__(
        self,
        project: Project,
        source: Source,
        node: ast.Module | FunctionNode | ast.Lambda,
        around: Scope | None = None,
        owner: Class | None = None,
    ) -> None:
        self.project = project
        self.source = source
        self.node = node
        self.around = around
        self.bindings: dict[str, list[Binding]] = {}
        self._inner: dict[ast.AST, Scope] = {}
        self.asked: set[str] = set()
        self._busy: set[str] = set()
        binder = _Binder(self.bindings)
        self.is_global = binder.is_global
        self.stars = binder.stars
        if isinstance(node, ast.Lambda):
            binder.visit(node.body)
        else:
            for statement in node.body:
                binder.visit(statement)
        if not isinstance(node, ast.Module):
            self._bind_parameters(node, owner)

    def inner(self, node: FunctionNode | ast.Lambda, owner: Class | None = None) -> Scope:
        """The scope of a function that is defined in this one."""
        found = self._inner.get(node)
        if found is None:
            found = self._inner[node] = Scope(self.project, self.source, node, self, owner)
        return found

    def holder(self, name: str) -> Scope | None:
        """The scope that binds a name, as seen from here."""
        scope: Scope | None = self
        while scope is not None and (name not in scope.bindings or name in scope.is_global):
            scope = scope.around
        return scope

    def look_up(self, name: str) -> Thing | None:
        """What a name means here; None if it cannot be told."""
        holder = self.holder(name)
        if holder is not None:
            return holder.own(name)
        module = self
        while module.around is not None:
            module = module.around
        for star in module.stars:
            found = module.imported(Import(star.module, star.level, name))
            if isinstance(found, External) and name not in listed_below(found.dotted.rpartition(".")[0]):
                continue
            if found is not None:
                return found
        return External(f"builtins.{name}") if name in _BUILTINS else None

    def own(self, name: str) -> Thing | None:
        """What a name that is bound here means."""
        bindings = self.bindings.get(name, [])
        if name in self._busy or not bindings:
            return None
        declared = next((each for each in bindings if isinstance(each, Annotation)), None)
        if (
            declared is None
            and len(bindings) > 1
            and not isinstance(bindings[-1], Import | ast.FunctionDef | ast.AsyncFunctionDef)
        ):
            return None  # assigned several times: it depends
        self._busy.add(name)
        try:
            return self._meaning(declared or bindings[-1])
        finally:
            self._busy.discard(name)

    def _meaning(self, binding: Binding) -> Thing | None:
        match binding:
            case Import():
                return self.imported(binding)
            case Value(node):
                return resolve(node, self)
            case Annotation(node):
                return instance_of(node, self)
            case ast.ClassDef():
                return Class(binding, self)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                return defined(Function(binding, self))
            case _:
                return binding

    def imported(self, what: Import) -> Thing | None:
        """What an import brings."""
        found = self.project.imported(self.source, what.module, what.level)
        if isinstance(found, Source):
            module = module_scope(self.project, found)
            return module if what.name is None else module.own(what.name)
        if isinstance(found, Folder):
            return found if what.name is None else member_of_folder(found, what.name, self)
        if what.level:
            return None
        return External(what.module if what.name is None else f"{what.module}.{what.name}")

    def _bind_parameters(self, node: FunctionNode | ast.Lambda, owner: Class | None) -> None:
        given = node.args
        parameters = [*given.posonlyargs, *given.args]
        for parameter in (*parameters, *given.kwonlyargs):
            annotation = parameter.annotation
            self._bind_first(parameter.arg, None if annotation is None else Annotation(annotation))
        for starred in (given.vararg, given.kwarg):
            if starred is not None:
                self._bind_first(starred.arg, None)
        if owner is not None and parameters and not isinstance(node, ast.Lambda):
            decorators = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
            if "staticmethod" not in decorators:
                self.bindings[parameters[0].arg] = [owner if "classmethod" in decorators else Instance(owner)]

    def _bind_first(self, name: str, binding: Binding) -> None:
        self.bindings[name] = [binding, *self.bindings.get(name, ())]


Thing: TypeAlias = External | Scope | Folder | Function | Class | Instance | Definition | Member


class _Binder(ast.NodeVisitor):
    """Collects the names that statements bind, without looking into functions and classes."""

    def __init__(self, bindings: dict[str, list[Binding]]) -> None:
        self._bindings = bindings
        self.is_global: set[str] = set()
        self.stars: list[Import] = []

    def _bind(self, name: str, binding: Binding) -> None:
        self._bindings.setdefault(name, []).append(binding)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname is not None:
                self._bind(alias.asname, Import(alias.name, 0, None))
            else:
                top = alias.name.partition(".")[0]
                self._bind(top, Import(top, 0, None))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(Import(node.module or "", node.level, None))
            else:
                self._bind(alias.asname or alias.name, Import(node.module or "", node.level, alias.name))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._bind(node.name, node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._bind(node.name, node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Nothing: its names are its own."""

    def visit_Global(self, node: ast.Global) -> None:
        self.is_global.update(node.names)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._bind(target.id, Value(node.value))
            else:
                self.visit(target)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._bind(node.target.id, Annotation(node.annotation))
        if node.value is not None:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """No new meaning: `seen |= more` stays a set."""
        self.visit(node.value)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind(node.target.id, Value(node.value))
        self.visit(node.value)

    def visit_withitem(self, node: ast.withitem) -> None:
        if isinstance(node.optional_vars, ast.Name):
            self._bind(node.optional_vars.id, Value(node.context_expr))
        elif node.optional_vars is not None:
            self.visit(node.optional_vars)
        self.visit(node.context_expr)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name is not None:
            self._bind(node.name, None)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name is not None:
            self._bind(node.name, None)
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name is not None:
            self._bind(node.name, None)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, None)


def module_scope(project: Project, source: Source) -> Scope:
    """The scope of a module, made once."""
    found = project.scopes.get(source)
    if not isinstance(found, Scope):
        found = project.scopes[source] = Scope(project, source, source.tree)
    return found


def defined(function: Function) -> Function | Definition | Member:
    """The function, or what its decorator makes of it."""
    for decorator in function.node.decorator_list:
        what = resolve(decorator.func if isinstance(decorator, ast.Call) else decorator, function.scope)
        if isinstance(what, External) and what.dotted in _KINDS:
            return Definition(_KINDS[what.dotted], function)
        if isinstance(what, Member) and what.name == "implement":
            return Member(what.definition, "fn")
    return function


def resolve(node: ast.expr, scope: Scope) -> Thing | None:
    """What an expression means; None if it cannot be told."""
    match node:
        case ast.Name():
            return scope.look_up(node.id)
        case ast.Attribute():
            return _attribute(resolve(node.value, scope), node.attr, scope)
        case ast.Call():
            return _called(node, scope)
        case ast.NamedExpr():
            return resolve(node.value, scope)
        case ast.BinOp(op=ast.Div()) if resolve(node.left, scope) == External("pathlib.Path"):
            return External("pathlib.Path")
        case _:
            return None


def _attribute(thing: Thing | None, name: str, scope: Scope) -> Thing | None:
    match thing:
        case External(dotted):
            return External(f"{dotted}.{name}")
        case Scope():
            return thing.own(name)
        case Folder():
            return member_of_folder(thing, name, scope)
        case Class():
            return method_of(thing, name)
        case Instance(of):
            annotation, where = field_of(of, name)
            return method_of(of, name) if annotation is None else instance_of(annotation, where)
        case Definition():
            return Member(thing, name)
        case _:
            return None


def _called(node: ast.Call, scope: Scope) -> Thing | None:
    match resolve(node.func, scope):
        case External(dotted) if dotted in _KINDS and node.args:  # flow = orchestrator(function)
            function = resolve(node.args[0], scope)
            return Definition(_KINDS[dotted], function if isinstance(function, Function) else None)
        case External(dotted) as decorator if dotted in _KINDS:  # flow = orchestrator(name="flow")(function)
            return decorator
        case External(dotted) if dotted in _INSTANCES:
            return External(_INSTANCES[dotted])
        case External(dotted) if dotted.rpartition(".")[2][:1].isupper():
            return External(dotted)
        case Class() as of:
            return Instance(of)
        case Member(definition, "options"):
            return definition
        case _:
            return None


def instance_of(annotation: ast.expr, scope: Scope) -> Thing | None:
    """An instance of the type that an annotation names."""
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return instance_of(ast.parse(text, mode="eval").body, scope)
            except SyntaxError:
                return None
        case ast.BinOp(op=ast.BitOr()):
            return instance_of(annotation.left, scope) or instance_of(annotation.right, scope)
        case ast.Subscript():
            of = resolve(annotation.value, scope)
            if of not in {External(name) for name in _WRAPPERS}:
                return of if isinstance(of, External) else None
            inner = annotation.slice
            return instance_of(inner.elts[0] if isinstance(inner, ast.Tuple) else inner, scope)
        case _:
            of = resolve(annotation, scope)
            return Instance(of) if isinstance(of, Class) else of if isinstance(of, External) else None


def member_of_folder(folder: Folder, name: str, scope: Scope) -> Thing | None:
    """What `name` is in a package: bound in its `__init__.py`, or a module of it."""
    init = scope.project.init_of(folder)
    if init is not None:
        found = module_scope(scope.project, init).own(name)
        if found is not None:
            return found
    below = scope.project.find([name], (folder.path,))
    return module_scope(scope.project, below) if isinstance(below, Source) else below


def lineage(of: Class) -> Iterator[Class]:
    """The class and its bases, as far as they are the project's."""
    seen: list[ast.ClassDef] = []
    waiting = [of]
    while waiting:
        current = waiting.pop(0)
        if current.node not in seen:
            seen.append(current.node)
            yield current
            bases = (resolve(base, current.scope) for base in current.node.bases)
            waiting += [base for base in bases if isinstance(base, Class)]


def method_of(of: Class, name: str) -> Function | Definition | Member | None:
    """A method, its own or inherited."""
    for each in lineage(of):
        for statement in each.node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
                return defined(Function(statement, each.scope, each))
    return None


def field_of(of: Class, name: str) -> tuple[ast.expr | None, Scope]:
    """The annotation of a field, and the scope in which to read it."""
    for each in lineage(of):
        for statement in each.node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=found)) if found == name:
                    return statement.annotation, each.scope
                case _:
                    pass
    return None, of.scope
