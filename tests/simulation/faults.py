"""What goes wrong, where and when: crashes, refusals, lost responses and suspensions at the calls of the ports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, Protocol, TypeVar

from durably.core.errors import StorageError
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.backend import (
    Backend,
    CommitOutcome,
    CreateOutcome,
    Creation,
    Page,
    Settlement,
    SettleOutcome,
    TurnCommit,
)
from durably.ports.messages import Delivery, Outgoing
from durably.ports.records import ActivityItem, Record, Reply, Status

R = TypeVar("R")
Moment = Literal["before", "inside", "after"]


class Crash(BaseException):
    """The process ends here."""


class Process(Protocol):
    """Whose call it is."""

    def suspend(self) -> None:
        """Let the others go on for a while, then continue as if nothing had happened."""
        ...


class Faults(Protocol):
    """Decides what goes wrong."""

    counts: Counter[str]

    def port(self, process: Process, call: str, moment: Moment) -> None:
        """`process` is before, inside (where a call is several operations) or after a call.

        Raises:
            Crash: it dies.
            StorageError: the store says no.
        """
        ...

    def delivery(self) -> str | None:
        """What goes wrong with a message that is being received: a key of `DELIVERY_FAULTS`, or None."""
        ...

    def forgets(self) -> bool:
        """Whether the queue forgets that it holds a message."""
        ...


DELIVERY_FAULTS = ("duplicate", "delay", "drop until redelivery", "lease expires", "receive count", "restart")
_PORT_FAULTS: dict[Moment, tuple[str, ...]] = {
    "before": ("crash before", "crash before", "refused", "zombie before", "zombie before"),
    "inside": ("crash inside", "crash inside", "half done", "zombie inside"),
    "after": ("crash after", "crash after", "lost response", "zombie after"),
}


class RandomFaults:
    """A finite number of faults at random places.

    Args:
        rng: draws.
        budget: how many faults there are.
        gap: how many opportunities pass between two of them, on average.
    """

    def __init__(self, rng: Random, *, budget: int, gap: int) -> None:
        self.counts: Counter[str] = Counter()
        self.left = budget
        self._rng = rng
        self._gap = gap
        self._countdown = 0
        self._rewind()

    def port(self, process: Process, call: str, moment: Moment) -> None:
        if not self._strikes():
            return
        kind = self._rng.choice(_PORT_FAULTS[moment])
        self.counts[f"{kind} {call}" if moment != "inside" else f"{kind} {call.partition(',')[0]}"] += 1
        if kind.startswith("crash"):
            raise Crash(f"{kind} {call}")
        if kind.startswith("zombie"):
            process.suspend()
        else:
            raise StorageError(f"{kind}: {call}")

    def delivery(self) -> str | None:
        if not self._strikes():
            return None
        kind = self._rng.choice(DELIVERY_FAULTS)
        self.counts[kind] += 1
        return kind

    def forgets(self) -> bool:
        if not self.left or self._rng.randrange(2):
            return False
        self.counts["duplicate send"] += 1
        return True

    def _strikes(self) -> bool:
        self._countdown -= 1
        if self._countdown > 0 or not self.left:
            return False
        self.left -= 1
        self._rewind()
        return True

    def _rewind(self) -> None:
        self._countdown = self._rng.randrange(1, 2 * self._gap)


class OneCrash:
    """A crash at the `index`-th opportunity (0-based), and nothing else."""

    def __init__(self, index: int) -> None:
        self.counts: Counter[str] = Counter()
        self.seen = 0
        self._index = index

    def port(self, process: Process, call: str, moment: Moment) -> None:
        self.seen += 1
        if self.seen == self._index + 1:
            self.counts[f"crash {moment} {call}"] += 1
            raise Crash(f"{moment} {call}")

    def delivery(self) -> str | None:
        return None

    def forgets(self) -> bool:
        return False


class Storm:
    """Nearly every delivery goes wrong, until `budget` is spent; processes live."""

    def __init__(self, rng: Random, budget: int) -> None:
        self.counts: Counter[str] = Counter()
        self._rng = rng
        self._left = budget

    def port(self, process: Process, call: str, moment: Moment) -> None:
        pass

    def delivery(self) -> str | None:
        if not self._left or self._rng.randrange(4) == 0:
            return None
        self._left -= 1
        kind = self._rng.choice(("duplicate", "delay", "drop until redelivery", "lease expires"))
        self.counts[kind] += 1
        return kind

    def forgets(self) -> bool:
        self.counts["duplicate send"] += 1
        return True


class FaultyBackend:
    """A process's way to the store: every call may go wrong before and after it."""

    def __init__(self, inner: Backend, faults: Faults, process: Process) -> None:
        self._inner = inner
        self._faults = faults
        self._process = process

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        return self._call("create", lambda: self._inner.create(creation, keep=keep))

    def read_record(self, execution_id: str) -> Record | None:
        return self._call("read_record", lambda: self._inner.read_record(execution_id))

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        return self._call("load_turns", lambda: self._inner.load_turns(run, after=after))

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        return self._call("commit", lambda: self._inner.commit(commits, keep=keep))

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        return self._call("read_item", lambda: self._inner.read_item(key))

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        return self._call("read_items", lambda: self._inner.read_items(run))

    def settle(self, settlement: Settlement) -> SettleOutcome:
        return self._call("settle", lambda: self._inner.settle(settlement))

    def reply(self, replies: Sequence[Reply]) -> None:
        self._call("reply", lambda: self._inner.reply(replies))

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        return self._call("read_reply", lambda: self._inner.read_reply(run, request_id))

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        return self._call("send", lambda: self._inner.send(messages, keep=keep))

    def purge(self, record: Record) -> bool:
        return self._call("purge", lambda: self._inner.purge(record))

    def acknowledge(self, receipts: Sequence[str]) -> None:
        self._call("acknowledge", lambda: self._inner.acknowledge(receipts))

    def list_records(
        self,
        *,
        status: Status | None = None,
        orchestrator: str | None = None,
        started_before_ms: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        return self._inner.list_records(
            status=status, orchestrator=orchestrator, started_before_ms=started_before_ms, limit=limit, cursor=cursor
        )

    def _call(self, name: str, operation: Callable[[], R]) -> R:
        self._faults.port(self._process, name, "before")
        result = operation()
        self._faults.port(self._process, name, "after")
        return result


_: type[Backend] = FaultyBackend
