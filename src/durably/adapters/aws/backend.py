"""`AwsBackend`: the contract of `durably.ports.backend` on DynamoDB, SQS, S3 and EventBridge Scheduler.

Where SQLite has one transaction, this has an order: what is stored first makes the redelivery of the message, which is
acknowledged last, repeat all that lies between.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self, TypeVar

from durably.adapters.aws import keys
from durably.adapters.aws.bodies import Bodies
from durably.adapters.aws.clients import Clients
from durably.adapters.aws.envelopes import Envelope, open_envelope
from durably.adapters.aws.listing import list_page
from durably.adapters.aws.parallel import spread
from durably.adapters.aws.queues import Queues, check_size
from durably.adapters.aws.settings import AwsSettings
from durably.adapters.aws.table import Table
from durably.adapters.rules import TOMBSTONE_MS, begins_before, cancelled
from durably.core.errors import ContendedError, StorageError
from durably.core.events import ExecutionStarted
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.backend import (
    CommitOutcome,
    CreateOutcome,
    Creation,
    Page,
    Settlement,
    SettleOutcome,
    TurnCommit,
)
from durably.ports.clock import Clock
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery, Outgoing, Wake
from durably.ports.records import ActivityItem, Record, Reply, Status

T = TypeVar("T")

_FAR_MS = 900_000  # what is due later than this waits in the scheduler
_MAX_CONFLICTS = 20
_logger = logging.getLogger("durably.aws")


class AwsBackend:
    """Storage with queues on AWS. Implements `Backend`; `keep` keeps nothing, a listing has no results and failures.

    Messages are delivered to Lambda functions, whose answer deletes them. So `acknowledge` only remembers.

    Args:
        settings: names of the deployment's resources.
        clients: how to reach them.
        clock: says what is due.
        sleep: between two attempts to send what SQS did not take.

    Attributes:
        acknowledged: receipts (SQS message ids) that are dealt with. A handler clears it when it begins, and
            reports every record that is not in it as failed.
    """

    def __init__(
        self,
        settings: AwsSettings,
        *,
        clients: Clients,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.acknowledged: set[str] = set()
        self._settings = settings
        self._clock = clock
        self._bodies = Bodies(settings, clients)
        self._table = Table(settings, clients, self._bodies)
        self._queues = Queues(settings, clients, self._bodies, clock, sleep)
        self._keeps: Callable[[Outgoing], bool] = _nothing

    # --- Backend -------------------------------------------------------------------------------------------

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        """Store turn 1, then the record, then wake. The record is the acceptance: without it turn 1 is nobody's.

        Raises:
            PayloadError: the input is too large.
            StorageError: nothing was accepted, or nobody knows; the same start may be repeated.
        """
        del keep
        record = creation.record
        for event in creation.turn.inbound:
            if isinstance(event, ExecutionStarted):
                check_size(len(event.input.encode()))
        if not self._table.put_turn(record.key, creation.turn):
            raise StorageError(f"{record.key} has another turn 1 already; start again, under a new gen.")
        found = self._table.put_record(record, replace_closed=creation.replace_closed)
        if found is None or found.gen == record.gen:
            self._wake(creation.wake)
            return CreateOutcome(True, found or record)
        self._table.delete_turn(record.key, creation.turn.number)
        if found.request_id == record.request_id and found.turn == 0 and not found.closed:
            self._wake(Outgoing(Wake(run=found.key, turn=1)))  # whoever started it may have died before it could
        return CreateOutcome(False, found)

    def read_record(self, execution_id: str) -> Record | None:
        """The living record, or None."""
        return self._table.read_record(execution_id)

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        """The run's turns with number > `after`, in order, gapless."""
        return self._table.load_turns(run, after)

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        """Put each turn; then, for those stored: next run, replies, cancelled items, messages, record, acknowledgement.

        Raises:
            StorageError: for one of them something failed. The others are complete, and acknowledged.
        """
        del keep
        errors: dict[int, StorageError] = {}
        everything = range(len(commits))

        def put(index: int) -> bool:
            return self._table.put_turn(commits[index].run, commits[index].turn)

        def follow(index: int) -> None:
            self._follow(commits[index])

        def change(index: int) -> None:
            wanted = commits[index].change
            if wanted is not None:
                self._table.change_record(commits[index].run, wanted)

        stored = self._each(put, everything, errors)
        winners = [index for index in everything if stored.get(index)]
        self._each(follow, winners, errors)
        self._cancel_for({index: commits[index].cancel for index in winners if index not in errors}, errors)
        self._send_for({index: commits[index].send for index in winners if index not in errors}, errors)
        self._each(change, [index for index in winners if commits[index].change and index not in errors], errors)
        for index in winners:
            if index not in errors:
                self.acknowledge(commits[index].acknowledge)
        if errors:
            raise next(iter(errors.values()))
        return [CommitOutcome("stored" if stored[index] else "conflict") for index in everything]

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        """The activity's item, or None."""
        return self._table.read_item(key)

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        """All items of a run, by seq."""
        return self._table.read_items(run)

    def settle(self, settlement: Settlement) -> SettleOutcome:
        """Send the guard, write the item, send, acknowledge; or, where the item's version differs, only the guard."""
        item = settlement.item
        if item is not None:
            if settlement.guard is not None:
                self._send((settlement.guard,))
            written, found = self._table.put_item(item)
            if not written:
                return SettleOutcome(False, found)
        self._send([each for each in settlement.send if item is None or each != settlement.guard])
        if item is not None and item.state == "completed":
            self._forget_deadline(item)
        self.acknowledge(settlement.acknowledge)
        return SettleOutcome(True)

    def reply(self, replies: Sequence[Reply]) -> None:
        """Write the replies to updates that no turn records."""
        spread(self._table.put_reply, replies, parallel=self._settings.parallel)

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        """The reply to an update of the life that `run` is of, or None."""
        return self._table.read_reply(run, request_id)

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        """Put messages on their queues. A standard queue does not notice copies; their receivers do."""
        del keep
        self._send(messages)
        return ()

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """Remember messages as dealt with."""
        self.acknowledged.update(receipts)

    def purge(self, record: Record) -> bool:
        """Put the tombstone first, then delete the rest: whoever finds a tombstone may repeat that.

        It stays in the status index until the rest is gone, so that it is found.
        """
        expires_s = (self._clock.now_ms() + TOMBSTONE_MS) // 1000
        if not record.closed or not self._table.bury(record, expires_s=expires_s, finished=False):
            return False
        self._table.delete_life(record.key)
        self._bodies.delete_life(record.gen)
        self._table.bury(record, expires_s=expires_s, finished=True)
        return True

    def list_records(
        self,
        *,
        status: Status | None = None,
        orchestrator: str | None = None,
        started_before_ms: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """Records, newest start first, from an index that lags a little."""
        return list_page(
            self._table,
            status=status,
            orchestrator=orchestrator,
            before=begins_before(cursor, started_before_ms),
            limit=limit,
            parallel=self._settings.parallel,
        )

    # --- what handlers need besides ------------------------------------------------------------------------

    def open_envelope(self, body: str) -> Envelope:
        """The message in an SQS body, fetched from S3 where it travels by reference.

        Raises:
            WireError: a newer worker wrote it.
            StorageError: it is none of ours, or lost.
        """
        return open_envelope(body, self._bodies)

    def keeping(self, keeps: Callable[[Outgoing], bool]) -> Self:
        """The same backend, but that it sends only what `keeps`, which may take a message for itself, is false for."""
        other = copy.copy(self)
        other._keeps = keeps
        return other

    def send_again(self, messages: Sequence[Outgoing], *, again: str) -> None:
        """Send messages that were lost once, under deduplication ids that `again` makes new."""
        self._send(messages, again=again)

    def started(self, shard: int, *, after_ms: int, before_ms: int) -> Iterator[Record]:
        """Running executions of a shard of the status index that were started in between, the oldest first."""
        return self._table.index(
            keys.status_partition("running", shard),
            after=keys.status_sort(after_ms, ""),
            before=keys.status_sort(before_ms, ""),
            newest=False,
        )

    # --- inside --------------------------------------------------------------------------------------------

    def _follow(self, commit: TurnCommit) -> None:
        """Store what stands beside a turn: the next run's first one, and replies."""
        if commit.successor is not None:  # another taker may have stored it: it is the same, made of the same turns
            self._table.put_turn(commit.run.next, commit.successor)
        self.reply(commit.replies)

    def _each(
        self, function: Callable[[int], T], indexes: Sequence[int], errors: dict[int, StorageError]
    ) -> dict[int, T]:
        """`function` of each index, several at once; failures go to `errors`."""

        def tried(index: int) -> T | StorageError:
            try:
                return function(index)
            except StorageError as error:
                return error

        done: dict[int, T] = {}
        for index, result in zip(indexes, spread(tried, indexes, parallel=self._settings.parallel), strict=True):
            if isinstance(result, StorageError):
                errors[index] = result
            else:
                done[index] = result
        return done

    def _cancel_for(self, cancels: dict[int, tuple[ActivityKey, ...]], errors: dict[int, StorageError]) -> None:
        """Cancel items of several commits, several at once."""
        owned = [(index, key) for index, each in cancels.items() for key in each]
        failed: dict[int, StorageError] = {}
        self._each(lambda position: self._cancel(owned[position][1]), range(len(owned)), failed)
        for position, error in failed.items():
            errors.setdefault(owned[position][0], error)

    def _send_for(self, sends: dict[int, tuple[Outgoing, ...]], errors: dict[int, StorageError]) -> None:
        """Send what several commits cause, together."""
        owned = [(index, message) for index, each in sends.items() for message in each if not self._keeps(message)]
        unsent = self._queues.send([message for _, message in owned])
        for position, error in unsent.items():
            errors.setdefault(owned[position][0], error)

    def _send(self, messages: Iterable[Outgoing], *, again: str = "") -> None:
        unsent = self._queues.send([message for message in messages if not self._keeps(message)], again=again)
        if unsent:
            raise next(iter(unsent.values()))

    def _wake(self, wake: Outgoing) -> None:
        """Wake an accepted execution. It is accepted whether or not this succeeds: the sweeper wakes it then."""
        try:
            self._send((wake,))
        except StorageError as error:
            _logger.warning("the wake %s waits for the sweeper: %s", wake.message.id, error)

    def _cancel(self, key: ActivityKey) -> None:
        """Make an item cancelled. Most activities have none, so first try to write it without reading."""
        found: ActivityItem | None = None
        for _ in range(_MAX_CONFLICTS):
            item = cancelled(found, key)
            if item is None:
                return
            written, seen = self._table.put_item(item)
            if written:
                self._forget_messages(found)
                return
            found = seen
        raise StorageError(
            str(ContendedError(f"the item of activity {key.seq} of {key.run.execution_id} kept changing"))
        )

    def _forget_messages(self, item: ActivityItem | None) -> None:
        """Delete the schedules that a cancelled activity may have."""
        if item is None:
            return
        if item.state == "retrying":
            task = ActivityTask(
                key=item.key, name="", input="", scheduled_at_ms=0, queued_at_ms=0, attempt=item.attempt
            )
            self._queues.cancel(task.id)
        self._forget_deadline(item)

    def _forget_deadline(self, item: ActivityItem) -> None:
        if item.deadline_ms is not None and item.deadline_ms > self._clock.now_ms() + _FAR_MS:
            task = ActivityTask(
                key=item.key, name="", input="", scheduled_at_ms=0, queued_at_ms=0, attempt=item.attempt
            )
            self._queues.cancel(CallbackDeadline(task=task, deadline_ms=item.deadline_ms).id)


def _nothing(_: Outgoing) -> bool:
    return False
