"""The one port between the runtime and storage with queues. Each method is one promise; the contract suite
(`tests/contract`) holds them for every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import Delivery, Outgoing
from durably.ports.records import ActivityItem, Record, RecordChange, Reply, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A start: the record, its first (deferred) turn with `ExecutionStarted`, and the wake that follows."""

    record: Record
    turn: Turn
    wake: Outgoing
    replace_closed: bool


@dataclass(frozen=True, slots=True)
class CreateOutcome:
    """`created`, or the record that holds the id. `kept` as in `CommitOutcome`."""

    created: bool
    record: Record
    kept: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCommit:
    """A turn and everything that goes with it.

    Attributes:
        run: whose turn it is.
        turn: the turn; its number must be free.
        send: messages that it causes.
        successor: the first turn of the next run, stored with this one (it may be there already).
        cancel: activities and children whose items become "cancelled" (created so if absent).
        replies: to updates; one that is there is replaced.
        change: of the record, or None.
        acknowledge: receipts of the messages that this turn stores or makes superfluous.
    """

    run: RunKey
    turn: Turn
    successor: Turn | None = None
    send: tuple[Outgoing, ...] = ()
    cancel: tuple[ActivityKey, ...] = ()
    replies: tuple[Reply, ...] = ()
    change: RecordChange | None = None
    acknowledge: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """How a commit ended.

    Attributes:
        status: "stored"; or "conflict", another writer holds the turn's number, and nothing was done.
        kept: messages due now which the caller asked to `keep`: they are leased to it as if received.
    """

    status: Literal["stored", "conflict"]
    kept: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The end of handling a message outside a turn: item written, messages sent, message acknowledged.

    Attributes:
        item: the new item, or None to leave items alone. Written iff the stored version is `item.version - 1`
            (0: absent); otherwise nothing at all is done.
        send: messages that follow.
        guard: sent before the item is written by backends where write and send are not one transaction, so that
            a crash between them is noticed.
        acknowledge: receipts.
    """

    item: ActivityItem | None = None
    send: tuple[Outgoing, ...] = ()
    guard: Outgoing | None = None
    acknowledge: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettleOutcome:
    """`written`, or the item (None: absent) that was found instead."""

    written: bool
    found: ActivityItem | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Records, newest start first, and the cursor of the next page (None at the end)."""

    records: tuple[Record, ...]
    cursor: str | None


class Backend(Protocol):
    """Storage with queues. Every read is consistent: it sees each write that was acknowledged before it.

    A method that raises `StorageError` has done nothing, or (a lost response) all of it; callers may repeat any
    call: `create` by request id, `commit` by nonce, `settle` by version, `send` by message id.
    """

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        """Store record, turn 1 and wake, iff the id is free (or closed, with `replace_closed`, by another request)."""
        ...

    def read_record(self, execution_id: str) -> Record | None:
        """The living record, or None."""
        ...

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        """The run's turns with number > `after`, in order, gapless."""
        ...

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        """Store each turn whose number is free, with all that goes with it; one outcome per commit.

        The commits are of different runs and independent: a conflict of one does not hinder the others. A turn
        that is already stored with the same nonce counts as "stored".
        """
        ...

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        """The activity's item, or None."""
        ...

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        """All items of a run, by seq."""
        ...

    def settle(self, settlement: Settlement) -> SettleOutcome:
        """Write the item, send, acknowledge; or, where the item's version differs, nothing."""
        ...

    def reply(self, replies: Sequence[Reply]) -> None:
        """Write the replies to updates that no turn records.

        A rejection, here or in a commit, takes no other reply's place: who wrote that one came first, or was right.
        """
        ...

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        """The reply to an update of the life that `run` is of, or None."""
        ...

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        """Put messages on their queues; one that is already queued under its id is not queued twice.

        Unless the queue cannot tell (SQS standard queues), so receivers drop copies. `keep` may keep nothing.
        """
        ...

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete received messages. A receipt of a message that was delivered again since has no effect."""
        ...

    def purge(self, record: Record) -> bool:
        """Delete what is stored of a closed life, but for a tombstone in its record's place, kept for 15 days.

        False, and nothing is done, if the id holds another life or is open. Who finds a tombstone repeats the rest.
        """
        ...

    def list_records(
        self,
        *,
        status: Status | None = None,
        orchestrator: str | None = None,
        started_before_ms: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Records, newest start first, tombstones excepted. On AWS they lag, and lack `result` and `failure`.

        A page begins after `cursor`; without one, before `started_before_ms`, or with the newest. The status "purged"
        lists the purges that somebody began and has not finished; in a transaction there are none.
        """
        ...


class MessageSource(Protocol):
    """The receiving side of the queues, for backends whose messages are fetched (on AWS they are delivered)."""

    def receive(self, *, now_ms: int, limit: int, visibility_ms: int, tasks: bool = True) -> list[Delivery]:
        """Lease up to `limit` due messages, the longest due first. Unacknowledged, they return after the lease.

        Without `tasks`, activities stay where they are.
        """
        ...

    def release(self, receipt: str, *, due_ms: int) -> None:
        """Give a message back, to be delivered again at `due_ms`. Its delivery does not count (SQS counts it)."""
        ...

    def next_due_ms(self) -> int | None:
        """When the next message is due, leased ones included at the end of their lease; None for none."""
        ...
