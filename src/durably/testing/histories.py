"""Reading a history in a test: as lines that say what happened to what."""

from __future__ import annotations

from collections.abc import Iterable

from durably.core.events import ActivityScheduled, Event, TimerStarted
from durably.core.history import HistoryEntry


def outline(history: Iterable[HistoryEntry]) -> list[str]:
    """The history, a line an event: its kind, and the name of what it is about.

    Of an activity that is its name, of a timer its length, of the start the orchestrator:
    `["ExecutionStarted route_packet", "ActivityScheduled get_route", "ActivityCompleted get_route", ...]`.
    """
    names: dict[int, str] = {}
    lines: list[str] = []
    for entry in history:
        name = _name_of(entry.event, names)
        lines.append(f"{entry.event.kind} {name}" if name else entry.event.kind)
    return lines


def assert_in_order(history: Iterable[HistoryEntry], *lines: str) -> None:
    """These lines of the outline are in the history, in this order, whatever else is between them.

    A line may be a kind alone: `"TimerFired"` stands for the next one, whichever timer it is.
    """
    found = outline(history)
    position = 0
    for index, line in enumerate(lines):
        while position < len(found) and line not in (found[position], found[position].partition(" ")[0]):
            position += 1
        after = f" after {lines[index - 1]!r}" if index else ""
        assert position < len(found), f"no {line!r}{after} in this history:\n  " + "\n  ".join(found)
        position += 1


def _name_of(event: Event, names: dict[int, str]) -> str:
    seq = getattr(event, "seq", None)
    name: str
    if isinstance(event, TimerStarted):
        name = f"{event.delay_ms / 1000:g} s"
    elif isinstance(event, ActivityScheduled):
        name = event.name
    elif seq is not None and seq in names:
        return names[seq]
    else:
        name = str(getattr(event, "name", None) or getattr(event, "orchestrator", ""))
    if isinstance(seq, int):
        names[seq] = name
    return name
