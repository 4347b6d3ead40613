"""Shapes: prepared encoders and decoders of one annotation, or of one function's arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NotRequired, Required

from pydantic_core import from_json
from typing_extensions import TypedDict

from durably.codec.difference import difference
from durably.codec.refusals import changed, lost, too_large, undecodable, unfit, unserialisable
from durably.codec.schema import Check, Prepared, prepare_payload
from durably.codec.signatures import Signature
from durably.core.errors import DefinitionError, DurablyError

Verify = Literal["first", "always"]

_UNCHECKED_BYTES = 4_000  # a longer text is checked each time: only there a number can have too many digits


class _Verified:
    """Encodes and decodes one annotation, and makes sure that what is encoded comes back equal."""

    __slots__ = (
        "_check",
        "_limit",
        "_load",
        "_prepared",
        "_subject",
        "_unchecked",
        "_validate",
        "_verify",
        "_write",
    )

    def __init__(self, prepared: Prepared, *, subject: str, verify: Verify, limit: int) -> None:
        self._prepared = prepared
        self._subject = subject
        self._validate = prepared.validator.validate_python
        self._load = prepared.validator.validate_json
        self._write = prepared.serializer.to_json
        self._check = prepared.check
        self._verify = verify
        self._limit = limit
        self._unchecked = -1  # bytes up to which a text is not checked

    def encode(self, value: Any) -> str:
        try:
            self._validate(value, strict=True)
        except Exception as error:
            raise unfit(self._subject, value, error) from error
        try:
            raw = self.dump(value) if self._check == Check.FULL else self._write(value)
        except Exception as error:
            serializer, validator = self._prepared.serializer, self._prepared.validator
            raise unserialisable(self._subject, value, error, serializer, validator) from error
        size = len(raw)
        if size > self._unchecked:
            if size > self._limit:
                raise too_large(self._subject, size, self._limit)
            self._compare(value, raw)
        return raw.decode()

    def _compare(self, value: Any, raw: bytes) -> None:
        try:
            back = self._load(raw)
            if b"NaN" in raw or b"Infinity" in raw:
                from_json(raw, allow_inf_nan=False)
        except Exception as error:
            raise lost(self._subject, value, error) from error
        if self._check == Check.FULL or back != value:
            found = difference(value, back)
            if found is not None:
                raise changed(self._subject, value, found)
        if self._check == Check.NONE and self._verify == "first":
            self._unchecked = min(_UNCHECKED_BYTES, self._limit)

    def decode(self, text: str) -> Any:
        try:
            if "NaN" in text or "Infinity" in text:
                from_json(text, allow_inf_nan=False)
            return self._load(text)
        except Exception as error:
            raise undecodable(self._subject, text, error) from error

    def dump(self, value: Any) -> bytes:
        # Without pydantic's warnings, which cost 1 us: what they warn of shows when the text is read back.
        return self._write(value, by_alias=True, round_trip=True, warnings=False)


class ValueShape:
    """The shape of one annotation: `core.payloads.Shape`."""

    __slots__ = ("_verified",)

    def __init__(self, annotation: Any, *, subject: str, verify: Verify, limit: int) -> None:
        self._verified = _Verified(_prepare(annotation, subject), subject=subject, verify=verify, limit=limit)

    def encode(self, value: Any) -> str:
        """JSON text."""
        return self._verified.encode(value)

    def decode(self, text: str) -> Any:
        """The value."""
        return self._verified.decode(text)

    def same(self, recorded: str, current: str) -> bool:
        """Whether two texts mean the same value to today's type."""
        if recorded == current:
            return True
        try:
            again = self._verified.dump(self._verified.decode(recorded))
            return _canonical(again) == _canonical(current)
        except Exception:  # what today's type cannot read is not the same
            return False


class ArgumentsShape:
    """The shape of one function's arguments: `core.payloads.ArgumentsShape`."""

    __slots__ = ("_signature", "_verified")

    def __init__(self, fn: Callable[..., Any], skip: int, *, verify: Verify, limit: int) -> None:
        self._signature = signature = Signature(fn, skip)
        subject = f"arguments of {signature.function}()"
        fields = {
            name: NotRequired[annotation] if name in signature.defaults else Required[annotation]
            for name, annotation in signature.annotations.items()
        }
        prepared = _prepare_arguments(fields, signature)
        self._verified = _Verified(prepared, subject=subject, verify=verify, limit=limit)

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """JSON text; omitted optional arguments stay omitted."""
        return self._verified.encode(self._signature.bind(args, kwargs))

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments to call the function with."""
        return self._signature.unbind(self._verified.decode(text))

    def same(self, recorded: str, current: str) -> bool:
        """Whether two texts mean the same arguments, an omitted one meaning its default."""
        if recorded == current:
            return True
        try:
            before, now = self._verified.decode(recorded), self._verified.decode(current)
            for name, default in self._signature.defaults.items():
                if (name in before) != (name in now):
                    before.setdefault(name, default)
                    now.setdefault(name, default)
            return _canonical(self._verified.dump(before)) == _canonical(self._verified.dump(now))
        except Exception:  # what today's signature cannot read is not the same
            return False


def _prepare_arguments(fields: dict[str, Any], signature: Signature) -> Prepared:
    define: Any = TypedDict
    try:
        shape = define(signature.function, fields)
        shape.__pydantic_config__ = {"extra": "forbid"}
        return prepare_payload(shape)
    except Exception:  # which parameter is to blame?
        for name, annotation in signature.annotations.items():
            _prepare(annotation, f"parameter {name!r} of {signature.function}()")
        raise


def _prepare(annotation: Any, subject: str) -> Prepared:
    try:
        return prepare_payload(annotation)
    except DurablyError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise DefinitionError(
            f"The annotation of the {subject} must be a type that pydantic can validate, but {annotation!r} "
            f"is not: {reason} Use a model, a dataclass, or another type of docs/payloads.md."
        ) from error


def _canonical(text: str | bytes) -> str:
    return json.dumps(json.loads(text), sort_keys=True)
