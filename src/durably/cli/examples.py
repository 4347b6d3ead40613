"""An input that an orchestrator accepts, so that the first command somebody copies works."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

from durably.api.orchestrator import Orchestrator
from durably.core.errors import PayloadError
from durably.core.payloads import ArgumentsShape

_DEPTH = 8
_SIMPLE: dict[Any, Any] = {
    int: 1,
    float: 1.5,
    bool: True,
    bytes: "",
    type(None): None,
    datetime: datetime(2030, 1, 1, tzinfo=UTC).isoformat(),
    date: "2030-01-01",
    time: "12:00:00",
    timedelta: "PT1S",
    Decimal: "1.5",
    UUID: str(UUID(int=1)),
}
_EMPTY: dict[Any, Any] = {list: [], set: [], frozenset: [], tuple: [], dict: {}, Mapping: {}}


def example_input(orchestrator: Orchestrator[..., Any], shape: ArgumentsShape) -> str | None:
    """JSON of arguments that fit; None where no such are found."""
    try:
        hints = typing.get_type_hints(orchestrator.fn, include_extras=True)
        parameters = list(inspect.signature(orchestrator.fn).parameters.values())[1:]
        text = json.dumps(
            {p.name: _example(hints.get(p.name, Any), p.name, 0) for p in parameters if p.default is p.empty}
        )
        shape.decode(text)
    except (PayloadError, TypeError, ValueError, NameError, AttributeError, RecursionError):
        return None
    return text


def _example(annotation: Any, name: str, depth: int) -> Any:
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _example(arguments[0], name, depth)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return None if type(None) in arguments else _example(arguments[0], name, depth + 1)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return [_example(argument, name, depth + 1) for argument in arguments]
    for kind, value in _EMPTY.items():
        if (origin or annotation) is kind:
            return value
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    if isinstance(annotation, type):
        return _example_of_class(annotation, name, depth)
    return name


def _example_of_class(cls: type[Any], name: str, depth: int) -> Any:
    if issubclass(cls, Enum):
        return next(iter(cls)).value
    fields = _required_fields(cls)
    if fields is None:
        return name
    return {field: _example(annotation, field, depth + 1) for field, annotation in fields.items()}


def _required_fields(cls: type[Any]) -> dict[str, Any] | None:
    """Names in JSON and types of the fields that must be given; None for a class that is no structure."""
    model_fields = getattr(cls, "model_fields", None)
    if isinstance(model_fields, dict):  # a pydantic model: what it is, without importing pydantic here
        fields = cast("dict[str, Any]", model_fields)
        return {str(f.alias or key): f.annotation for key, f in fields.items() if f.is_required()}
    if dataclasses.is_dataclass(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        missing = dataclasses.MISSING
        return {
            f.name: hints[f.name]
            for f in dataclasses.fields(cls)
            if f.init and f.default is missing and f.default_factory is missing
        }
    if typing.is_typeddict(cls):
        hints = typing.get_type_hints(cls)
        return {key: hints[key] for key in cast("frozenset[str]", cast(Any, cls).__required_keys__)}
    return None
