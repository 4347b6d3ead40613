"""Turns, and the history they add up to. Data only: how a history is replayed lives in `replay`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from durably.core.events import Event, InboundEvent, OutboundEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Turn `number` (1-based, gapless) of a run: what arrived, and what the orchestrator asked for.

    Attributes:
        kind: "applied", or "deferred" when the events are stored for a later turn to apply.
        inbound: the events this turn adds to the run, stamped, in the order in which they are applied.
        outbound: what the orchestrator asked for while inbound events up to `applied_through` were applied.
        applied_through: how many inbound events of the run are applied once this turn is.
        nonce: drawn by the writer, so that it knows its own turn again after a lost response.
        code_version: version of the orchestrators that took the turn.
        at_ms: when it was taken.
    """

    number: int
    kind: Literal["applied", "deferred"]
    inbound: tuple[InboundEvent, ...]
    outbound: tuple[OutboundEvent, ...]
    applied_through: int
    nonce: str
    code_version: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of a history as people read it.

    Attributes:
        number: 1-based position.
        turn: the turn that stored the event.
        event: the event.
        applied: False while the event waits in a deferred turn.
        code_version: of the orchestrators when that turn was taken.
    """

    number: int
    turn: int
    event: Event
    applied: bool
    code_version: str = ""


def read_history(turns: Iterable[Turn]) -> Iterator[HistoryEntry]:
    """The events of `turns` in causal order: each inbound event, then what it caused."""
    inbound: list[tuple[Turn, InboundEvent]] = []
    caused: dict[int, list[tuple[Turn, OutboundEvent]]] = {}
    applied_through = 0
    for turn in turns:
        inbound.extend((turn, event) for event in turn.inbound)
        for asked in turn.outbound:
            caused.setdefault(asked.cause, []).append((turn, asked))
        applied_through = turn.applied_through
    number = 0
    for ordinal, (turn, event) in enumerate(inbound, start=1):
        number += 1
        yield HistoryEntry(number, turn.number, event, ordinal <= applied_through, turn.code_version)
        for turn_after, outbound in caused.get(ordinal, ()):
            number += 1
            yield HistoryEntry(number, turn_after.number, outbound, applied=True, code_version=turn_after.code_version)
