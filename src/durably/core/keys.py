"""Identities: which run, which activity."""

from __future__ import annotations

import re
from dataclasses import dataclass

from durably.core.errors import PayloadError

PERSISTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}")


def checked_text(given: object, what: str) -> str:
    """`given`, if it is text that a history can hold: anything else would be stored, and not be read again.

    Raises:
        TypeError: it is no text.
        PayloadError: UTF-8 cannot hold it.
    """
    if not isinstance(given, str):
        raise TypeError(f"{what} is text, got {given!r}.")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"{what} is text that UTF-8 can hold, got {given!r}.") from error
    return given


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """A run of one life of an execution."""

    execution_id: str
    gen: str
    run: int

    @property
    def next(self) -> RunKey:
        """The run after it."""
        return RunKey(self.execution_id, self.gen, self.run + 1)


@dataclass(frozen=True, slots=True, order=True)
class ActivityKey:
    """An activity of a run."""

    run: RunKey
    seq: int
