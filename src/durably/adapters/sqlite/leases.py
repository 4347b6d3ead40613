"""The message table: putting, leasing, giving back. Everything here runs inside a transaction of the committer."""

from __future__ import annotations

import logging
import sqlite3
from itertools import count

from durably.adapters.sqlite import schema
from durably.adapters.sqlite.rows import EncodedMessage, receipt
from durably.codec import wire
from durably.core.errors import StorageError
from durably.ports.messages import Delivery

logger = logging.getLogger("durably.sqlite")
_POSTPONE_MS = 60_000


class Leases:
    """Hands out this owner's leases. Not thread-safe: used under the committer's lock."""

    def __init__(self, owner: int) -> None:
        self._first = owner << schema.LEASE_BITS
        self._numbers = count(self._first + 1)

    def put(
        self,
        connection: sqlite3.Connection,
        messages: list[EncodedMessage],
        *,
        now_ms: int,
        lease_ms: int,
        keep: bool,
    ) -> tuple[Delivery, ...]:
        """Insert what is not queued yet; what is due is leased at once and returned, if `keep`."""
        kept: list[Delivery] = []
        for message, message_id, due_ms, body in messages:
            if keep and due_ms <= now_ms:
                lease = next(self._numbers)
                row = (message_id, now_ms + lease_ms, 1, lease, body)
                inserted = connection.execute(schema.INSERT_MESSAGE, row)
                if inserted.rowcount > 0 and inserted.lastrowid is not None:
                    kept.append(Delivery(message, receipt(inserted.lastrowid, lease)))
            else:
                connection.execute(schema.INSERT_MESSAGE, (message_id, due_ms, 0, 0, body))
        return tuple(kept)

    def lease(
        self, connection: sqlite3.Connection, *, now_ms: int, limit: int, until_ms: int, tasks: bool
    ) -> list[Delivery]:
        """Lease due messages. One that cannot be decoded (a newer version's, or damaged) waits for a minute,
        for another version to take it, and hinders nobody.
        """
        leased: list[Delivery] = []
        select = schema.SELECT_DUE if tasks else schema.SELECT_DUE_BUT_TASKS
        while len(leased) < limit:
            wanted = limit - len(leased)
            rows = connection.execute(select, (now_ms, wanted)).fetchall()
            for row_id, message_id, receives, body in rows:
                try:
                    message = wire.decode_message(body)
                except (wire.WireError, StorageError) as error:
                    connection.execute(schema.POSTPONE_MESSAGE, (now_ms + _POSTPONE_MS, row_id))
                    logger.warning("message %s stays queued and is tried again in a minute: %s", message_id, error)
                    continue
                lease = next(self._numbers)
                connection.execute(schema.LEASE_MESSAGE, (until_ms, receives + 1, lease, row_id))
                leased.append(Delivery(message, receipt(row_id, lease), receives + 1))
            if len(rows) < wanted:
                break
        return leased


def release_owner(connection: sqlite3.Connection, owner: int, now_ms: int, *, dead: bool) -> None:
    """End all leases of an owner: its messages may be received at once.

    Their deliveries count if the owner is `dead`: one of them may have ended it.
    """
    first = owner << schema.LEASE_BITS
    last = first | ((1 << schema.LEASE_BITS) - 1)
    connection.execute(schema.RELEASE_OWNER, (now_ms, 0 if dead else 1, first, last))
