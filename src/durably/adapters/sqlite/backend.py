"""The SQLite backend: the contract of `durably.ports.backend` on one file.

Beside the file `NAME` there are `NAME-wal` and `NAME-shm`, which belong to it (copy all three or none; SQLite
removes them when the last process closes the file), and the directory `NAME-owners` (see `owners`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any, Self

from durably.adapters.rules import TOMBSTONE_MS, begins_before, cancelled, check_limit, encode_cursor, replaces
from durably.adapters.sqlite import schema
from durably.adapters.sqlite.committer import Committer
from durably.adapters.sqlite.errors import storage_error, translated
from durably.adapters.sqlite.leases import Leases, release_owner
from durably.adapters.sqlite.opening import Synchronous, open_database
from durably.adapters.sqlite.owners import Owner
from durably.adapters.sqlite.rows import (
    Row,
    acknowledge,
    change_row,
    encoded_messages,
    item_key,
    item_row,
    parsed_receipts,
    record_of,
    record_row,
    reply_row,
    turn_row,
)
from durably.adapters.system import SystemClock
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
from durably.ports.messages import Delivery, Outgoing
from durably.ports.records import ActivityItem, Record, Reply, Status

_BURY_EVERY_MS = 1000
_SECRET_BYTES = 32


class SqliteBackend:
    """Storage with queues in one SQLite file. Implements `Backend` and `MessageSource`.

    Threads may share an instance, processes may share the file: each opens an instance of its own. The
    messages that a process leased come back within a second of its death, however it died.

    Args:
        path: of the file; created if absent, its directory is not.
        clock: decides what is due.
        synchronous: "FULL" survives a power cut; with "NORMAL" one may cost the last moments.
        visibility_ms: lease of the messages that `keep` hands to the caller.
        busy_timeout_ms: how long to wait for another process that writes.
        max_bytes: a quota; a file that would grow larger is treated as a full disk.

    Raises:
        StorageError: missing directory, read-only, damaged, not SQLite, locked for too long.
        ConfigurationError: another program's file, or one of a newer schema.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        synchronous: Synchronous = "FULL",
        visibility_ms: int = 60_000,
        busy_timeout_ms: int = 10_000,
        max_bytes: int | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._clock = clock or SystemClock()
        self._visibility_ms = visibility_ms
        writer, self._reader = open_database(
            self.path, synchronous=synchronous, busy_timeout_ms=busy_timeout_ms, max_bytes=max_bytes
        )
        self._reader_lock = Lock()
        self._committer = Committer(writer, self.path)
        self._secrets: dict[str, bytes] = {}
        self._data_version = 0
        self._closed = False
        try:
            self._owner = Owner(self.path)
        except BaseException:
            self._close_connections()
            raise
        self._leases = Leases(self._owner.number)
        try:
            self._buried_at_ms = self._clock.now_ms()
            known = {number for (number,) in self._read(schema.SELECT_OWNERS)}
            self._bury(known - {self._owner.number} | set(self._owner.others()), self._buried_at_ms)
            self.changed()
        except BaseException:
            self._owner.close()
            self._close_connections()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Backend ---------------------------------------------------------------------------------------

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        """Store record, turn 1 and wake, iff the id is free (or closed, with `replace_closed`)."""
        record = creation.record
        now_ms = self._clock.now_ms()
        record_values = record_row(record)
        turn_values = turn_row(record.key, creation.turn)
        wake = encoded_messages((creation.wake,), now_ms)

        def write(connection: sqlite3.Connection) -> Row | tuple[Delivery, ...]:
            found = connection.execute(schema.SELECT_RECORD, (record.execution_id,)).fetchall()
            if found and not replaces(creation, record_of(found[0])):
                return _Taken(found[0])
            connection.execute(schema.REPLACE_RECORD, record_values)
            connection.execute(schema.INSERT_TURN, turn_values)
            return self._leases.put(connection, wake, now_ms=now_ms, lease_ms=self._visibility_ms, keep=keep)

        outcome = self._committer.run(write)
        if isinstance(outcome, _Taken):
            return CreateOutcome(False, record_of(outcome))
        return CreateOutcome(True, record, outcome)

    def read_record(self, execution_id: str) -> Record | None:
        """The living record, or None."""
        rows = self._read(schema.SELECT_RECORD, (execution_id,))
        return record_of(rows[0]) if rows else None

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        """The run's turns with number > `after`, in order, gapless."""
        rows = self._read(schema.SELECT_TURNS, (run.gen, run.execution_id, run.run, after))
        if rows and rows[-1][0] - after != len(rows):
            raise StorageError(
                f"{self.path}: {run} has turns {[number for number, _ in rows][:20]} after turn {after}, "
                "expected no gap. The file is damaged: restore a backup."
            )
        return wire.decode_turns([body for _, body in rows])

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        """Store each turn whose number is free, with all that goes with it; one outcome per commit."""
        if not commits:
            return []
        now_ms = self._clock.now_ms()
        plans = [
            (
                commit,
                turn_row(commit.run, commit.turn),
                None if commit.successor is None else turn_row(commit.run.next, commit.successor),
                _reply_writes(commit.replies),
                None if commit.change is None else change_row(commit.run, commit.change),
                parsed_receipts(commit.acknowledge),
                encoded_messages(commit.send, now_ms),
            )
            for commit in commits
        ]

        def write(connection: sqlite3.Connection) -> list[CommitOutcome]:
            outcomes: list[CommitOutcome] = []
            for commit, turn, successor, replies, change, receipts, messages in plans:
                if not _insert_turn(connection, turn):
                    outcomes.append(CommitOutcome("conflict"))
                    continue
                if successor is not None:
                    _insert_turn(connection, successor)
                for statement, row in replies:
                    connection.execute(statement, row)
                if commit.cancel:
                    _cancel(connection, commit.cancel)
                if change is not None:
                    connection.execute(schema.CHANGE_RECORD, change)
                acknowledge(connection, receipts)
                kept = self._leases.put(connection, messages, now_ms=now_ms, lease_ms=self._visibility_ms, keep=keep)
                outcomes.append(CommitOutcome("stored", kept))
            return outcomes

        return self._committer.run(write)

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        """The activity's item, or None."""
        rows = self._read(schema.SELECT_ITEM, item_key(key))
        return wire.decode_item(rows[0][1]) if rows else None

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        """All items of a run, by seq."""
        rows = self._read(schema.SELECT_ITEMS, (run.gen, run.execution_id, run.run))
        return [wire.decode_item(body) for (body,) in rows]

    def settle(self, settlement: Settlement) -> SettleOutcome:
        """Write the item, send, acknowledge; or, where the item's version differs, nothing.

        All of it is one transaction, so there is no need for the guard.
        """
        now_ms = self._clock.now_ms()
        item = settlement.item
        item_values = None if item is None else item_row(item)
        receipts = parsed_receipts(settlement.acknowledge)
        messages = encoded_messages(settlement.send, now_ms)

        def write(connection: sqlite3.Connection) -> tuple[bool, bytes | None]:
            if item is not None and item_values is not None:
                found = connection.execute(schema.SELECT_ITEM, item_key(item.key)).fetchall()
                version, body = found[0] if found else (0, None)
                if version != item.version - 1:
                    return False, body
                connection.execute(schema.REPLACE_ITEM, item_values)
            acknowledge(connection, receipts)
            self._leases.put(connection, messages, now_ms=now_ms, lease_ms=0, keep=False)
            return True, None

        written, body = self._committer.run(write)
        return SettleOutcome(written, None if body is None else wire.decode_item(body))

    def reply(self, replies: Sequence[Reply]) -> None:
        """Write the replies to updates that no turn records."""
        writes = _reply_writes(replies)
        self._committer.run(lambda connection: [connection.execute(statement, row) for statement, row in writes])

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        """The reply to an update of the life that `run` is of, or None."""
        rows = self._read(schema.SELECT_REPLY, (run.gen, run.execution_id, request_id))
        return wire.decode_reply(rows[0][0]) if rows else None

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        """Put messages on their queues; one that is already queued under its id is not queued twice."""
        if not messages:
            return ()
        now_ms = self._clock.now_ms()
        encoded = encoded_messages(messages, now_ms)
        return self._committer.run(
            lambda connection: self._leases.put(
                connection, encoded, now_ms=now_ms, lease_ms=self._visibility_ms, keep=keep
            )
        )

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete received messages. A receipt of a message that was delivered again since has no effect."""
        parsed = parsed_receipts(receipts)
        if parsed:
            self._committer.run(lambda connection: acknowledge(connection, parsed))

    def purge(self, record: Record) -> bool:
        """Delete what is stored of a closed life, but for a tombstone; those of 15 days ago go as well."""
        old_ms = self._clock.now_ms() - TOMBSTONE_MS

        def write(connection: sqlite3.Connection) -> bool:
            if connection.execute(schema.BURY_RECORD, (record.execution_id, record.gen)).rowcount == 0:
                return False
            for statement in schema.PURGE:
                connection.execute(statement, (record.gen, record.execution_id))
            connection.execute(schema.DELETE_TOMBSTONES, (old_ms,))
            return True

        return self._committer.run(write)

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
        before = begins_before(cursor, started_before_ms) or ()
        filters = [value for value in (status, orchestrator) if value is not None]
        statement = schema.select_page(
            status=status is not None, orchestrator=orchestrator is not None, cursor=bool(before)
        )
        rows = self._read(statement, (*filters, *before, limit + 1))
        records = tuple(record_of(row) for row in rows[:limit])
        last = records[-1] if len(rows) > limit else None
        return Page(records, None if last is None else encode_cursor(last.started_at_ms, last.execution_id))

    # --- MessageSource ---------------------------------------------------------------------------------

    def receive(self, *, now_ms: int, limit: int, visibility_ms: int, tasks: bool = True) -> list[Delivery]:
        """Lease up to `limit` due messages, the longest due first; unacknowledged, they return after it.

        At most once a second it looks for dead owners; their messages are due at once.
        """
        if abs(now_ms - self._buried_at_ms) >= _BURY_EVERY_MS:
            self._buried_at_ms = now_ms
            self._bury(self._owner.others(), now_ms)
        due_ms = self.next_due_ms()
        if due_ms is None or due_ms > now_ms:
            return []
        until_ms = now_ms + max(visibility_ms, 1)
        return self._committer.run(
            lambda connection: self._leases.lease(
                connection, now_ms=now_ms, limit=limit, until_ms=until_ms, tasks=tasks
            )
        )

    def release(self, receipt: str, *, due_ms: int) -> None:
        """Give a message back, to be delivered again at `due_ms`. Its delivery does not count."""
        for row_id, lease in parsed_receipts((receipt,)):
            self._release((due_ms, row_id, lease))

    def _release(self, values: Row) -> None:
        self._committer.run(lambda connection: connection.execute(schema.RELEASE_MESSAGE, values))

    def next_due_ms(self) -> int | None:
        """When the next message is due, leased ones included at the end of their lease; None for none."""
        due_ms: int | None = self._read(schema.SELECT_NEXT_DUE)[0][0]
        return due_ms

    # --- the file --------------------------------------------------------------------------------------

    @property
    def deployment(self) -> str:
        """Names this store: 32 hexadecimal characters, drawn when the file was made."""
        return self.secret("deployment")[:16].hex()

    def secret(self, name: str) -> bytes:
        """32 random bytes, drawn at the first call for a name and the same ever after, for all processes."""
        if name not in self._secrets:
            draw = os.urandom(_SECRET_BYTES)

            def write(connection: sqlite3.Connection) -> bytes:
                connection.execute(schema.INSERT_META, (f"secret.{name}", draw))
                value: bytes = connection.execute(schema.SELECT_META, (f"secret.{name}",)).fetchall()[0][0]
                return value

            self._secrets[name] = self._committer.run(write)
        return self._secrets[name]

    def changed(self) -> bool:
        """Whether another process (or instance) wrote to the file since the last call. Costs microseconds."""
        with self._committer.connection_lock, translated(self.path):
            (version,) = self._committer.connection.execute("PRAGMA data_version").fetchone()
        before, self._data_version = self._data_version, version
        return bool(before != version)

    def close(self) -> None:
        """Give back what is leased, as if it had not been received, and close the file. Idempotent."""
        if self._closed:
            return
        now_ms = self._clock.now_ms()
        try:
            self._committer.run(lambda connection: release_owner(connection, self._owner.number, now_ms, dead=False))
        except StorageError:
            pass  # a full disk keeps nobody from closing: without its lock file the owner counts as dead
        finally:
            self._closed = True
            self._owner.close()
            self._close_connections()

    def _close_connections(self) -> None:
        with self._reader_lock:
            self._reader.close()
        with self._committer.connection_lock:
            self._committer.connection.close()

    def _bury(self, owners: Iterable[int], now_ms: int) -> None:
        for number in owners:
            with self._owner.burying(number) as dead:
                if dead:
                    self._bury_one(number, now_ms)

    def _bury_one(self, number: int, now_ms: int) -> None:
        self._committer.run(lambda connection: release_owner(connection, number, now_ms, dead=True))

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self._reader_lock:
            try:
                return self._reader.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise storage_error(self.path, error) from error


class _Taken(tuple[Any, ...]):
    """The row of the record that holds an id."""

    __slots__ = ()


def _insert_turn(connection: sqlite3.Connection, row: Row) -> bool:
    """False if the turn's number holds another writer's turn."""
    if connection.execute(schema.INSERT_TURN, row).rowcount > 0:
        return True
    ((nonce,),) = connection.execute(schema.SELECT_NONCE, row[:4]).fetchall()
    return bool(nonce == row[4])


def _reply_writes(replies: Iterable[Reply]) -> list[tuple[str, Row]]:
    return [(schema.REPLACE_REPLY if reply.accepted else schema.INSERT_REPLY, reply_row(reply)) for reply in replies]


def _cancel(connection: sqlite3.Connection, keys: Iterable[ActivityKey]) -> None:
    for key in keys:
        found = connection.execute(schema.SELECT_ITEM, item_key(key)).fetchall()
        item = cancelled(wire.decode_item(found[0][1]) if found else None, key)
        if item is not None:
            connection.execute(schema.REPLACE_ITEM, item_row(item))
