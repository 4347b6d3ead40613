"""Every table, key and statement of the SQLite backend. Statements are constants, so that sqlite3's cache of
prepared statements finds them again.

Needs SQLite 3.24 (upsert); no STRICT tables and no RETURNING, which long-term distributions lack.

`turns` and `items` have no rowid and begin their key with the life (`gen`), a ULID: a turn is one write to
one tree, what is written together lies together, and a history is read in one sweep. `messages.lease` is 0, or
the number of the owner in the upper 24 bits and the number of the lease in the lower 39: no lease has the number
of another, so a receipt (`id:lease`) cannot hit a message that came to the same rowid later.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x44555241  # "DURA"
VERSION: Final = 3

_NO_TASK: Final = "message_id NOT GLOB '*.task.*'"

TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE records (
        execution_id TEXT PRIMARY KEY,
        gen TEXT NOT NULL,
        orchestrator TEXT NOT NULL,
        status TEXT NOT NULL,
        request_id TEXT NOT NULL,
        code_version TEXT NOT NULL,
        started_at_ms INTEGER NOT NULL,
        run INTEGER NOT NULL,
        closed_at_ms INTEGER,
        result TEXT,
        failure BLOB,
        turn INTEGER NOT NULL,
        custom_status TEXT
    )""",
    "CREATE INDEX records_by_start ON records (started_at_ms, execution_id)",
    "CREATE INDEX records_by_status ON records (status, started_at_ms, execution_id)",
    """CREATE TABLE turns (
        gen TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        run INTEGER NOT NULL,
        number INTEGER NOT NULL,
        nonce TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (gen, execution_id, run, number)
    ) WITHOUT ROWID""",
    """CREATE TABLE items (
        gen TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        run INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        version INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (gen, execution_id, run, seq)
    ) WITHOUT ROWID""",
    """CREATE TABLE replies (
        gen TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        request_id TEXT NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (gen, execution_id, request_id)
    ) WITHOUT ROWID""",
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        message_id TEXT NOT NULL UNIQUE,
        visible_at_ms INTEGER NOT NULL,
        receives INTEGER NOT NULL,
        lease INTEGER NOT NULL,
        body BLOB NOT NULL
    )""",
    "CREATE INDEX messages_by_visibility ON messages (visible_at_ms)",
    f"CREATE INDEX messages_but_tasks ON messages (visible_at_ms) WHERE {_NO_TASK}",
)

# What makes a file of an earlier version one of the next, by the earlier version.
MIGRATIONS: Final = {
    1: (
        "ALTER TABLE records ADD COLUMN custom_status TEXT",
        *(table for table in TABLES if table.startswith("CREATE TABLE replies")),
    ),
    2: tuple(table for table in TABLES if table.startswith("CREATE INDEX messages_but_tasks")),
}

INSERT_META: Final = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING"
SELECT_META: Final = "SELECT value FROM meta WHERE name = ?"

# --- records -------------------------------------------------------------------------------------------

RECORD_COLUMNS: Final = (
    "execution_id, gen, orchestrator, status, request_id, code_version, started_at_ms, run, "
    "closed_at_ms, result, failure, turn, custom_status"
)
REPLACE_RECORD: Final = f"INSERT OR REPLACE INTO records ({RECORD_COLUMNS}) VALUES ({', '.join('?' * 13)})"
SELECT_RECORD: Final = f"SELECT {RECORD_COLUMNS} FROM records WHERE execution_id = ?"
CHANGE_RECORD: Final = """
    UPDATE records SET status = ?, run = ?, turn = ?, code_version = ?, closed_at_ms = ?, result = ?, failure = ?,
        custom_status = coalesce(?, custom_status)
    WHERE execution_id = ? AND gen = ? AND (run, turn) < (?, ?) AND (? OR closed_at_ms IS NULL)
        AND status <> 'purged'
"""


# a tombstone keeps its closed_at_ms
BURY_RECORD: Final = """
    UPDATE records SET status = 'purged', result = NULL, failure = NULL, custom_status = NULL
    WHERE execution_id = ? AND gen = ? AND closed_at_ms IS NOT NULL
