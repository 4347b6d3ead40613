"""Where two values differ, and where in a value something is. Knows values only, neither schemas nor JSON."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, time
from enum import Enum
from typing import Any, TypeAlias

from pydantic import BaseModel

Part: TypeAlias = int | str
"""One step into a value: an index, or the name of a field or key."""

_ABSENT: Any = object()
_LENIENT = (str, int, float, bytes, dict, list, tuple, set, frozenset)
_SCALARS = frozenset({str, int, bool, bytes, float, type(None)})
_MAX_DEPTH = 250


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a value came back changed.

    Attributes:
        parts: the way there.
        sent: what was there.
        back: what came back.
        non_text_key: it is a key that vanished because it is no text.
    """

    parts: tuple[Part, ...]
    sent: Any
    back: Any
    non_text_key: bool = False

    def under(self, part: Part) -> Difference:
        """The same difference, seen from the parent."""
        return Difference((part, *self.parts), self.sent, self.back, self.non_text_key)


def path_of(parts: tuple[Part, ...]) -> str:
    """`order.lines[2].price`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def difference(sent: Any, back: Any) -> Difference | None:
    """The first difference, types included; None where `back` is what was sent.

    An int where a float is annotated, and a value of a plain subclass of a built-in type, are no difference.
    """
    kind: Any = back.__class__
    if type(sent) is not kind and not _lenient(sent, kind):
        return Difference((), sent, back)
    compare = _comparisons.get(kind)
    if compare is None:
        compare = _comparisons[kind] = _comparison(kind)
    return compare(sent, back)


def _lenient(sent: Any, kind: type) -> bool:
    if kind is float and type(sent) is int:
        return True
    if isinstance(sent, (Enum, bool)) or hasattr(sent, "_fields"):
        return False
    return kind in _LENIENT and isinstance(sent, kind)


Comparison: TypeAlias = Callable[[Any, Any], Difference | None]


_comparisons: dict[type, Comparison] = {}


def _comparison(kind: Any) -> Comparison:
    if _derives(kind, BaseModel):
        fields = tuple(kind.model_fields)
        return lambda sent, back: _compare_models(sent, back, fields)
    if dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind) if field.compare)
        return lambda sent, back: _compare_attributes(sent, back, names)
    if _derives(kind, tuple) and hasattr(kind, "_fields"):
        names = kind._fields
        return lambda sent, back: _compare_attributes(sent, back, names)
    if _derives(kind, list, tuple, deque):
        return _compare_sequences
    if _derives(kind, dict):
        return _compare_dicts
    if _derives(kind, set, frozenset):
        return _compare_sets
    if _derives(kind, datetime, time):
        return _compare_times
    if kind.__eq__ is object.__eq__ and hasattr(kind, "__dict__"):
        return _compare_objects
    return _compare_leaves


def _derives(kind: Any, *bases: type) -> bool:
    return issubclass(kind, bases)


def _compare_leaves(sent: Any, back: Any) -> Difference | None:
    return None if sent is back or bool(sent == back) else Difference((), sent, back)


def _compare_times(sent: Any, back: Any) -> Difference | None:
    same = sent == back and sent.utcoffset() == back.utcoffset() and (sent.tzinfo is None) == (back.tzinfo is None)
    return None if same else Difference((), sent, back)


def _compare_objects(sent: Any, back: Any) -> Difference | None:
    if isinstance(sent, type) or not hasattr(sent, "__dict__"):
        return _compare_leaves(sent, back)
    names: dict[str, Any] = {**vars(sent), **vars(back)}
    return _compare_attributes(sent, back, tuple(names))


def _compare_attributes(sent: Any, back: Any, names: tuple[str, ...]) -> Difference | None:
    for name in names:
        before, after = getattr(sent, name, _ABSENT), getattr(back, name, _ABSENT)
        if type(before) is type(after) and type(after) in _SCALARS and before == after:
            continue
        found = difference(before, after)
        if found is not None:
            return found.under(name)
    return None


def _compare_models(sent: BaseModel, back: BaseModel, fields: tuple[str, ...]) -> Difference | None:
    found = _compare_attributes(sent, back, fields)
    if found is None and (sent.__pydantic_extra__ or back.__pydantic_extra__):
        found = _compare_dicts(sent.__pydantic_extra__ or {}, back.__pydantic_extra__ or {})
    if found is None and (sent.__pydantic_private__ or back.__pydantic_private__):
        found = _compare_dicts(sent.__pydantic_private__ or {}, back.__pydantic_private__ or {})
    return found


def _compare_sequences(sent: Any, back: Any) -> Difference | None:
    for index, (before, after) in enumerate(zip(sent, back, strict=False)):
        if type(before) is type(after) and type(after) in _SCALARS and before == after:
            continue
        found = difference(before, after)
        if found is not None:
            return found.under(index)
    return None if len(sent) == len(back) else Difference((), sent, back)


def _compare_dicts(sent: Any, back: Any) -> Difference | None:
    for (key, before), (key_back, after) in zip(sent.items(), back.items(), strict=False):
        if key != key_back or difference(key, key_back) is not None:
            break
        found = difference(before, after)
        if found is not None:
            return found.under(_key_part(key))
    else:
        if len(sent) == len(back):
            return None
    lost = [key for key in sent if key not in back]
    gained = [key for key in back if key not in sent]
    if lost:
        return Difference((_key_part(lost[0]),), sent[lost[0]], _ABSENT, not isinstance(lost[0], str))
    if gained:
        return Difference((_key_part(gained[0]),), _ABSENT, back[gained[0]])
    return Difference((), sent, back)


def _compare_sets(sent: Any, back: Any) -> Difference | None:
    same = sent == back and {(type(item), item) for item in sent} == {(type(item), item) for item in back}
    return None if same else Difference((), sent, back)


def is_absent(value: Any) -> bool:
    """Whether a side of a difference has nothing there."""
    return value is _ABSENT


def children(value: Any) -> Iterator[tuple[Part, Any]]:
    """The steps that lead one level down."""
    kind: Any = value.__class__
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield name, getattr(value, name, None)
        yield from (value.__pydantic_extra__ or {}).items()
    elif dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            yield field.name, getattr(value, field.name, None)
    elif _derives(kind, tuple) and hasattr(kind, "_fields"):
        yield from zip(value._fields, value, strict=False)
    elif _derives(kind, dict):
        for key, item in value.items():
            yield _key_part(key), item
    elif _derives(kind, list, tuple, deque, set, frozenset):
        yield from enumerate(value)


def find(value: Any, wanted: Callable[[Any], bool]) -> tuple[tuple[Part, ...], Any] | None:
    """The way to the first part of `value` that is wanted, and that part. Cycles are walked once."""
    return _find(value, wanted, (), set())


def _find(
    value: Any, wanted: Callable[[Any], bool], parts: tuple[Part, ...], seen: set[int]
) -> tuple[tuple[Part, ...], Any] | None:
    if wanted(value):
        return parts, value
    if len(parts) >= _MAX_DEPTH or id(value) in seen:
        return None
    if _derives(type(value), dict):
        for key in value:
            if wanted(key):
                return (*parts, _key_part(key)), key
    nested = list(children(value))
    if nested:
        seen.add(id(value))
    for part, child in nested:
        found = _find(child, wanted, (*parts, part), seen)
        if found is not None:
            return found
    return None


def resolve(value: Any, location: tuple[Part, ...]) -> tuple[Part, ...]:
    """Pydantic's location as a way into `value`: without the names of union members and validators."""
    parts: list[Part] = []
    for number, step in enumerate(location, start=1):
        if location[number : number + 1] == ("[key]",):
            return (*parts, step)
        found = _step(value, step)
        if found is not None:
            part, value = found
            parts.append(part)
        elif number == len(location) and isinstance(step, str) and step.isidentifier() and _is_object(value):
            parts.append(step)  # what should have been there is missing
    return tuple(parts)


def _step(value: Any, step: Part) -> tuple[Part, Any] | None:
    for part, child in children(value):
        if part == step or (isinstance(value, dict) and part == str(step)):
            return part, child
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            if step in (field.alias, field.serialization_alias, field.validation_alias):
                return name, getattr(value, name, None)
    return None


def _is_object(value: Any) -> bool:
    return isinstance(value, (dict, BaseModel)) or dataclasses.is_dataclass(value)


def _key_part(key: Any) -> Part:
    return key if type(key) is str or type(key) is int else str(key)
