"""Between the data of the ports and the rows of the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from durably.adapters.sqlite import schema
from durably.codec import wire
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import Message, Outgoing
from durably.ports.records import ActivityItem, Record, RecordChange, Reply

Row: TypeAlias = tuple[Any, ...]
# a message with the parameters it is inserted with: id, due_ms, body
EncodedMessage: TypeAlias = tuple[Message, str, int, bytes]
Receipt: TypeAlias = tuple[int, int]


def record_row(record: Record) -> Row:
    """Parameters of REPLACE_RECORD."""
    return (
        record.execution_id,
        record.gen,
        record.orchestrator,
        record.status,
        record.request_id,
        record.code_version,
        record.started_at_ms,
        record.run,
        record.closed_at_ms,
        record.result,
        None if record.failure is None else wire.encode_failure(record.failure),
        record.turn,
        record.custom_status,
    )


def record_of(row: Row) -> Record:
    """The record of a row of RECORD_COLUMNS."""
    return Record(
        execution_id=row[0],
        gen=row[1],
        orchestrator=row[2],
        status=row[3],
        request_id=row[4],
        code_version=row[5],
        started_at_ms=row[6],
        run=row[7],
        closed_at_ms=row[8],
        result=row[9],
        failure=None if row[10] is None else wire.decode_failure(row[10]),
        turn=row[11],
        custom_status=row[12],
    )


def change_row(run: RunKey, change: RecordChange) -> Row:
    """Parameters of CHANGE_RECORD."""
    return (
        change.status,
        change.run,
        change.turn,
        change.code_version,
        change.closed_at_ms,
        change.result,
        None if change.failure is None else wire.encode_failure(change.failure),
        change.custom_status,
        run.execution_id,
        run.gen,
        change.run,
        change.turn,
        change.reopen,
    )


def turn_row(run: RunKey, turn: Turn) -> Row:
    """Parameters of INSERT_TURN; the first four are the key."""
    return run.gen, run.execution_id, run.run, turn.number, turn.nonce, wire.encode_turn(turn)


def reply_row(reply: Reply) -> Row:
    """Parameters of REPLACE_REPLY; the first three are the key."""
    return reply.run.gen, reply.run.execution_id, reply.request_id, wire.encode_reply(reply)


def item_key(key: ActivityKey) -> Row:
    """Parameters of SELECT_ITEM."""
    return key.run.gen, key.run.execution_id, key.run.run, key.seq


def item_row(item: ActivityItem) -> Row:
    """Parameters of REPLACE_ITEM."""
    return (*item_key(item.key), item.version, wire.encode_item(item))


def encoded_messages(messages: Iterable[Outgoing], now_ms: int) -> list[EncodedMessage]:
    """Messages ready to be inserted; none is due before now, or it would overtake older ones."""
    return [
        (
            outgoing.message,
            outgoing.message.id,
            max(outgoing.due_ms, now_ms),
            wire.encode_message(outgoing.message),
        )
        for outgoing in messages
    ]


def receipt(row_id: int, lease: int) -> str:
    """The receipt of a lease."""
    return f"{row_id}:{lease}"


def parsed_receipts(receipts: Sequence[str]) -> list[Receipt]:
    """Row id and lease of each receipt; what is no receipt of ours names no message, and is left out."""
    parsed: list[Receipt] = []
    for text in receipts:
        row_id, _, lease = text.partition(":")
        try:
            parsed.append((int(row_id), int(lease)))
        except ValueError:
            continue
    return parsed


def acknowledge(connection: sqlite3.Connection, receipts: Sequence[Receipt]) -> None:
    """Delete the messages that still have these leases."""
    for row in receipts:
        connection.execute(schema.DELETE_MESSAGE, row)