"""
PURGE: Final = tuple(
    f"DELETE FROM {table} WHERE gen = ? AND execution_id = ?" for table in ("turns", "items", "replies")
)
DELETE_TOMBSTONES: Final = "DELETE FROM records WHERE status = 'purged' AND closed_at_ms < ?"


def select_page(*, status: bool, orchestrator: bool, cursor: bool) -> str:
    """A page of records. Parameters, each if asked for: status, orchestrator, cursor's instant and id; limit."""
    conditions = [
        condition
        for condition, wanted in (
            ("status <> 'purged'", True),
            ("status = ?", status),
            ("orchestrator = ?", orchestrator),
            ("(started_at_ms, execution_id) < (?, ?)", cursor),
        )
        if wanted
    ]
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    return f"SELECT {RECORD_COLUMNS} FROM records {where}ORDER BY started_at_ms DESC, execution_id DESC LIMIT ?"


# --- turns and items -----------------------------------------------------------------------------------

INSERT_TURN: Final = (
    "INSERT INTO turns (gen, execution_id, run, number, nonce, body) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
SELECT_NONCE: Final = "SELECT nonce FROM turns WHERE gen = ? AND execution_id = ? AND run = ? AND number = ?"
SELECT_TURNS: Final = """
    SELECT number, body FROM turns WHERE gen = ? AND execution_id = ? AND run = ? AND number > ? ORDER BY number
"""
REPLACE_ITEM: Final = (
    "INSERT OR REPLACE INTO items (gen, execution_id, run, seq, version, body) VALUES (?, ?, ?, ?, ?, ?)"
)
SELECT_ITEM: Final = "SELECT version, body FROM items WHERE gen = ? AND execution_id = ? AND run = ? AND seq = ?"
SELECT_ITEMS: Final = "SELECT body FROM items WHERE gen = ? AND execution_id = ? AND run = ? ORDER BY seq"

REPLACE_REPLY: Final = "INSERT OR REPLACE INTO replies (gen, execution_id, request_id, body) VALUES (?, ?, ?, ?)"
INSERT_REPLY: Final = "INSERT OR IGNORE INTO replies (gen, execution_id, request_id, body) VALUES (?, ?, ?, ?)"
SELECT_REPLY: Final = "SELECT body FROM replies WHERE gen = ? AND execution_id = ? AND request_id = ?"

# --- messages ------------------------------------------------------------------------------------------

OWNER_BITS: Final = 24
LEASE_BITS: Final = 39  # together 63: 39 bits last for years at 5,000 leases a second

INSERT_MESSAGE: Final = (
    "INSERT INTO messages (message_id, visible_at_ms, receives, lease, body) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
DELETE_MESSAGE: Final = "DELETE FROM messages WHERE id = ? AND lease = ?"
SELECT_DUE: Final = """
    SELECT id, message_id, receives, body FROM messages WHERE visible_at_ms <= ?
    ORDER BY visible_at_ms, id LIMIT ?
"""
SELECT_DUE_BUT_TASKS: Final = f"""
    SELECT id, message_id, receives, body FROM messages WHERE visible_at_ms <= ? AND {_NO_TASK}
    ORDER BY visible_at_ms, id LIMIT ?
"""
SELECT_NEXT_DUE: Final = "SELECT min(visible_at_ms) FROM messages"
LEASE_MESSAGE: Final = "UPDATE messages SET visible_at_ms = ?, receives = ?, lease = ? WHERE id = ?"
POSTPONE_MESSAGE: Final = "UPDATE messages SET visible_at_ms = ?, lease = 0 WHERE id = ?"
RELEASE_MESSAGE: Final = (
    "UPDATE messages SET visible_at_ms = ?, lease = 0, receives = receives - 1 WHERE id = ? AND lease = ?"
)
RELEASE_OWNER: Final = (
    "UPDATE messages SET visible_at_ms = min(visible_at_ms, ?), lease = 0, receives = receives - ? "
    "WHERE lease BETWEEN ? AND ?"
)
SELECT_OWNERS: Final = f"SELECT DISTINCT lease >> {LEASE_BITS} FROM messages WHERE lease > 0"
