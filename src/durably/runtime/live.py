"""Executions kept live between turns, so that a warm turn neither reads nor replays."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from durably.core.errors import Stall
from durably.core.execution import Execution
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.replay import RunState
from durably.ports.records import Status
from durably.runtime.runtime import Budget

_TRIES = 3


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
        budget: enters the time budget of a turn.
    """

    run: RunKey
    orchestrator: str
    status: Status
    state: RunState
    budget: Callable[[], AbstractContextManager[Budget]]
    execution: Execution | None = None
    turns: list[Turn] | None = None
    resumed: bool = False

    def discard(self) -> None:
        """Give the live orchestrator up. Its clean-up is user code, and has no more time than a turn."""
        execution, self.execution = self.execution, None
        if execution is None:
            return
        for _ in range(_TRIES):  # the end of the budget may strike between two coroutines
            with contextlib.suppress(Stall), self.budget():
                execution.close()
                return


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
