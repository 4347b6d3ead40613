"""Opens a database file, creates its tables, and refuses files that are not ours to write."""

from __future__ import annotations

import sqlite3
import time
from typing import Literal, TypeAlias, get_args

from durably.adapters.sqlite import schema
from durably.adapters.sqlite.errors import translated
from durably.core.errors import ConfigurationError, StorageError

Synchronous: TypeAlias = Literal["FULL", "EXTRA", "NORMAL", "OFF"]
_JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024


def open_database(
    path: str, *, synchronous: Synchronous, busy_timeout_ms: int, max_bytes: int | None
) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """A connection that writes and one that reads.

    Raises:
        StorageError: missing directory, read-only, damaged, not SQLite, locked for too long.
        ConfigurationError: another program's file, or one of a newer schema.
    """
    if synchronous not in get_args(Synchronous):
        raise ConfigurationError(f"synchronous must be one of {', '.join(get_args(Synchronous))}, got {synchronous!r}.")
    if path in ("", ":memory:"):
        raise ConfigurationError(f"expected the path of a file, got {path!r}; for memory use MemoryBackend.")
    with translated(path):
        writer = _connect(path, busy_timeout_ms)
        try:
            _check_at_one_moment(writer, path)
            _enter_wal(writer, path, busy_timeout_ms)
            writer.execute(f"PRAGMA synchronous = {synchronous}")
            writer.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
            _create_tables(writer, path)
            if max_bytes is not None:
                (page_size,) = writer.execute("PRAGMA page_size").fetchone()
                writer.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_size)}")
            reader = _connect(path, busy_timeout_ms)
            reader.execute("PRAGMA query_only = ON")
        except BaseException:
            writer.close()
            raise
    return writer, reader


def _connect(path: str, busy_timeout_ms: int) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=busy_timeout_ms / 1000, isolation_level=None, check_same_thread=False)


def _check_at_one_moment(connection: sqlite3.Connection, path: str) -> None:
    """Without the transaction, a process that creates the file meanwhile could show half of what it writes."""
    connection.execute("BEGIN")
    try:
        _check(connection, path)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _check(connection: sqlite3.Connection, path: str) -> int:
    """The schema's version, 0 for an empty file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != schema.APPLICATION_ID and (application or version or tables):
        raise ConfigurationError(
            f"{path} is the database of another program. durably keeps a file of its own: name another path."
        )
    if version > schema.VERSION:
        raise ConfigurationError(
            f"{path} has schema version {version}, this durably knows {schema.VERSION}: a newer durably "
            "wrote the file. Upgrade durably here, or name another path."
        )
    return int(version)


def _enter_wal(connection: sqlite3.Connection, path: str, busy_timeout_ms: int) -> None:
    deadline = time.monotonic() + busy_timeout_ms / 1000
    mode = None
    while mode is None:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:  # two processes create the file: no busy timeout applies here
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StorageError(
            f"{path} cannot have a write-ahead log (journal mode is {mode}): the file system lacks shared "
            "memory or locks, as network file systems do. Put the file on a local disk."
        )


def _create_tables(connection: sqlite3.Connection, path: str) -> None:
    """Always takes the write lock, so that a file that cannot be written is refused at once."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _check(connection, path)
        if version < schema.VERSION:
            steps = [schema.MIGRATIONS[old] for old in range(version, schema.VERSION)] if version else [schema.TABLES]
            for statement in (statement for step in steps for statement in step):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {schema.VERSION}")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
