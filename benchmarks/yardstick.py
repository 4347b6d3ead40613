"""What the disk gives: plain sqlite3, one small insert a commit, as durable as the runtime's turns."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

from benchmarks.measuring import Bench, Measurement, middle


def full_commits(bench: Bench) -> Iterator[Measurement]:
    seconds, repeats = (0.5, 5) if not bench.quick else (0.2, 3)
    with closing(sqlite3.connect(bench.file(), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        samples = [_commits_per_s(connection, seconds) for _ in range(repeats)]
        (n,) = connection.execute("SELECT count(*) FROM rows").fetchone()
    yield Measurement(middle(samples), n)


def _commits_per_s(connection: sqlite3.Connection, seconds: float) -> float:
    begun = time.perf_counter()
    commits = 0
    while (took := time.perf_counter() - begun) < seconds:
        connection.execute("INSERT INTO rows (body) VALUES (?)", (b"x" * 100,))
        commits += 1
    return commits / took
