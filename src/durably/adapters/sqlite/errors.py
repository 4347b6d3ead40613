"""What SQLite's errors mean to an operator: a `StorageError` with the file, the cause and the remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from durably.core.errors import StorageError

_REMEDIES: dict[int, str] = {
    sqlite3.SQLITE_FULL: "The disk (or the file's quota) is full: free some space, and it works again.",
    sqlite3.SQLITE_READONLY: (
        "The file or its directory is read-only: this process must be allowed to write the file and to "
        "create files beside it (-wal, -shm, -owners)."
    ),
    sqlite3.SQLITE_CORRUPT: (
        "The file is damaged: stop every process that uses it, keep a copy, and restore a backup or salvage "
        "it with `sqlite3 FILE .recover`."
    ),
    sqlite3.SQLITE_NOTADB: "The file is not a SQLite database: name another file, or restore a backup.",
    sqlite3.SQLITE_BUSY: (
        "Another process held the file's lock for longer than busy_timeout_ms: look for a long transaction "
        "in it, such as a backup or an open SQLite shell."
    ),
    sqlite3.SQLITE_LOCKED: "Another connection holds a lock on the schema: try again.",
    sqlite3.SQLITE_CANTOPEN: (
        "The file cannot be opened or created: its directory must exist, and this process must be allowed to "
        "write there."
    ),
    sqlite3.SQLITE_PERM: "The file may not be opened: grant this process read and write permission.",
    sqlite3.SQLITE_IOERR: (
        "Reading or writing failed below SQLite: look for a limit on the size of files (`ulimit -f`) or a quota, "
        "then into the system's log; the disk may need replacing."
    ),
    sqlite3.SQLITE_TOOBIG: "A value exceeds what SQLite stores in one cell (1 GB): pass a reference instead.",
    sqlite3.SQLITE_NOMEM: "SQLite ran out of memory: give this process more.",
}


def storage_error(path: str, error: sqlite3.Error) -> StorageError:
    """`error` in the words of an operator."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    remedy = _REMEDIES.get(code, "Nothing was half-applied; if it happens again, this is a bug in durably.")
    told = str(error).rstrip(".")
    if "closed database" in told:
        remedy = "Its runtime has ended: use a client inside the `with` block of its Embedded."
    return StorageError(f"{path} cannot be used: {told}. {remedy}")


@contextmanager
def translated(path: str) -> Generator[None, None, None]:
    """Within, SQLite's errors are raised as `StorageError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise storage_error(path, error) from error
