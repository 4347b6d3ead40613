"""Identities: which run, which activity."""

from __future__ import annotations

import re
from dataclasses import dataclass

PERSISTED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,127}")


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
