"""What lies in an AWS account on moto, as the scheduler and the invariants of a world look at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.scheduler.models import scheduler_backends
from moto.sqs.models import Queue, sqs_backends

from durably.adapters.aws import AwsBackend, AwsSettings, Clients, items, keys
from durably.adapters.aws.bodies import Bodies
from durably.codec import wire
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import Outgoing
from durably.ports.records import ActivityItem, Record, Reply
from tests.aws.driver import MAPPINGS, deploy
from tests.aws.payloads import ACCOUNT, ACTIVITIES, REGION, record_of
from tests.simulation import activities
from tests.simulation.hearts import HEARTS

if TYPE_CHECKING:
    from tests.simulation.world import World

_DEDUPLICATION_MS = 300_000
_RECORD = DynamoType({"S": keys.RECORD})
_ENDLESS = 1_000  # receives; an attempt that is lost to faults so often would fail, rightly


REMOTE = [each for each in (*activities.ACTIVITIES, *HEARTS) if each is not activities.work_here]


class AwsStore:
    """The account, through clients that nothing befalls.

    Args:
        world: whose time it is.
        clients: of which it makes requests that are nobody's.
    """

    def __init__(self, world: World, clients: Clients) -> None:
        self._world = world
        self._clients = clients
        self.written: Callable[[ActivityItem], None] = lambda _: None
        self.settings: AwsSettings = deploy(
            clients, [each.name for each in REMOTE], max_receives={ACTIVITIES: _ENDLESS}
        )
        self._bodies = Bodies(self.settings, clients)
        self._backend = AwsBackend(self.settings, clients=clients, clock=_Clock(world))
        self._urls = {name: str(clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]) for name in MAPPINGS}
        self._queues: dict[str, Queue] = dict(sqs_backends[ACCOUNT][REGION].queues)
        self._deaf_until: dict[str, int] = {}
        self._fire_ms: dict[str, int] = {}
        self._lives: dict[str, Record] = {}
        self._remember_deduplication()
        self._watch_items()

    def utcnow(self) -> datetime:
        """The world's time as moto asks for it."""
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self._world.now_ms)).replace(tzinfo=None)

    # --- what the invariants look at ------------------------------------------------------------------------------

    def read_record(self, execution_id: str) -> Record | None:
        for item in self._items(execution_id, keys.RECORD, keys.RECORD):
            return items.record_of(item, partial(self._bodies.get, item["gen"]["S"]))
        return None

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        partition, first = keys.turn_key(run, after + 1)
        return wire.decode_turns(self._stored(run.gen, partition, first, keys.last_turn(run)))

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        partition, sort = keys.item_key(key)
        for body in self._stored(key.run.gen, partition, sort, sort):
            return wire.decode_item(body)
        return None

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        partition, sort = keys.reply_key(run, request_id)
        for body in self._stored(run.gen, partition, sort, sort):
            return wire.decode_reply(body)
        return None

    def send(self, messages: Sequence[Outgoing]) -> None:
        self._backend.send(messages)

    def records(self) -> list[Record]:
        """Of all lives, the oldest first."""
        ids = [partition.value for partition, sorts in self._table.items.items() if _RECORD in sorts]
        current = [record for execution_id in ids if (record := self.read_record(execution_id)) is not None]
        gens = {record.gen for record in current}
        return [*(life for gen, life in self._lives.items() if gen not in gens), *current]

    def remember_record(self, operation: str, request: Any) -> None:
        """A record that may be replaced now is looked at for the last time."""
        if operation != "dynamodb.PutItem":
            return
        item = json.loads(request.body)["Item"]
        if item[keys.SORT]["S"] == keys.RECORD:
            record = self.read_record(item[keys.PARTITION]["S"])
            if record is not None and record.closed:
                self._lives[record.gen] = record

    def messages(self) -> list[str]:
        """Whatever is on a queue, or waits in the scheduler."""
        return [*(message.body for queue in self._queues.values() for message in queue._messages), *self._schedules()]

    def _stored(self, gen: str, *between: str) -> list[bytes]:
        fetch = partial(self._bodies.get, gen)
        return [items.body_of(item, "body", fetch) or b"" for item in self._items(*between)]

    def _items(self, partition: str, first: str, last: str) -> Iterator[dict[str, Any]]:
        """Items as a client gets them, from where moto keeps them: asking takes milliseconds."""
        found: Any = self._table.items.get(DynamoType({"S": partition}), {})
        for sort in sorted(key.value for key in found if first <= key.value <= last):
            attributes = found[DynamoType({"S": sort})].attrs
            yield {name: value.to_regular_json() for name, value in attributes.items()}

    @property
    def _table(self) -> Any:
        return dynamodb_backends[ACCOUNT][REGION].tables[self.settings.table]

    # --- the pollers and the scheduler ------------------------------------------------------------------------------

    def next_due_ms(self) -> int | None:
        """When a message can be received next, or a schedule fires."""
        instants = [*self._instants().values(), *self._schedules().values()]
        return min(instants) if instants else None

    def due(self) -> list[str]:
        """The queues from which something can be received."""
        return [queue for queue, instant in self._instants().items() if instant <= self._world.now_ms]

    def receive(self, queue: str, *, limit: int, shuffled: bool) -> list[dict[str, Any]]:
        """Receive as Lambda's pollers do; only standard queues are shuffled."""
        made = self._queues[queue]
        if shuffled and not made.fifo_queue and len(made._messages) > 1:
            self._world.rng.shuffle(made._messages)
            self._world.faults.counts["reorder"] += 1
        answer = self._clients.sqs.receive_message(
            QueueUrl=self._urls[queue],
            MaxNumberOfMessages=limit,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        received = [record_of(queue, dict(message)) for message in answer.get("Messages", [])]
        if not received:  # all went to the dead letters, or their group is blocked
            self._deaf_until[queue] = self._world.now_ms + 1_000
        return received

    def delete(self, queue: str, record: dict[str, Any]) -> None:
        """Lambda deletes what a function dealt with.

        moto also takes a handle of an earlier receive. SQS does not on a FIFO queue, nor after the visibility time-out;
        on a standard queue it may or may not (SQS API reference, `DeleteMessage`).
        """
        made, handle = self._queues[queue], record["receiptHandle"]
        message = next((each for each in made._messages if each.had_receipt_handle(handle)), None)
        if message is None:
            return
        if message.receipt_handle != handle or message.visible:
            self._world.faults.counts["deleted too late"] += 1
            if made.fifo_queue or self._world.rng.randrange(2):
                return
        self._clients.sqs.delete_message(QueueUrl=self._urls[queue], ReceiptHandle=handle)

    def release(self, queue: str, record: dict[str, Any], seconds: int) -> None:
        """The message becomes visible in so many seconds."""
        self._clients.sqs.change_message_visibility(
            QueueUrl=self._urls[queue], ReceiptHandle=record["receiptHandle"], VisibilityTimeout=seconds
        )

    def extend(self, queue: str, record: dict[str, Any], seconds: int) -> None:
        """The message stays invisible for so many seconds, if its delivery is the last one, and still in flight."""
        handle = record["receiptHandle"]
        for message in self._queues[queue]._messages:
            if message.receipt_handle == handle and not message.visible:
                self.release(queue, record, seconds)

    def fire_schedules(self, twice: bool) -> None:
        """What is due goes to the delay queue; sometimes twice."""
        group: Any = scheduler_backends[ACCOUNT][REGION].schedule_groups[self.settings.schedule_group]
        for name, fires_ms in self._schedules().items():
            if fires_ms <= self._world.now_ms:
                body = group.schedules.pop(name).target["Input"]
                for _ in range(2 if twice else 1):
                    self._clients.sqs.send_message(QueueUrl=self.settings.delay_queue, MessageBody=body)

    def _schedules(self) -> dict[str, int]:
        """When each schedule fires: on time, or up to a minute late."""
        group: Any = scheduler_backends[ACCOUNT][REGION].schedule_groups[self.settings.schedule_group]
        found: dict[str, int] = {}
        for name, schedule in group.schedules.items():
            if name not in self._fire_ms:
                at = datetime.fromisoformat(schedule.schedule_expression[3:-1]).replace(tzinfo=UTC)
                self._fire_ms[name] = round(at.timestamp() * 1000) + self._world.rng.randrange(60_000)
            found[name] = self._fire_ms[name]
        return found

    def _instants(self) -> dict[str, int]:
        """Per queue that holds anything, when something can be received."""
        found: dict[str, int] = {}
        for name, queue in self._queues.items():
            instants = [
                max(message.visible_at + 1, message.delayed_until, _blocked_until(queue, message.group_id))
                for message in queue._messages
            ]
            if instants:
                found[name] = max(int(min(instants)), self._deaf_until.get(name, 0))
        return found

    def _watch_items(self) -> None:
        """Tell of each item of an activity that is written."""
        table = self._table
        put = table.put_item

        def stored(item: dict[str, Any], *args: Any, **more: Any) -> Any:
            done = put(item, *args, **more)
            sort = item[keys.SORT]["S"]
            if "#a#" in sort:
                partition = item[keys.PARTITION]["S"]
                gen = partition.rpartition("#")[2]
                [body] = self._stored(gen, partition, sort, sort)
                self.written(wire.decode_item(body))
            return done

        table.put_item = stored

    def _remember_deduplication(self) -> None:
        """SQS remembers a deduplication id for five minutes; moto's ends with the message."""
        queue = self._queues["events.fifo"]
        add, seen = queue.add_message, dict[str, int]()

        def added(message: Any) -> None:
            now_ms = self._world.now_ms
            if now_ms - seen.get(message.deduplication_id, -_DEDUPLICATION_MS) < _DEDUPLICATION_MS:
                self._world.faults.counts["deduplicated"] += 1
                return
            seen[message.deduplication_id] = now_ms
            add(message)

        queue.add_message = added  # type: ignore[method-assign]


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.now_ms


def _blocked_until(queue: Queue, group: str | None) -> float:
    """A group of a FIFO queue is blocked while a message of it is in flight."""
    if not queue.fifo_queue:
        return 0
    in_flight = [message.visible_at + 1 for message in queue.pending_messages if message.group_id == group]
    return max(in_flight, default=0)
