"""What the record says of an open run, also where whoever stored a turn died before saying it."""

from __future__ import annotations

from dataclasses import replace

from durably.core.history import Turn
from durably.ports.backend import TurnCommit
from durably.ports.records import RecordChange, Status
from durably.runtime.live import Live


def implied(live: Live, kind: str) -> Status:
    """The status that goes with an open run after a turn of a kind; `live.state` holds the turn."""
    if live.state.suspended:
        return "suspended"
    return "running" if kind == "applied" else live.status


def change_to(status: Status, live: Live, turn: Turn) -> RecordChange:
    """The change of the status alone."""
    return RecordChange(status=status, run=live.run.run, turn=turn.number, code_version=turn.code_version)


def correction(live: Live, last: Turn, receipts: tuple[str, ...]) -> TurnCommit:
    """The end of a stall, or a suspension, said by whoever finds it unsaid."""
    live.status, live.resumed = implied(live, last.kind), False
    return TurnCommit(run=live.run, turn=last, change=change_to(live.status, live, last), acknowledge=receipts)


def also_saying(status: str | None, change: RecordChange | None) -> RecordChange | None:
    """The change, with the custom status of turns before."""
    return change if change is None or change.custom_status is not None else replace(change, custom_status=status)
