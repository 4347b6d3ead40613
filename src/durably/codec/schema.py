"""Annotations to prepared validators and serializers. All rewriting of pydantic's core schemas lives here.

Rewriting is what lets one setting reach the models nested in a payload, whose own configuration would
otherwise win: bytes travel as base64, sets in a fixed order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias, cast

from pydantic import TypeAdapter
from pydantic_core import CoreConfig, CoreSchema, SchemaSerializer, SchemaValidator

Node: TypeAlias = dict[str, Any]

_VALUES = frozenset({"metadata", "default", "expected", "members", "config", "cls", "custom_error_context"})
_SETS = frozenset({"set", "frozenset"})
_CONFIGURED = frozenset({"model", "dataclass", "typed-dict"})
_BASE64: Node = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
_PAYLOAD_CONFIG = cast(CoreConfig, {**_BASE64, "allow_inf_nan": False})

_EXACT_LEAVES = frozenset({"none", "bool", "int", "bytes", "uuid", "date"})
_EQUAL_LEAVES = frozenset({"float", "datetime", "timedelta", "decimal"})  # an int or a Decimal may be given as a float
_EQUAL_KEYS = frozenset({"str", "int", "uuid"})
_PLAIN_FIELD = frozenset({"type", "schema", "required", "metadata"})
_CHANGES_TEXT = ("strip_whitespace", "to_lower", "to_upper", "ascii_only", "serialization")


class Check(IntEnum):
    """What it takes to know that a value of the annotated type comes back from JSON as it was sent."""

    NONE = 0
    """The annotation alone settles it."""
    EQUALITY = 1
    """Compare by `==`: text that JSON cannot hold, digits, time zones."""
    FULL = 2
    """Compare piece by piece, types included: it may be of a subclass, or of a union's other member."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A validator and a serializer of one annotation.

    Attributes:
        check: what each value needs after it was encoded.
    """

    validator: SchemaValidator
    serializer: SchemaSerializer
    check: Check


def prepare_payload(annotation: Any) -> Prepared:
    """For payloads: whatever a user may annotate.

    Raises:
        Exception: whatever pydantic raises for an annotation that it cannot handle.
    """
    schema = rewrite(cast(Node, TypeAdapter(annotation).core_schema), _adapt_payload_node)
    return build(schema, _PAYLOAD_CONFIG, check=_check(schema))


def build(schema: Node, config: CoreConfig, *, check: Check = Check.NONE) -> Prepared:
    """Compile a rewritten schema; never from what pydantic prepared with the models' own configuration."""
    core = cast(CoreSchema, schema)
    return Prepared(
        SchemaValidator(core, config, _use_prebuilt=False),
        SchemaSerializer(core, config, _use_prebuilt=False),
        check,
    )


def rewrite(node: Node, change: Callable[[Node], Node]) -> Node:
    """A copy of the schema in which `change` was applied to every node, leaves first."""
    return change({key: child if key in _VALUES else _rewrite_child(child, change) for key, child in node.items()})


def _rewrite_child(child: Any, change: Callable[[Node], Node]) -> Any:
    match child.__class__.__name__:
        case "dict" if isinstance(child.get("type"), str):
            return rewrite(child, change)
        case "dict":
            return {key: _rewrite_child(value, change) for key, value in child.items()}
        case "list":
            return [_rewrite_child(value, change) for value in child]
        case "tuple":
            return tuple(_rewrite_child(value, change) for value in child)
        case _:
            return child


def _adapt_payload_node(node: Node) -> Node:
    kind = node["type"]
    if kind in _CONFIGURED:
        own = node.get("config", {})
        if not _BASE64.keys() & own.keys():
            node["config"] = {**own, **_BASE64}
    elif kind in _SETS and "serialization" not in node:
        node["serialization"] = {
            "type": "function-wrap",
            "function": _in_fixed_order,
            "schema": {key: value for key, value in node.items() if key != "ref"},
            "when_used": "json",
        }
    return node


def _in_fixed_order(value: Any, serialize: Callable[[Any], Any]) -> Any:
    items = serialize(value)
    if items.__class__ is not list:
        return items
    values: list[Any] = items
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=_sort_key)


def _sort_key(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _check(node: Node) -> Check:
    kind = node["type"]
    if "serialization" in node and kind not in _SETS:  # whose serialization is ours
        return Check.FULL
    if kind in _EXACT_LEAVES:
        return Check.NONE
    if kind in _EQUAL_LEAVES:
        return Check.EQUALITY
    rule = _RULES.get(kind)
    return Check.FULL if rule is None else rule(node)


def _check_text(node: Node) -> Check:
    return Check.FULL if any(key in node for key in _CHANGES_TEXT) else Check.NONE


def _check_plain(values: list[Any]) -> Check:
    one_type = all(type(value) is str for value in values) or all(type(value) is int for value in values)
    return Check.NONE if one_type else Check.FULL


def _check_items(node: Node) -> Check:
    return _check(node["items_schema"]) if "items_schema" in node else Check.FULL


def _check_tuple(node: Node) -> Check:
    return max((_check(item) for item in node["items_schema"]), default=Check.NONE)


def _check_dict(node: Node) -> Check:
    keys, values = node.get("keys_schema"), node.get("values_schema")
    if not keys or not values or keys["type"] not in _EQUAL_KEYS:
        return Check.FULL
    return max(Check.EQUALITY, _check(keys), _check(values))


def _check_typed_dict(node: Node) -> Check:
    config = node.get("config", {})
    if "forbid" not in (node.get("extra_behavior"), config.get("extra_fields_behavior")):
        return Check.FULL
    return max((_check_field(field) for field in node["fields"].values()), default=Check.NONE)


def _check_field(field: Node) -> Check:
    return _check(field["schema"]) if field.keys() <= _PLAIN_FIELD else Check.FULL


_RULES: dict[str, Callable[[Node], Check]] = {
    "str": _check_text,
    "enum": lambda node: _check_plain([member.value for member in node["members"]]),
    "literal": lambda node: _check_plain(node["expected"]),
    "nullable": lambda node: _check(node["schema"]),
    "list": _check_items,
    "set": _check_items,
    "frozenset": _check_items,
    "tuple": _check_tuple,
    "dict": _check_dict,
    "typed-dict": _check_typed_dict,
}
