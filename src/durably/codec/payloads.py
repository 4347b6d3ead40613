"""The payload codec: what annotations say, through pydantic. How shapes work lives in `shapes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_origin

from durably.codec.shapes import ArgumentsShape, ValueShape, Verify
from durably.codec.signatures import function_name, return_annotation

MAX_PAYLOAD_BYTES = 4 * 1024 * 1024
_MAX_NAME = 80


class PydanticCodec:
    """Implements `core.payloads.PayloadCodec`.

    Args:
        verify: "first" checks `decode(encode(x)) == x` at the first use of a shape, and at every use where
            the annotation alone does not settle it (models, unions, Any, ...); "always" checks every time.
        max_bytes: largest payload, in bytes of JSON; 4 MiB unless given.
    """

    def __init__(self, verify: Verify = "first", *, max_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self._verify: Verify = verify
        self._max_bytes = max_bytes
        self._values: dict[tuple[str, Any], ValueShape] = {}
        self._results: dict[Callable[..., Any], ValueShape] = {}
        self._arguments: dict[tuple[Callable[..., Any], int], ArgumentsShape] = {}

    def value(self, annotation: Any) -> ValueShape:
        """The shape of an annotation.

        Raises:
            DefinitionError: pydantic cannot handle the annotation.
        """
        key = (repr(annotation), annotation)  # repr: `int | str` and `str | int` are equal but not the same
        try:
            shape = self._values.get(key)
        except TypeError:  # an annotation that cannot be hashed is not kept
            return self._shape(annotation, f"value of {_annotation_name(annotation)}")
        if shape is None:
            shape = self._values[key] = self._shape(annotation, f"value of {_annotation_name(annotation)}")
        return shape

    def result(self, fn: Callable[..., Any]) -> ValueShape:
        """The shape of what a function returns (of what its coroutine returns).

        Raises:
            DefinitionError: the annotation cannot be resolved or handled.
        """
        shape = self._results.get(fn)
        if shape is None:
            shape = self._results[fn] = self._shape(return_annotation(fn), f"result of {function_name(fn)}()")
        return shape

    def arguments(self, fn: Callable[..., Any], *, skip: int = 0) -> ArgumentsShape:
        """The shape of a function's parameters after the first `skip`.

        Raises:
            DefinitionError: the signature has *args or **kwargs, or an annotation cannot be resolved or
                handled.
        """
        shape = self._arguments.get((fn, skip))
        if shape is None:
            shape = ArgumentsShape(fn, skip, verify=self._verify, limit=self._max_bytes)
            self._arguments[fn, skip] = shape
        return shape

    def _shape(self, annotation: Any, subject: str) -> ValueShape:
        return ValueShape(annotation, subject=subject, verify=self._verify, limit=self._max_bytes)


def _annotation_name(annotation: Any) -> str:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__qualname__
    name = str(annotation).replace("typing.", "")
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."
