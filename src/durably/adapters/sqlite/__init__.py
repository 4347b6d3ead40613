"""A backend on one SQLite file: durable on a single machine, shared by several processes."""

from durably.adapters.sqlite.backend import SqliteBackend
from durably.adapters.sqlite.opening import Synchronous

__all__ = ["SqliteBackend", "Synchronous"]
