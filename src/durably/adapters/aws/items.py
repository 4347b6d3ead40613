"""Durably's data as DynamoDB items and back. A body is JSON text (S), or compressed (B) where that saves a write unit,
or a reference (`<name>_ref`) to an object in S3 where neither fits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from durably.adapters.aws import keys
from durably.adapters.aws.bodies import Reference
from durably.codec import wire
from durably.core.errors import StorageError
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.ports.records import ActivityItem, Record, RecordChange, Reply

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Value: TypeAlias = AttributeValueTypeDef

Item: TypeAlias = "dict[str, Value]"
Put: TypeAlias = Callable[[bytes], Reference]
Fetch: TypeAlias = Callable[[Reference], bytes]

WRITE_UNIT_BYTES = 1024
READ_UNIT_BYTES = 4096
LARGEST_ITEM_BYTES = 350 * 1024  # DynamoDB takes 400 KB (AWS docs, Service quotas); the rest is leeway
_LEVEL = 6


def value_size(value: Mapping[str, Any]) -> int:
    """Bytes that DynamoDB bills for a value (AWS docs, "Item sizes and formats"): strings, numbers, binaries."""
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(content.lstrip("-0.")) + 1) // 2 + 1
    return len(content)


def item_size(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes that DynamoDB bills for an item."""
    return sum(len(name.encode()) + value_size(value) for name, value in item.items())


