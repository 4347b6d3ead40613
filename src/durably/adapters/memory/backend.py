"""The memory backend: the contract of `durably.ports.backend` on dicts. Everything is stored encoded, so that
aliasing hides no mutation; time comes from the injected clock, and nothing is random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from threading import Lock
from typing import Self

from durably.adapters.memory.queue import MessageQueue
from durably.adapters.rules import (
    TOMBSTONE_MS,
    applies,
    begins_before,
    cancelled,
    changed,
    check_limit,
    encode_cursor,
    replaces,
    tombstone,
)
from durably.codec import wire
from durably.core.errors import StorageError
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.backend import (
    CommitOutcome,
    CreateOutcome,
    Creation,
    Page,
    Settlement,
    SettleOutcome,
    TurnCommit,
)
from durably.ports.clock import Clock
from durably.ports.messages import Delivery, Message, Outgoing
from durably.ports.records import LISTED, ActivityItem, Record, RecordChange, Reply, Status


class MemoryBackend:
    """Storage with queues that lives and dies with the process. Implements `Backend` and `MessageSource`.

    Args:
        clock: decides what is due.
        visibility_ms: lease of the messages that `keep` hands to the caller.
    """

    def __init__(self, clock: Clock, *, visibility_ms: int = 60_000) -> None:
        self._clock = clock
        self._visibility_ms = visibility_ms
        self._lock = Lock()
        self._records: dict[str, bytes] = {}
        self._turns: dict[RunKey, dict[int, tuple[str, bytes]]] = {}
        self._items: dict[ActivityKey, bytes] = {}
        self._replies: dict[tuple[str, str, str], bytes] = {}
        self._queue = MessageQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Backend ---------------------------------------------------------------------------------------

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        """Store record, turn 1 and wake, iff the id is free (or closed, with `replace_closed`)."""
        record = creation.record
        with self._lock:
            found = self._record(record.execution_id)
            if found is not None and not replaces(creation, found):
                return CreateOutcome(False, found)
            self._records[record.execution_id] = wire.encode_record(record)
            self._insert_turn(record.key, creation.turn)
            return CreateOutcome(True, record, self._put((creation.wake,), keep))

    def read_record(self, execution_id: str) -> Record | None:
        """The living record, or None."""
        with self._lock:
            return self._record(execution_id)

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        """The run's turns with number > `after`, in order, gapless."""
        with self._lock:
            stored = self._turns.get(run, {})
            numbers = sorted(number for number in stored if number > after)
            bodies = [stored[number][1] for number in numbers]
        if numbers and numbers[-1] - after != len(numbers):
            raise StorageError(f"{run} has turns {numbers} after {after}, expected no gap; a writer skipped one.")
        return wire.decode_turns(bodies)

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        """Store each turn whose number is free, with all that goes with it; one outcome per commit."""
        with self._lock:
            return [self._commit(commit, keep) for commit in commits]

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        """The activity's item, or None."""
        with self._lock:
            return self._item(key)

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        """All items of a run, by seq."""
        with self._lock:
            keys = sorted(key for key in self._items if key.run == run)
            return [wire.decode_item(self._items[key]) for key in keys]

    def settle(self, settlement: Settlement) -> SettleOutcome:
        """Write the item, send, acknowledge; or, where the item's version differs, nothing."""
        with self._lock:
            item = settlement.item
            if item is not None:
                found = self._item(item.key)
                if (found.version if found else 0) != item.version - 1:
                    return SettleOutcome(False, found)
                self._items[item.key] = wire.encode_item(item)
            self._queue.acknowledge(settlement.acknowledge)
            self._put(settlement.send, keep=False)
            return SettleOutcome(True)

    def reply(self, replies: Sequence[Reply]) -> None:
        """Write the replies to updates that no turn records."""
        with self._lock:
            self._reply(replies)

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        """The reply to an update of the life that `run` is of, or None."""
        with self._lock:
            body = self._replies.get((run.execution_id, run.gen, request_id))
        return None if body is None else wire.decode_reply(body)

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        """Put messages on their queues; one that is already queued under its id is not queued twice."""
        with self._lock:
            return self._put(messages, keep)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete received messages. A receipt of a message that was delivered again since has no effect."""
        with self._lock:
            self._queue.acknowledge(receipts)

    def purge(self, record: Record) -> bool:
        """Delete what is stored of a closed life, but for a tombstone; those of 15 days ago go as well."""
        with self._lock:
            found = self._record(record.execution_id)
            if found is None or found.gen != record.gen or not found.closed:
                return False
            self._records[record.execution_id] = wire.encode_record(tombstone(found))
            life = (record.execution_id, record.gen)
            self._turns = {run: turns for run, turns in self._turns.items() if (run.execution_id, run.gen) != life}
            self._items = {
                key: item for key, item in self._items.items() if (key.run.execution_id, key.run.gen) != life
            }
            self._replies = {key: reply for key, reply in self._replies.items() if key[:2] != life}
            old_ms = self._clock.now_ms() - TOMBSTONE_MS
            for execution_id, body in list(self._records.items()):
                other = wire.decode_record(body)
                if other.status == "purged" and (other.closed_at_ms or 0) < old_ms:
                    del self._records[execution_id]
            return True

    def list_records(
        self,
        *,
        status: Status | None = None,
        orchestrator: str | None = None,
        started_before_ms: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Records, newest start first."""
        check_limit(limit)
        before = begins_before(cursor, started_before_ms)
        with self._lock:
            records = [wire.decode_record(body) for body in self._records.values()]
        wanted = [
            record
            for record in records
            if record.status in LISTED
            and status in (None, record.status)
            and (orchestrator is None or record.orchestrator == orchestrator)
            and (before is None or (record.started_at_ms, record.execution_id) < before)
        ]
        wanted.sort(key=lambda record: (record.started_at_ms, record.execution_id), reverse=True)
        page = wanted[:limit]
        more = len(wanted) > limit
        return Page(tuple(page), encode_cursor(page[-1].started_at_ms, page[-1].execution_id) if more else None)

    # --- MessageSource ---------------------------------------------------------------------------------

    def receive(self, *, now_ms: int, limit: int, visibility_ms: int, tasks: bool = True) -> list[Delivery]:
        """Lease up to `limit` due messages, the longest due first; unacknowledged, they return after it."""
        with self._lock:
            return self._queue.receive(now_ms=now_ms, limit=limit, visibility_ms=visibility_ms, tasks=tasks)

    def release(self, receipt: str, *, due_ms: int) -> None:
        """Give a message back, to be delivered again at `due_ms`. Its delivery does not count."""
        with self._lock:
            self._queue.release(receipt, due_ms=due_ms)

    def next_due_ms(self) -> int | None:
        """When the next message is due, leased ones included at the end of their lease; None for none."""
        with self._lock:
            return self._queue.next_due_ms()

    # --- what `SqliteBackend` has too, so that one can stand in for the other ------------------------------

    @property
    def deployment(self) -> str:
        """Names this store."""
        return "memory"

    def secret(self, name: str) -> bytes:
        """32 bytes that are always the same for a name: nothing here is secret, and nothing is random."""
        return hashlib.sha256(f"durably.memory.{name}".encode()).digest()

    def changed(self) -> bool:
        """Whether another process wrote: none can."""
        return False

    def close(self) -> None:
        """Nothing to close."""

    def messages(self) -> list[tuple[Message, int]]:
        """For tests: every queued message, leased ones too, and when it may be received."""
        with self._lock:
            return self._queue.messages()

    # --- under the lock --------------------------------------------------------------------------------

    def _commit(self, commit: TurnCommit, keep: bool) -> CommitOutcome:
        if not self._insert_turn(commit.run, commit.turn):
            return CommitOutcome("conflict")
        if commit.successor is not None:
            self._insert_turn(commit.run.next, commit.successor)
        self._reply(commit.replies)
        for key in commit.cancel:
            item = cancelled(self._item(key), key)
            if item is not None:
                self._items[key] = wire.encode_item(item)
        if commit.change is not None:
            self._change(commit.run, commit.change)
        self._queue.acknowledge(commit.acknowledge)
        return CommitOutcome("stored", self._put(commit.send, keep))

    def _insert_turn(self, run: RunKey, turn: Turn) -> bool:
        turns = self._turns.setdefault(run, {})
        if turn.number in turns:
            return turns[turn.number][0] == turn.nonce
        turns[turn.number] = (turn.nonce, wire.encode_turn(turn))
        return True

    def _change(self, run: RunKey, change: RecordChange) -> None:
        record = self._record(run.execution_id)
        if record is not None and record.gen == run.gen and applies(change, record):
            self._records[run.execution_id] = wire.encode_record(changed(record, change))

    def _reply(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            key = (reply.run.execution_id, reply.run.gen, reply.request_id)
            if reply.accepted or key not in self._replies:
                self._replies[key] = wire.encode_reply(reply)

    def _record(self, execution_id: str) -> Record | None:
        body = self._records.get(execution_id)
        return None if body is None else wire.decode_record(body)

    def _item(self, key: ActivityKey) -> ActivityItem | None:
        body = self._items.get(key)
        return None if body is None else wire.decode_item(body)

    def _put(self, messages: Sequence[Outgoing], keep: bool) -> tuple[Delivery, ...]:
        if not messages:
            return ()
        return self._queue.put(messages, now_ms=self._clock.now_ms(), lease_ms=self._visibility_ms, keep=keep)
