"""Signatures of users' functions: their annotations, and binding arguments to them. Nothing about JSON."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from durably.core.errors import DefinitionError

_EMPTY = inspect.Parameter.empty
_AWAITABLES: frozenset[Any] = frozenset({Awaitable, Coroutine})


class Signature:
    """The parameters of one function after the first `skip`.

    Attributes:
        function: bare name, for messages.
        annotations: of each parameter, resolved; `Any` where there is none.
        required: parameters without a default.
        defaults: of the optional ones.
        positional_only: names of those that cannot be passed by name.
    """

    __slots__ = ("_positional", "annotations", "defaults", "function", "names", "positional_only", "required")

    def __init__(self, fn: Callable[..., Any], skip: int) -> None:
        self.function = function_name(fn)
        parameters = list(_signature(fn).parameters.values())
        _refuse_variadic(self.function, parameters)
        if skip > len([parameter for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]):
            raise DefinitionError(
                f"{self.function}() must take {skip} positional parameter(s) before its arguments, but its "
                f"signature has too few. Add the leading parameter (the context or the callback)."
            )
        parameters = parameters[skip:]
        self.annotations = {
            parameter.name: resolve_annotation(fn, parameter.annotation, f"parameter {parameter.name!r}")
            for parameter in parameters
        }
        self.names = tuple(parameter.name for parameter in parameters)
        self.defaults = {p.name: p.default for p in parameters if p.default is not _EMPTY}
        self.required = tuple(name for name in self.names if name not in self.defaults)
        self.positional_only = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self._positional = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name, in the order of the parameters, omitted ones omitted.

        Raises:
            TypeError: missing, unexpected or duplicate arguments, in Python's own words.
        """
        if len(args) > len(self._positional):
            raise TypeError(self._too_many(len(args)))
        bound = dict(zip(self._positional, args, strict=False))
        if kwargs:
            return self._bind_keywords(bound, kwargs)
        if len(bound) < len(self.names):
            for name in self.required:
                if name not in bound:
                    raise TypeError(self._missing(bound))
        return bound

    def _bind_keywords(self, bound: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        for name in kwargs:
            if name in self.positional_only:
                raise TypeError(
                    f"{self.function}() got some positional-only arguments passed as keyword arguments: {name!r}"
                )
            if name in bound:
                raise TypeError(f"{self.function}() got multiple values for argument {name!r}")
            if name not in self.annotations:
                raise TypeError(f"{self.function}() got an unexpected keyword argument {name!r}")
        given = {**bound, **kwargs}
        ordered = {name: given[name] for name in self.names if name in given}
        for name in self.required:
            if name not in ordered:
                raise TypeError(self._missing(ordered))
        return ordered

    def unbind(self, bound: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from arguments by name. Takes `bound` over."""
        if not self.positional_only:
            return (), bound
        given = [index for index, name in enumerate(self.positional_only) if name in bound]
        leading = self.positional_only[: given[-1] + 1] if given else ()
        args = tuple(bound.pop(name) if name in bound else self.defaults[name] for name in leading)
        return args, bound

    def _missing(self, bound: dict[str, Any]) -> str:
        for kind, names in (
            ("positional", self._positional),
            ("keyword-only", tuple(name for name in self.names if name not in self._positional)),
        ):
            missing = [repr(name) for name in names if name in self.required and name not in bound]
            if missing:
                plural = "s" if len(missing) > 1 else ""
                count = f"{len(missing)} required {kind} argument{plural}"
                return f"{self.function}() missing {count}: {_listed(missing)}"
        raise AssertionError("nothing is missing")

    def _too_many(self, given: int) -> str:
        most = len(self._positional)
        least = len([name for name in self._positional if name in self.required])
        count = str(most) if least == most else f"from {least} to {most}"
        plural = "" if count == "1" else "s"
        verb = "was" if given == 1 else "were"
        return f"{self.function}() takes {count} positional argument{plural} but {given} {verb} given"


def _listed(names: list[str]) -> str:
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _refuse_variadic(function: str, parameters: list[inspect.Parameter]) -> None:
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            example = "list[...]" if stars == "*" else "dict[str, ...]"
            raise DefinitionError(
                f"{function}() must name its parameters, because arguments are stored by name, but it takes "
                f"{stars}{parameter.name}. Take one parameter `{parameter.name}: {example}` instead."
            )


def return_annotation(fn: Callable[..., Any]) -> Any:
    """What `fn`, or the coroutine that it returns, returns; `Any` where it does not say."""
    annotation = resolve_annotation(fn, _signature(fn).return_annotation, "the return value")
    if typing.get_origin(annotation) in _AWAITABLES:
        annotation = typing.get_args(annotation)[-1]
    if annotation is typing.NoReturn or annotation is typing.Never:
        return type(None)
    return annotation


def resolve_annotation(fn: Callable[..., Any], annotation: Any, what: str) -> Any:
    """The type that an annotation of `fn` stands for; `Any` where there is none.

    Raises:
        DefinitionError: it names something that does not exist at run time.
    """
    if annotation is _EMPTY:
        return Any
    target = _innermost(fn)
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    parameters = {parameter.__name__: parameter for parameter in getattr(target, "__type_params__", ())}
    try:
        hints = typing.get_type_hints(holder, getattr(target, "__globals__", {}), parameters, include_extras=True)
    except Exception as error:
        raise DefinitionError(
            f"The annotation of {what} of {function_name(fn)}() must be a type that exists at run time, but "
            f"{annotation!r} cannot be resolved: {error}. Import or define it at module level, outside "
            f"`if TYPE_CHECKING:` and outside functions."
        ) from error
    return hints["it"]


def function_name(fn: Callable[..., Any]) -> str:
    """The bare name of a function, a partial's function, or a callable object's class."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError, NameError) as error:
        raise DefinitionError(
            f"{function_name(fn)} must be a function whose signature Python can tell, but: {error}. "
            f"Wrap it in a function with annotated parameters."
        ) from error


def _innermost(fn: Callable[..., Any]) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    if not hasattr(fn, "__globals__"):
        fn = getattr(fn, "__func__", None) or type(fn).__call__
    return fn
