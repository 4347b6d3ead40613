"""The one DynamoDB table: conditional writes, consistent reads, every query to its last page.

A write whose outcome nobody told is resolved by reading: the writer's nonce says whose it was. Never by guessing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from durably.adapters.aws import keys
from durably.adapters.aws.bodies import Bodies, Reference
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.faults import aws_errors, code_of, is_ambiguous, response_of, storage_error
from durably.adapters.aws.items import (
    CHANGING,
    Item,
    activity_item,
    body_of,
    change_values,
    key_of,
    record_item,
    record_of,
    reply_item,
    tombstone_item,
    turn_item,
)
from durably.adapters.aws.parallel import spread
from durably.adapters.aws.settings import AwsSettings
from durably.adapters.rules import tombstone
from durably.adapters.system import SystemEntropy
from durably.codec import wire
from durably.core.errors import StorageError
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.records import CLOSED, OPEN, ActivityItem, Record, RecordChange, Reply

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import PutItemInputTypeDef, QueryInputTypeDef

_logger = logging.getLogger("durably.aws")
_CONFLICT = "ConditionalCheckFailedException"
_ABSENT = f"attribute_not_exists({keys.PARTITION})"
_RECORD_BYTES = 400  # about what a record takes besides what a change sets


class _UnansweredError(StorageError):
    """Nobody answered a write, and it was not done when we looked."""

    def __init__(self, message: str, found: dict[str, Any] | None) -> None:
        super().__init__(message)
        self.found = found


class Table:
    """Records, turns and activity items."""

    def __init__(self, settings: AwsSettings, clients: Clients, bodies: Bodies) -> None:
        self._settings = settings
        self._clients = clients
        self._bodies = bodies
        self._nonce = SystemEntropy().nonce

    # --- turns -------------------------------------------------------------------------------------------

    def put_turn(self, run: RunKey, turn: Turn) -> bool:
        """Append a turn; False if another writer holds its number."""
        item = turn_item(run, turn, partial(self._bodies.put, run.gen))
        try:
            found = self._put(item, condition=_ABSENT, values={}, own={"nonce": turn.nonce})
        except _UnansweredError as error:
            if error.found is None:
                raise
            return False  # the number is taken: what is under way can only fail
        return found is None or found["nonce"]["S"] == turn.nonce

    def delete_turn(self, run: RunKey, number: int) -> None:
        """Delete a turn of a life that never began."""
        try:
            answer = self._clients.dynamodb.delete_item(
                TableName=self._settings.table, Key=key_of(keys.turn_key(run, number)), ReturnValues="ALL_OLD"
            )
        except aws_errors() as error:
            raise storage_error(f"delete turn {number} of {run.execution_id}", error) from error
        reference = answer.get("Attributes", {}).get("body_ref")
        if reference is not None:
            self._bodies.delete(run.gen, Reference.parse(str(reference.get("S"))))

    def load_turns(self, run: RunKey, after: int) -> list[Turn]:
        """The run's turns with number > `after`, in order, gapless."""
        _, first = keys.turn_key(run, after + 1)
        items = list(self._between(keys.run_partition(run), first, keys.last_turn(run)))
        numbers = [keys.turn_number(item[keys.SORT]["S"]) for item in items]
        if numbers != list(range(after + 1, after + 1 + len(numbers))):
            raise StorageError(f"{run} has turns {numbers} after {after}, expected no gap; a writer skipped one.")
        return wire.decode_turns(self._whole(run.gen, items))

    # --- records -----------------------------------------------------------------------------------------

    def put_record(self, record: Record, *, replace_closed: bool) -> Record | None:
        """Take the id (`adapters.rules.replaces`); or the record that holds it: with the same `gen` it is this one."""
        free = sorted(CLOSED) if replace_closed else ["purged"]
        names = {f":closed{index}": status for index, status in enumerate(free)}
        condition = f"{_ABSENT} OR (#status IN ({', '.join(names)}) AND request_id <> :request)"
        values: Item = {
            ":request": {"S": record.request_id},
            **{name: {"S": status} for name, status in names.items()},
        }
        item = record_item(record, partial(self._bodies.put, record.gen))
        found = self._put(item, condition=condition, values=values, own={"gen": record.gen})
        return None if found is None else self._record(found)

    def read_record(self, execution_id: str) -> Record | None:
        """The living record, or None."""
        found = self._get(keys.record_key(execution_id), f"read the record of {execution_id}")
        return None if found is None else self._record(found)

    def bury(self, record: Record, *, expires_s: int, finished: bool) -> bool:
        """Put a tombstone, which expires, in the place of a closed life's record; False if that is not there."""
        names = {f":closed{index}": status for index, status in enumerate(sorted(CLOSED))}
        values: Item = {":gen": {"S": record.gen}, **{name: {"S": status} for name, status in names.items()}}
        condition = f"gen = :gen AND #status IN ({', '.join(names)})"
        item = tombstone_item(tombstone(record), expires_s=expires_s, finished=finished)
        own = {"gen": record.gen, "status": "purged"}
        return self._put(item, condition=condition, values=values, own=own) is None

    def delete_life(self, run: RunKey) -> None:
        """Delete the turns, items and replies of all runs of a life."""
        found = self._query(
            {
                "TableName": self._settings.table,
                "KeyConditionExpression": f"{keys.PARTITION} = :p",
                "ExpressionAttributeValues": {":p": {"S": keys.run_partition(run)}},
                "ProjectionExpression": f"{keys.PARTITION}, {keys.SORT}",
            }
        )
        spread(self._delete, list(found), parallel=self._settings.parallel)

    def _delete(self, key: Item) -> None:
        try:
            self._clients.dynamodb.delete_item(TableName=self._settings.table, Key=key)
        except aws_errors() as error:
            raise storage_error(f"delete {key[keys.SORT]}", error) from error

    def change_record(self, run: RunKey, change: RecordChange) -> None:
        """Apply a change iff it is the same life, still open, and the change is newer."""
        values = change_values(run.execution_id, change, partial(self._bodies.put, run.gen), spare=_RECORD_BYTES)
        names = {f"#{index}": name for index, name in enumerate(CHANGING)}
        if change.custom_status is not None:  # without one the old one stays
            names["#custom"] = "custom_status"
        sets = [f"{short} = :{short[1:]}" for short, name in names.items() if name in values]
        removes = [short for short, name in names.items() if name not in values]
        bound = {f":{short[1:]}": values[name] for short, name in names.items() if name in values}
        newer = "(#2 < :2 OR (#2 = :2 AND #1 < :1))"
        replaced = sorted((OPEN | CLOSED if change.reopen else OPEN) - {"purged"})
        statuses = {f":{status}": {"S": status} for status in replaced}
        try:
            self._clients.dynamodb.update_item(
                TableName=self._settings.table,
                Key=key_of(keys.record_key(run.execution_id)),
                UpdateExpression=f"SET {', '.join(sets)} REMOVE {', '.join(removes)}",
                ConditionExpression=f"#gen = :gen AND {newer} AND #0 IN ({', '.join(statuses)})",
                ExpressionAttributeNames={**names, "#gen": "gen"},
                ExpressionAttributeValues={
                    **bound,
                    ":gen": {"S": run.gen},
                    **statuses,
                },
            )
        except aws_errors() as error:
            if code_of(error) != _CONFLICT:
                raise storage_error(f"change the record of {run.execution_id}", error) from error

    # --- activity items ----------------------------------------------------------------------------------

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        """The activity's item, or None."""
        found = self._get(keys.item_key(key), f"read the item of activity {key.seq} of {key.run.execution_id}")
        return None if found is None else self._item(key.run.gen, found)

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        """All items of a run, by seq."""
        prefix = keys.items_prefix(run)
        items = list(self._between(keys.run_partition(run), prefix, f"{prefix}~"))
        return [wire.decode_item(body) for body in self._whole(run.gen, items)]

    def put_item(self, item: ActivityItem) -> tuple[bool, ActivityItem | None]:
        """Write an item iff the stored version is the one before: whether it was, and what was found instead."""
        gen, nonce = item.key.run.gen, self._nonce()
        condition = _ABSENT
        values: Item = {}
        if item.version > 1:
            condition = "#version = :before"
            values[":before"] = {"N": str(item.version - 1)}
        stored = activity_item(item, nonce, partial(self._bodies.put, gen))
        found = self._put(stored, condition=condition, values=values, own={"nonce": nonce})
        if found is None or found.get("nonce", {}).get("S") == nonce:
            return True, None
        return False, self._item(gen, found) if found else None

    # --- replies -------------------------------------------------------------------------------------------

    def put_reply(self, reply: Reply) -> None:
        """Write the reply to an update; a repetition writes the same, and a rejection takes no other's place."""
        request: PutItemInputTypeDef = {
            "TableName": self._settings.table,
            "Item": reply_item(reply, partial(self._bodies.put, reply.run.gen)),
        }
        if not reply.accepted:
            request["ConditionExpression"] = _ABSENT
        try:
            self._clients.dynamodb.put_item(**request)
        except aws_errors() as error:
            if code_of(error) == _CONFLICT:
                return
            raise storage_error(f"write the reply to the update {reply.request_id}", error) from error

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        """The reply to an update, or None."""
        found = self._get(keys.reply_key(run, request_id), f"read the reply to the update {request_id}")
        if found is None:
            return None
        return wire.decode_reply(body_of(found, "body", partial(self._bodies.get, run.gen)) or b"")

    # --- the status index --------------------------------------------------------------------------------

    def index(
        self,
        partition: str,
        *,
        before: str = "",
        after: str = "",
        orchestrator: str | None = None,
        newest: bool = True,
        page: int = 100,
    ) -> Iterator[Record]:
        """Records of one partition of the status index, without results and failures; the index lags a little.

        Args:
            partition: a status and a shard.
            before: sort key, not included.
            after: sort key, not included.
            orchestrator: of which, None for all.
            newest: first, or the oldest.
            page: items per request.
        """
        low, high = after or "0", before or "~"
        names, values = (
            {"#p": keys.STATUS_PARTITION, "#s": keys.STATUS_SORT},
            cast(Item, {":p": {"S": partition}, ":low": {"S": low}, ":high": {"S": high}}),
        )
        query: QueryInputTypeDef = {
            "TableName": self._settings.table,
            "IndexName": keys.STATUS_INDEX,
            "KeyConditionExpression": "#p = :p AND #s BETWEEN :low AND :high",
            "ScanIndexForward": not newest,
            "Limit": page,
        }
        if orchestrator is not None:
            query["FilterExpression"] = "#o = :o"
            names["#o"], values[":o"] = "orchestrator", {"S": orchestrator}
        query["ExpressionAttributeNames"], query["ExpressionAttributeValues"] = names, values
        for item in self._query(query):
            if item[keys.STATUS_SORT]["S"] not in (before, after):  # BETWEEN takes its ends in
                yield record_of({**item, "status": {"S": partition.partition("#")[0]}}, _nothing)

    # --- requests ------------------------------------------------------------------------------------------

    def _put(self, item: Item, *, condition: str, values: Item, own: dict[str, str]) -> Any:
        """A conditional put: None if it was done, or the item that is there (empty: none).

        Args:
            item: what to put.
            condition: on which.
            values: of the condition.
            own: what only this writer writes.
        """
        names = {f"#{name}": name for name in ("status", "version") if f"#{name}" in condition}
        where = f"{item[keys.PARTITION].get('S')}/{item[keys.SORT].get('S')}"
        request: PutItemInputTypeDef = {
            "TableName": self._settings.table,
            "Item": item,
            "ConditionExpression": condition,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if names:
            request["ExpressionAttributeNames"], request["ExpressionAttributeValues"] = names, values
        try:
            self._clients.dynamodb.put_item(**request)
        except aws_errors() as error:
            if code_of(error) == _CONFLICT:
                return response_of(error).get("Item") or {}
            if not is_ambiguous(error):
                raise storage_error(f"write {where}", error) from error
            self._resolved(item, where, error, own)
        return None

    def _resolved(self, item: Item, where: str, error: Exception, own: dict[str, str]) -> None:
        """Return if a write that nobody answered was done."""
        _logger.warning("nobody answered the write of %s (%s); reading what is there", where, error)
        key = str(item[keys.PARTITION].get("S")), str(item[keys.SORT].get("S"))
        found = self._get(key, f"find out whether {where} was written")
        if found is None or any(found.get(name, {}).get("S") != value for name, value in own.items()):
            raise _UnansweredError(str(storage_error(f"write {where}", error)), found) from error

    def _get(self, key: tuple[str, str], what: str) -> dict[str, Any] | None:
        try:
            answer = self._clients.dynamodb.get_item(
                TableName=self._settings.table, Key=key_of(key), ConsistentRead=True
            )
        except aws_errors() as error:
            raise storage_error(what, error) from error
        found: dict[str, Any] | None = answer.get("Item")
        return found

    def _between(self, partition: str, first: str, last: str) -> Iterator[dict[str, Any]]:
        return self._query(
            {
                "TableName": self._settings.table,
                "ConsistentRead": True,
                "KeyConditionExpression": f"{keys.PARTITION} = :p AND {keys.SORT} BETWEEN :first AND :last",
                "ExpressionAttributeValues": {":p": {"S": partition}, ":first": {"S": first}, ":last": {"S": last}},
            }
        )

    def _query(self, query: QueryInputTypeDef) -> Iterator[dict[str, Any]]:
        if self._settings.page_items is not None:
            query["Limit"] = self._settings.page_items
        while True:
            try:
                page = self._clients.dynamodb.query(**query)
            except aws_errors() as error:
                raise storage_error(f"query {self._settings.table}", error) from error
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            query["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    # --- from items ------------------------------------------------------------------------------------------

    def _whole(self, gen: str, items: list[dict[str, Any]]) -> list[bytes]:
        """The bodies of items, those in S3 fetched several at once."""
        fetch = partial(self._bodies.get, gen)
        if not any("body_ref" in item for item in items):
            return [body_of(item, "body", fetch) or b"" for item in items]
        return spread(lambda item: body_of(item, "body", fetch) or b"", items, parallel=self._settings.parallel)

    def _record(self, found: dict[str, Any]) -> Record:
        return record_of(found, partial(self._bodies.get, found["gen"]["S"]))

    def _item(self, gen: str, found: dict[str, Any]) -> ActivityItem:
        return wire.decode_item(body_of(found, "body", partial(self._bodies.get, gen)) or b"")


def _nothing(reference: Reference) -> bytes:
    raise AssertionError(f"the status index holds no bodies, and here is {reference}")
