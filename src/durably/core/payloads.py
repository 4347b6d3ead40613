"""What the core needs of a payload codec. Payloads are JSON text; only `durably.codec` knows how it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from durably.core.errors import PayloadError

_LARGEST_STATUS_BYTES = 8 * 1024


class Shape(Protocol):
    """Encodes and decodes the values of one annotation."""

    def encode(self, value: Any) -> str:
        """JSON text.

        Raises:
            PayloadError: `value` does not fit the annotation, or would come back as something else.
        """
        ...

    def decode(self, text: str) -> Any:
        """The value.

        Raises:
            PayloadError: `text` does not fit the annotation.
        """
        ...

    def same(self, recorded: str, current: str) -> bool:
        """Whether two texts mean the same value to today's types (an added optional field is no difference)."""
        ...


class ArgumentsShape(Protocol):
    """Encodes and decodes the arguments of one function as a JSON object by parameter name."""

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """JSON text; omitted optional arguments stay omitted.

        Raises:
            TypeError: the arguments do not fit the signature.
            PayloadError: an argument does not fit its annotation, or would come back as something else.
        """
        ...

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments to call the function with.

        Raises:
            PayloadError: `text` does not fit the signature.
        """
        ...

    def same(self, recorded: str, current: str) -> bool:
        """Whether two texts mean the same arguments to today's signature."""
        ...


class PayloadCodec(Protocol):
    """Prepares shapes; each is made once and kept."""

    def value(self, annotation: Any) -> Shape:
        """The shape of an annotation."""
        ...

    def result(self, fn: Callable[..., Any]) -> Shape:
        """The shape of what a function returns (of what its coroutine returns)."""
        ...

    def arguments(self, fn: Callable[..., Any], *, skip: int = 0) -> ArgumentsShape:
        """The shape of a function's parameters after the first `skip`."""
        ...


def checked_status(text: str) -> str:
    """A custom status, if it is small: it stands in the execution's record, beside the result, and in every list.

    Raises:
        PayloadError: it is not.
    """
    size = len(text.encode())
    if size > _LARGEST_STATUS_BYTES:
        raise PayloadError(
            f"A status has at most {_LARGEST_STATUS_BYTES:,} bytes of JSON, got {size:,}. Show how far the execution "
            "is; a query can answer with more."
        )
    return text
