"""Every name under which the AWS backend stores or sends anything: keys of items, objects, groups and schedules."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator

from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import Message
from durably.ports.records import LISTED, Status

PARTITION = "pk"
SORT = "sk"
EXPIRES = "expires"  # the table's TTL attribute, seconds since the epoch
STATUS_INDEX = "by-status"
STATUS_PARTITION = "gsi_pk"
STATUS_SORT = "gsi_sk"
STATUS_SHARDS = 32

RECORD = "#record"
SWEEPER = ("#sweeper", "#progress")  # partition and sort key; no execution id begins with a `#`
MESSAGES_PREFIX = "messages/"  # of objects; the template's lifecycle rule names it
_MAX_GROUP = 128  # characters of a MessageGroupId
_STAMP_DIGITS = 19
_DEDUPLICATION_ID = re.compile(r"[!-~]{1,128}")  # alphanumeric characters and punctuation, says SQS
_TURN = re.compile(r"r#\d{6,}#t#(\d{8,})")


def record_key(execution_id: str) -> tuple[str, str]:
    """Partition and sort key of the record."""
    return execution_id, RECORD


def run_partition(run: RunKey) -> str:
    """The partition of one life: its turns and items. No execution id holds a `#`, so it is nobody's record."""
    return f"{run.execution_id}#{run.gen}"


def turn_key(run: RunKey, number: int) -> tuple[str, str]:
    """Partition and sort key of a turn."""
    return run_partition(run), f"{turns_prefix(run)}{number:08d}"


def turns_prefix(run: RunKey) -> str:
    """What the sort keys of a run's turns begin with."""
    return f"r#{run.run:06d}#t#"


def last_turn(run: RunKey) -> str:
    """Sorts after the run's every turn (`~` follows the digits)."""
    return f"{turns_prefix(run)}~"


def turn_number(sort_key: str) -> int:
    """The number in a turn's sort key."""
    found = _TURN.fullmatch(sort_key)
    assert found is not None, sort_key
    return int(found[1])


def item_key(key: ActivityKey) -> tuple[str, str]:
    """Partition and sort key of an activity's item."""
    return run_partition(key.run), f"{items_prefix(key.run)}{key.seq:08d}"


def reply_key(run: RunKey, request_id: str) -> tuple[str, str]:
    """Partition and sort key of the reply to an update."""
    return run_partition(run), f"u#{request_id}"


def items_prefix(run: RunKey) -> str:
    """What the sort keys of a run's items begin with."""
    return f"r#{run.run:06d}#a#"


def status_shard(execution_id: str) -> int:
    """Which of the shards of the status index holds an execution."""
    return zlib.crc32(execution_id.encode()) % STATUS_SHARDS


def status_partition(status: Status, shard: int) -> str:
    """Partition key of the status index."""
    return f"{status}#{shard:02d}"


def status_partitions(status: Status | None) -> Iterator[str]:
    """All partitions of one status, or of all."""
    for each in LISTED if status is None else (status,):
        for shard in range(STATUS_SHARDS):
            yield status_partition(each, shard)


def status_sort(started_at_ms: int, execution_id: str) -> str:
    """Sort key of the status index: by start, then by id."""
    return f"{max(0, started_at_ms):0{_STAMP_DIGITS}d}#{execution_id}"


def body_key(gen: str, digest: str) -> str:
    """Key of the object that holds a body. Each life has its own, so that a purge deletes a prefix."""
    return f"{bodies_prefix(gen)}{digest}"


def message_key(gen: str, digest: str) -> str:
    """Key of the object that holds a message on its way; the bucket's lifecycle rule expires it."""
    return f"{MESSAGES_PREFIX}{gen}/{digest}"


def bodies_prefix(gen: str) -> str:
    """What the keys of a life's objects begin with."""
    return f"bodies/{gen}/"


def dead_letter_key(queue: str, message_id: str) -> str:
    """Key of the object that holds a dead letter which is no message of ours."""
    return f"dead-letters/{queue}/{message_id}.json"


def message_group(message: Message) -> str:
    """FIFO group: the execution, so that its events stay in order and hinder no other's."""
    execution_id = message.run.execution_id
    if len(execution_id) <= _MAX_GROUP:
        return execution_id
    return hashlib.sha256(execution_id.encode()).hexdigest()


def deduplication_id(message: Message, again: str = "") -> str:
    """FIFO deduplication id; `again` tells a message that is sent anew on purpose from its copy."""
    name = f"{message.id}.{again}" if again else message.id
    if _DEDUPLICATION_ID.fullmatch(name):
        return name
    return hashlib.sha256(name.encode()).hexdigest()


def schedule_name(message_id: str) -> str:
    """Name of the one-off schedule for a message; 64 characters, the most that the scheduler takes."""
    return hashlib.sha256(message_id.encode()).hexdigest()
