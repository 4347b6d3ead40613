"""Identities: which run, which activity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """A run of one life of an execution."""

    execution_id: str
    gen: str
    run: int


@dataclass(frozen=True, slots=True, order=True)
class ActivityKey:
    """An activity of a run."""

    run: RunKey
    seq: int
