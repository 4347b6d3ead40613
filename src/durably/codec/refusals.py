"""What a refused payload is told: expected, got, likely cause, remedy, and the path of the field."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from datetime import datetime, time
from math import isfinite
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails, SchemaSerializer, SchemaValidator, from_json

from durably.codec.difference import Difference, Part, difference, find, is_absent, path_of, resolve
from durably.core.errors import PayloadError

_MAX_REPR = 80
_FIT = "Pass a value of the annotated type, or change the annotation."
_JSON_TYPES = (str, int, float, bool, type(None), list, dict)


def refusal(subject: str, parts: tuple[Part, ...], *, expected: str, got: str, cause: str, remedy: str) -> PayloadError:
    """The error, in the four parts that every message has."""
    path = path_of(parts)
    where = f"{subject}, at {path}" if path else subject
    return PayloadError(f"{where}: expected {expected}, got {got}. {cause} {remedy}", path=path)


def too_large(subject: str, size: int, limit: int) -> PayloadError:
    """The payload is over the limit."""
    return refusal(
        subject,
        (),
        expected=f"at most {limit:,} bytes of JSON",
        got=f"{size:,}",
        cause="Payloads are stored in history and sent through queues.",
        remedy="Store the data elsewhere (S3, a file, a table) and pass a reference to it.",
    )


def unfit(subject: str, value: Any, error: Exception) -> PayloadError:
    """Strict validation refused `value`, on its way out."""
    if isinstance(error, ValidationError):
        return _invalid(subject, value, error, cause="The value does not fit its annotation.", remedy=_FIT)
    return _broken(subject, value, error, "be validated")


def undecodable(subject: str, text: str | bytes, error: Exception) -> PayloadError:
    """`text` does not fit the annotation."""
    if not isinstance(error, ValidationError):
        parsed = _parsed(text)
        number = find(parsed, _not_finite)
        if number is not None:
            return refusal(
                subject,
                number[0],
                expected="a finite number",
                got=_shown(number[1]),
                cause="JSON has no NaN and no infinity.",
                remedy="Send null or a string instead.",
            )
        return _broken(subject, text, error, "be decoded")
    return _invalid(
        subject,
        _parsed(text),
        error,
        cause="The JSON does not fit the annotation.",
        remedy="Send what it asks for; if earlier code wrote it, change the annotation compatibly (new fields are "
        "optional).",
    )


def unserialisable(
    subject: str, value: Any, error: Exception, serializer: SchemaSerializer, validator: SchemaValidator
) -> PayloadError:
    """Serialising `value` failed: find out where."""
    if isinstance(error, RecursionError):
        return _too_deep(subject, value)
    text = find(value, _has_surrogates)
    if text is not None:
        return _surrogate(subject, *text)
    unknown: list[Any] = []

    def note(item: Any) -> None:
        unknown.append(item)

    try:
        raw = serializer.to_json(value, by_alias=True, round_trip=True, warnings="none", fallback=note)
        if unknown:
            return _unknown(subject, value, unknown[0])
        found = difference(value, validator.validate_json(raw))
    except ValidationError as invalid:
        return lost(subject, value, invalid)
    except RecursionError:
        return _too_deep(subject, value)
    except Exception as again:
        if "ircular reference" in str(again) or "depth" in str(again):
            return _too_deep(subject, value)
        return _broken(subject, value, error, "be written as JSON")
    return _broken(subject, value, error, "be written as JSON") if found is None else changed(subject, value, found)


def lost(subject: str, value: Any, error: Exception) -> PayloadError:
    """What was just encoded from `value` does not decode."""
    text = find(value, _has_surrogates)
    if text is not None:
        return _surrogate(subject, *text)
    number = find(value, _not_finite)
    if number is not None:
        return changed(subject, value, Difference(number[0], number[1], None))
    if not isinstance(error, ValidationError):
        return _broken(subject, value, error, "be decoded again")
    first = error.errors(include_url=False)[0]
    if "recursion limit" in first["msg"]:
        return _too_deep(subject, value)
    if first["type"] == "missing":
        cause = "The field is left out of the JSON (exclude=True), or written and read under different aliases."
        remedy = "Include the field and give it one alias, or give it a default and send it as that default."
    else:
        cause = "What was written as JSON does not fit the annotation when it is read back."
        remedy = "Use a type that JSON can hold both ways (string keys, one alias, no one-way serializer)."
    return _invalid(subject, value, error, cause=cause, remedy=remedy)


def changed(subject: str, value: Any, found: Difference) -> PayloadError:
    """`value` would come back as something else."""
    text = find(value, _has_surrogates)
    if text is not None:
        return _surrogate(subject, *text)
    cause, remedy = _why(found)
    return refusal(
        subject,
        found.parts,
        expected=f"a value that comes back from JSON as it was sent, {_shown(found.sent)}",
        got=_shown(found.back),
        cause=cause,
        remedy=remedy,
    )


def _why(found: Difference) -> tuple[str, str]:
    sent, back = found.sent, found.back
    if is_absent(back) and found.non_text_key:
        return (
            "JSON has only text as keys, and nothing says what the key was.",
            "Annotate dict[<key type>, ...].",
        )
    if is_absent(back):
        return (
            "It is not part of the annotated type, so it would vanish.",
            "Annotate the type that declares it.",
        )
    if is_absent(sent):
        return "The annotated type adds the field or key.", "Set it before sending."
    if _not_finite(sent):
        return "JSON has no NaN and no infinity.", "Send None (float | None) or a string instead."
    if isinstance(sent, (SecretStr, SecretBytes)):
        return (
            "A secret is written as stars, and histories are no place for secrets.",
            "Pass the secret's name and read it inside the activity.",
        )
    if isinstance(sent, (datetime, time)) and isinstance(back, (datetime, time)):
        return (
            "JSON keeps an offset in whole minutes, not the time zone.",
            "Convert it first: value.astimezone(UTC).",
        )
    if type(sent) is not type(back):
        return _why_another_type(sent, back)
    if found.parts and isinstance(found.parts[-1], str) and found.parts[-1].startswith("_"):
        return "Private attributes are not sent.", "Make it a field, or leave it unset."
    return (
        "The field is excluded, or a validator or serializer changes the value on its way.",
        "Include the field (no exclude=True), and make its validator and serializer each other's inverse.",
    )


def _why_another_type(sent: Any, back: Any) -> tuple[str, str]:
    sent_name, back_name = type(sent).__name__, type(back).__name__
    if isinstance(sent, type(back)) and not isinstance(back, _JSON_TYPES):
        return (
            f"{sent_name} is a subclass of the annotated {back_name}: what it adds would vanish.",
            f"Annotate {sent_name}, or a union told apart by a Literal field (Field(discriminator=...)).",
        )
    if isinstance(back, _JSON_TYPES) and type(sent) not in _JSON_TYPES:
        return (
            "The annotation is missing or Any, or does not tell this type: it would come back as plain JSON.",
            f"Annotate {sent_name}, or send plain JSON values.",
        )
    if not isinstance(back, (Sized, *_JSON_TYPES)) and isinstance(back, Iterator):
        return "An iterable would be read lazily, and only once.", "Annotate list[...] and send a list."
    return (
        f"The annotation reads this JSON as {back_name}: it is another type, or a union whose members look alike.",
        f"Send a {back_name}, or tell the union's models apart by a Literal field (Field(discriminator=...)).",
    )


def _surrogate(subject: str, parts: tuple[Part, ...], text: str) -> PayloadError:
    return refusal(
        subject,
        parts,
        expected="text that UTF-8 can hold",
        got=_shown(text),
        cause="It has a lone surrogate (half a character), often from os.fsdecode or surrogateescape.",
        remedy="Send bytes, or encode the text with errors='replace' first.",
    )


def _invalid(subject: str, value: Any, error: ValidationError, *, cause: str, remedy: str) -> PayloadError:
    details = error.errors(include_url=False)
    first = details[0]
    if first["type"] == "json_invalid":
        cause = f"{first['msg']}."
    parts = resolve(value, first["loc"])
    wishes = dict.fromkeys(_wish(detail) for detail in details if resolve(value, detail["loc"]) == parts)
    missing = first["type"].startswith("missing")
    return refusal(
        subject,
        parts,
        expected=" or ".join(wishes),
        got=_nothing_but(details) if missing else _shown(first["input"]),
        cause=cause,
        remedy=remedy,
    )


def _nothing_but(details: list[ErrorDetails]) -> str:
    """Nothing, or what may be a misspelling of it."""
    unknown = [repr(detail["loc"][-1]) for detail in details if detail["type"] == "extra_forbidden"]
    return f"nothing, but {', '.join(unknown)}, which is no name here" if unknown else "nothing"


def _wish(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return "a value, the field is required"
        case "extra_forbidden":
            return "no such name"
        case "json_invalid":
            return "valid JSON"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def _unknown(subject: str, value: Any, item: Any) -> PayloadError:
    found = find(value, lambda candidate: candidate is item)
    return refusal(
        subject,
        found[0] if found else (),
        expected="a value that JSON can hold",
        got=_shown(item),
        cause=f"{type(item).__name__} has no JSON form.",
        remedy="Send plain data (a model, a dataclass), and open resources inside the activity.",
    )


def _too_deep(subject: str, value: Any) -> PayloadError:
    return refusal(
        subject,
        (),
        expected="at most about 200 levels of nesting",
        got=f"a {type(value).__name__} nested deeper, or one that contains itself",
        cause="JSON is read back with a limit on nesting, and cannot hold cycles.",
        remedy="Send a flat form, such as a list of nodes that refer to each other by id.",
    )


def _broken(subject: str, value: Any, error: Exception, purpose: str) -> PayloadError:
    refused = refusal(
        subject,
        (),
        expected=f"a value that can {purpose}",
        got=_shown(value),
        cause=f"{type(error).__name__}: {str(error)[:500]}.",
        remedy="Fix the type's validator or serializer, or send plain data.",
    )
    refused.__cause__ = error
    return refused


def _parsed(text: str | bytes) -> Any:
    try:
        return from_json(text)
    except (ValueError, TypeError):
        return None


def _has_surrogates(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not isfinite(value)


def _shown(value: Any) -> str:
    if is_absent(value):
        return "nothing"
    if isinstance(value, BaseModel):
        return f"a {type(value).__name__}"
    try:
        text = repr(value)
    except Exception as broken:  # a user's __repr__ may raise anything
        text = f"<repr() raised {type(broken).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    text = text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}..."
    return text if value is None else f"{text} ({type(value).__name__})"
