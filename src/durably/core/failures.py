"""Failures: exceptions as data. A failure is what is stored and sent; an error is what Python raises."""

from __future__ import annotations

import builtins
import traceback
from dataclasses import dataclass

_MAX_DEPTH = 20
_MAX_MESSAGE = 10_000
_MAX_STACK = 20_000
_MAX_MEMBERS = 100
_HIDDEN_BASES = frozenset({"builtins.object", "builtins.BaseException", "builtins.Exception"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A serialised exception.

    Attributes:
        type: qualified name of the exception's class, `module.QualName`.
        message: `str(exception)`, at most 10,000 characters.
        bases: qualified names of its base classes, so that `matches(OSError)` holds for a ConnectionError.
        stack: the formatted traceback, innermost frame last.
        cause: the failure that this one was raised from.
        members: the failures of an exception group, at most the first 100 of them.
        non_retryable: True where no retry policy may try again.
        retry_after_ms: the delay before the next attempt that the activity itself asked for.
    """

    type: str
    message: str
    bases: tuple[str, ...] = ()
    stack: str | None = None
    cause: Failure | None = None
    members: tuple[Failure, ...] = ()
    non_retryable: bool | None = None
    retry_after_ms: int | None = None

    def matches(self, wanted: str | builtins.type[BaseException]) -> bool:
        """Whether the class named or given is this failure's class or one of its bases."""
        name = wanted if isinstance(wanted, str) else qualified_name(wanted)
        if name in _HIDDEN_BASES or f"builtins.{name}" in _HIDDEN_BASES:
            return True
        candidates = (self.type, *self.bases)
        if "." in name:
            return name in candidates or f"builtins.{name}" in candidates
        return any(candidate.rpartition(".")[2] == name for candidate in candidates)

    def __str__(self) -> str:
        short = self.type.removeprefix("builtins.")
        return f"{short}: {self.message}" if self.message else short


def qualified_name(cls: type) -> str:
    """`module.QualName` of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def failure_of(error: BaseException, *, _depth: int = 0) -> Failure:
    """The failure that describes `error`, with its causes and group members (at most 20 levels)."""
    carried = getattr(error, "failure", None)
    if isinstance(carried, Failure) and getattr(error, "passes_failure_on", False):
        return carried
    cause: Failure | None = None
    members: tuple[Failure, ...] = ()
    if _depth < _MAX_DEPTH:
        if isinstance(carried, Failure):
            cause = carried
        else:
            source = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            if source is not None and source is not error:
                cause = failure_of(source, _depth=_depth + 1)
        members = tuple(failure_of(member, _depth=_depth + 1) for member in members_of(error)[:_MAX_MEMBERS])
    cls = type(error)
    bases = tuple(name for name in map(qualified_name, cls.__mro__[1:]) if name not in _HIDDEN_BASES)
    retry_after = getattr(error, "retry_after_ms", None)
    return Failure(
        type=qualified_name(cls),
        message=message_of(error),
        bases=bases,
        stack=_stack(error),
        cause=cause,
        members=members,
        non_retryable=True if getattr(error, "non_retryable", False) is True else None,
        retry_after_ms=retry_after if isinstance(retry_after, int) else None,
    )


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """The members of an exception group; of anything else, none."""
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def message_of(error: BaseException) -> str:
    """`str(error)`, whatever that does."""
    try:
        text = str(error)
    except Exception as broken:  # a user's __str__ may raise anything
        text = f"<str() of the error raised {type(broken).__name__}>"
    return _storable(text)[:_MAX_MESSAGE]


def _stack(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    text = "".join(traceback.format_tb(error.__traceback__))
    return _storable(text)[-_MAX_STACK:]


def _storable(text: str) -> str:
    """Without lone surrogates, which no UTF-8 store takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