def units(size: int, unit: int = WRITE_UNIT_BYTES) -> int:
    """How many billed units `size` bytes are; nothing costs one, too."""
    return max(1, -(-size // unit))


def with_body(fixed: Item, name: str, raw: bytes, put: Put, *, spare: int = 0) -> Item:
    """`fixed` and a body in the cheapest form that fits; `spare` bytes are in the stored item besides."""
    item: Item = {**fixed, name: {"S": raw.decode()}}
    size = item_size(item) + spare
    if size > WRITE_UNIT_BYTES:
        compressed: Item = {**fixed, name: {"B": zlib.compress(raw, _LEVEL)}}
        compressed_size = item_size(compressed) + spare
        if units(compressed_size) < units(size):
            item, size = compressed, compressed_size
    if size > LARGEST_ITEM_BYTES:
        return {**fixed, f"{name}_ref": {"S": str(put(raw))}}
    return item


def body_of(item: Mapping[str, Any], name: str, fetch: Fetch) -> bytes | None:
    """The body as it was given to `with_body`; None if there is none.

    Raises:
        StorageError: it cannot be decompressed, or what it refers to is missing or corrupt.
    """
    if f"{name}_ref" in item:
        return fetch(Reference.parse(item[f"{name}_ref"]["S"]))
    value = item.get(name)
    if value is None:
        return None
    if "S" in value:
        text: str = value["S"]
        return text.encode()
    try:
        return zlib.decompress(bytes(value["B"]))
    except zlib.error as error:
        raise StorageError(
            f"The {name} of item {item.get(keys.SORT)} should be zlib data, but {error}. Restore it from a backup."
        ) from error


def key_of(pair: tuple[str, str]) -> Item:
    """The primary key."""
    return {keys.PARTITION: {"S": pair[0]}, keys.SORT: {"S": pair[1]}}


# --- turns ---------------------------------------------------------------------------------------------


def turn_item(run: RunKey, turn: Turn, put: Put) -> Item:
    """A turn; its nonce stands outside the body, so that a lost response is told from a conflict without S3."""
    fixed: Item = {**key_of(keys.turn_key(run, turn.number)), "nonce": {"S": turn.nonce}}
    return with_body(fixed, "body", wire.encode_turn(turn), put)


# --- records -------------------------------------------------------------------------------------------


def record_item(record: Record, put: Put) -> Item:
    """A record with its entry in the status index."""
    item: Item = {
        **key_of(keys.record_key(record.execution_id)),
        "gen": {"S": record.gen},
        "orchestrator": {"S": record.orchestrator},
        "request_id": {"S": record.request_id},
        "started_at": {"N": str(record.started_at_ms)},
        keys.STATUS_SORT: {"S": keys.status_sort(record.started_at_ms, record.execution_id)},
    }
    change = RecordChange(
        status=record.status,
        run=record.run,
        turn=record.turn,
        code_version=record.code_version,
        closed_at_ms=record.closed_at_ms,
        result=record.result,
        failure=record.failure,
        custom_status=record.custom_status,
    )
    return {**item, **change_values(record.execution_id, change, put, spare=item_size(item))}


def tombstone_item(record: Record, *, expires_s: int, finished: bool) -> Item:
    """What is left of a purged life, deleted by DynamoDB once it has expired; in the status index until it is all."""
    shard = keys.status_shard(record.execution_id)
    indexed: Item = {
        keys.STATUS_PARTITION: {"S": keys.status_partition(record.status, shard)},
        keys.STATUS_SORT: {"S": keys.status_sort(record.started_at_ms, record.execution_id)},
    }
    return {
        **({} if finished else indexed),
        **key_of(keys.record_key(record.execution_id)),
        "gen": {"S": record.gen},
        "orchestrator": {"S": record.orchestrator},
        "status": {"S": record.status},
        "run": {"N": str(record.run)},
        "turn": {"N": str(record.turn)},
        "request_id": {"S": record.request_id},
        "code_version": {"S": record.code_version},
        "started_at": {"N": str(record.started_at_ms)},
        "closed_at": {"N": str(record.closed_at_ms)},
        keys.EXPIRES: {"N": str(expires_s)},
    }


def change_values(execution_id: str, change: RecordChange, put: Put, *, spare: int) -> Item:
    """The attributes that a change sets. The others of `CHANGING` it removes."""
    shard = keys.status_shard(execution_id)
    item: Item = {
        "status": {"S": change.status},
        "run": {"N": str(change.run)},
        "turn": {"N": str(change.turn)},
        "code_version": {"S": change.code_version},
        keys.STATUS_PARTITION: {"S": keys.status_partition(change.status, shard)},
    }
    if change.custom_status is not None:
        item["custom_status"] = {"S": change.custom_status}
    if change.closed_at_ms is not None:
        item["closed_at"] = {"N": str(change.closed_at_ms)}
    if change.failure is not None:
        item = with_body(item, "failure", wire.encode_failure(change.failure), put, spare=spare)
    if change.result is not None:
        item = with_body(item, "result", change.result.encode(), put, spare=spare)
    return item


CHANGING = (
    "status",
    "turn",
    "run",
    "code_version",
    keys.STATUS_PARTITION,
    "closed_at",
    "failure",
    "failure_ref",
    "result",
    "result_ref",
)


def record_of(item: Mapping[str, Any], fetch: Fetch) -> Record:
    """The record in an item of the table, or (without result and failure) of the status index."""
    failure = body_of(item, "failure", fetch)
    result = body_of(item, "result", fetch)
    closed_at = item.get("closed_at")
    return Record(
        execution_id=item[keys.PARTITION]["S"],
        gen=item["gen"]["S"],
        orchestrator=item["orchestrator"]["S"],
        status=item["status"]["S"],
        request_id=item["request_id"]["S"],
        code_version=item["code_version"]["S"],
        started_at_ms=int(item["started_at"]["N"]),
        run=int(item["run"]["N"]),
        closed_at_ms=None if closed_at is None else int(closed_at["N"]),
        result=None if result is None else result.decode(),
        failure=None if failure is None else wire.decode_failure(failure),
        turn=int(item["turn"]["N"]),
        custom_status=item["custom_status"]["S"] if "custom_status" in item else None,
    )


# --- replies -------------------------------------------------------------------------------------------


def reply_item(reply: Reply, put: Put) -> Item:
    """The reply to an update."""
    return with_body(key_of(keys.reply_key(reply.run, reply.request_id)), "body", wire.encode_reply(reply), put)


# --- activity items ------------------------------------------------------------------------------------


def activity_item(item: ActivityItem, nonce: str, put: Put) -> Item:
    """An activity's item; the nonce tells its writer's lost response from another writer's equal item."""
    fixed: Item = {
        **key_of(keys.item_key(item.key)),
        "version": {"N": str(item.version)},
        "nonce": {"S": nonce},
    }
    return with_body(fixed, "body", wire.encode_item(item), put)
