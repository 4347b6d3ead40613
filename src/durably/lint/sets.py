"""Which expressions are visibly sets. A set of tasks is none: an orchestrator's tasks are hashed by number."""

from __future__ import annotations

import ast

from durably.lint.names import (
    Annotation,
    Definition,
    External,
    Function,
    Instance,
    Scope,
    Value,
    field_of,
    resolve,
)

_MAKERS = frozenset({"builtins.set", "builtins.frozenset"})
_TYPES = _MAKERS | {
    "typing.Set",
    "typing.FrozenSet",
    "typing.AbstractSet",
    "typing.MutableSet",
    "collections.abc.Set",
    "collections.abc.MutableSet",
}
_TASKS = frozenset({"asyncio.Task", "asyncio.Future"})
_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_VIEWS = frozenset({"keys", "items"})
_TASK_MAKERS = frozenset({"create_task", "ensure_future"})


def is_set(node: ast.expr, scope: Scope) -> bool:
    """Whether iterating over this expression takes the elements of a set."""
    match node:
        case ast.Set(elts):
            return not all(makes_task(element) for element in elts)
        case ast.SetComp(elt):
            return not makes_task(elt)
        case ast.Call():
            return _call_is_set(node, scope)
        case ast.Await(value):
            return is_set(value, scope)
        case ast.BinOp(left, ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right):
            return any(is_set(side, scope) for side in (left, right)) or (_is_view(left) and _is_view(right))
        case ast.IfExp(_, body, orelse):
            return is_set(body, scope) or is_set(orelse, scope)
        case ast.Name(id):
            return _name_is_set(id, scope)
        case ast.Attribute(value, attr):
            return _field_is_set(value, attr, scope)
        case _:
            return False


def makes_task(node: ast.expr) -> bool:
    """Whether the expression is a call of `create_task`, whoever's."""
    match node:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name in _TASK_MAKERS
        case _:
            return False


def _call_is_set(node: ast.Call, scope: Scope) -> bool:
    if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS and is_set(node.func.value, scope):
        return True
    match resolve(node.func, scope):
        case External(dotted):
            return dotted in _MAKERS and not any(map(makes_task, node.args))
        case Function(function, where) | Definition(_, Function(function, where)):
            return function.returns is not None and _type_is_set(function.returns, where)
        case _:
            return False


def _is_view(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in _VIEWS
        case _:
            return False


def _name_is_set(name: str, scope: Scope) -> bool:
    holder = scope.holder(name)
    if holder is None:
        return False
    bindings = holder.bindings[name]
    declared = next((each for each in bindings if isinstance(each, Annotation)), None)
    if declared is not None:
        return _type_is_set(declared.node, holder)
    if name in holder.asked:
        return True  # `found = found | more` is a set if its other assignments are
    holder.asked.add(name)
    try:
        return all(isinstance(each, Value) and is_set(each.node, holder) for each in bindings)
    finally:
        holder.asked.discard(name)


def _field_is_set(value: ast.expr, name: str, scope: Scope) -> bool:
    of = resolve(value, scope)
    if not isinstance(of, Instance):
        return False
    annotation, where = field_of(of.of, name)
    return annotation is not None and _type_is_set(annotation, where)


def _type_is_set(annotation: ast.expr, scope: Scope) -> bool:
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return _type_is_set(ast.parse(text, mode="eval").body, scope)
            except SyntaxError:
                return False
        case ast.BinOp(left, ast.BitOr(), right):
            return _type_is_set(left, scope) or _type_is_set(right, scope)
        case ast.Subscript(value, element):
            inner = element.value if isinstance(element, ast.Subscript) else element
            of = resolve(inner, scope)
            return _type_is_set(value, scope) and not (isinstance(of, External) and of.dotted in _TASKS)
        case _:
            of = resolve(annotation, scope)
            return isinstance(of, External) and of.dotted in _TYPES
