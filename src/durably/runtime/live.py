"""Executions kept live between turns, so that a warm turn neither reads nor replays."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from durably.core.execution import Execution
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.replay import RunState
from durably.ports.records import Status


@dataclass(slots=True)
class Live:
    """What is known of an open execution after its last stored turn.

    Attributes:
        run: its current run.
        orchestrator: persisted name.
        status: of its record.
        resumed: the record says stalled, but a later turn was applied; whoever stored it died before the record.
        state: what its turns leave open.
        execution: its live orchestrator; None where it has not been replayed (stalled, or not needed).
        turns: as loaded, until they are replayed.
    """

    run: RunKey
    orchestrator: str
    status: Status
    state: RunState
    execution: Execution | None = None
    turns: list[Turn] | None = None
    resumed: bool = False

    def discard(self) -> None:
        """Give the live orchestrator up."""
        if self.execution is not None:
            self.execution.close()
            self.execution = None


class LiveExecutions:
    """The least recently used cache of live executions. An entry is taken out while its turn is taken."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, Live] = OrderedDict()

    def take(self, execution_id: str) -> Live | None:
        """Remove and return an entry."""
        return self._entries.pop(execution_id, None)

    def put(self, live: Live) -> None:
        """Keep an entry; the least recently used one gives way."""
        self._entries[live.run.execution_id] = live
        if len(self._entries) > self._capacity:
            _, oldest = self._entries.popitem(last=False)
            oldest.discard()

    def clear(self) -> None:
        """Discard every entry."""
        while self._entries:
            self._entries.popitem()[1].discard()
