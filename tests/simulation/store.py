"""Stores under simulation: a memory backend whose queue reorders and forgets, and one that does everything in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from durably.adapters.memory.backend import MemoryBackend
from durably.adapters.memory.queue import MessageQueue, _Queued
from durably.adapters.rules import replaces
from durably.codec import wire
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.backend import (
    Backend,
    CommitOutcome,
    CreateOutcome,
    Creation,
    Page,
    Settlement,
    SettleOutcome,
    TurnCommit,
)
from durably.ports.clock import Clock
from durably.ports.messages import Delivery, Outgoing, Wake
from durably.ports.records import ActivityItem, Record, Reply, Status

LEASE_MS = 60_000


class SimulatedQueue(MessageQueue):
    """A queue that may forget that it holds a message, and then queues a second one.

    Args:
        forgets: asked for each message that is queued already.
    """

    def __init__(self, forgets: Callable[[], bool]) -> None:
        super().__init__()
        self._forgets = forgets

    def put(self, messages: Iterable[Outgoing], *, now_ms: int, lease_ms: int, keep: bool) -> tuple[Delivery, ...]:
        kept: list[Delivery] = []
        for outgoing in messages:
            if outgoing.message.id in self._by_id and self._forgets():
                self._last_position += 1
                key = f"{outgoing.message.id}#{self._last_position}"
                body = wire.encode_message(outgoing.message)
                self._by_id[key] = _Queued(self._last_position, key, body, max(outgoing.due_ms, now_ms))
            else:
                kept.extend(super().put((outgoing,), now_ms=now_ms, lease_ms=lease_ms, keep=keep))
        return tuple(kept)

    def receive_from(self, start: int, *, now_ms: int, limit: int, visibility_ms: int) -> list[Delivery]:
        """As `receive`, but the `start` (modulo) first of the due messages come last."""
        due = [queued for queued in self._by_id.values() if queued.visible_at_ms <= now_ms]
        due.sort(key=lambda queued: (queued.visible_at_ms, queued.position))
        if start and due:
            start %= len(due)
            due = due[start:] + due[:start]
        return [
            Delivery(wire.decode_message(queued.body), self._lease(queued, now_ms + visibility_ms), queued.receives)
            for queued in due[:limit]
        ]

    def extend(self, delivery: Delivery, until_ms: int) -> None:
        """The delivery's lease lasts longer, if it has not ended."""
        queued = self._by_receipt.get(delivery.receipt)
        if queued is not None:
            queued.visible_at_ms = until_ms

    def expire(self, delivery: Delivery, now_ms: int) -> None:
        """The delivery's lease ends."""
        self._by_receipt.pop(delivery.receipt).visible_at_ms = now_ms

    def count_again(self, delivery: Delivery, times: int) -> Delivery:
        """The same delivery of a message that was received `times` more often before."""
        queued = self._by_receipt[delivery.receipt]
        queued.receives += times - 1
        return Delivery(delivery.message, self._lease(queued, queued.visible_at_ms), queued.receives)


class Store(MemoryBackend):
    """The memory backend, with what the scheduler and the invariants need beside the ports."""

    def __init__(self, clock: Clock, forgets: Callable[[], bool]) -> None:
        super().__init__(clock, visibility_ms=LEASE_MS)
        self.queue = self._queue = SimulatedQueue(forgets)
        self.graves: list[Record] = []
        self.written: Callable[[ActivityItem], None] = _unheard

    def settle(self, settlement: Settlement) -> SettleOutcome:
        outcome = super().settle(settlement)
        if outcome.written and settlement.item is not None:
            self.written(settlement.item)
        return outcome

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        found = self.read_record(creation.record.execution_id)
        outcome = super().create(creation, keep=keep)
        if outcome.created and found is not None:
            self.graves.append(found)
        return outcome

    def create_without_wake(self, creation: Creation) -> CreateOutcome:
        """The record by itself, as one conditional put."""
        found = self.read_record(creation.record.execution_id)
        if found is not None and not replaces(creation, found):
            return CreateOutcome(False, found)
        if found is not None:
            self.graves.append(found)
        self._records[creation.record.execution_id] = wire.encode_record(creation.record)
        return CreateOutcome(True, creation.record)

    def records(self) -> list[Record]:
        """Of all lives, the oldest first."""
        return [*self.graves, *(wire.decode_record(body) for body in self._records.values())]


def _unheard(item: ActivityItem) -> None:
    pass


class StepwiseBackend:
    """A backend as AWS will be: each call is several operations, and a process can die between any two.

    Args:
        store: does each operation.
        step: called between operations with a name for the place; may raise, or let others go first.
    """

    def __init__(self, store: Store, step: Callable[[str], None]) -> None:
        self._store = store
        self._step = step

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        store, record = self._store, creation.record
        found = store.read_record(record.execution_id)
        if found is None or replaces(creation, found):
            store.commit([TurnCommit(run=record.key, turn=creation.turn)])
            self._step("create, before the record")
            outcome = store.create_without_wake(creation)
            if outcome.created:
                self._step("create, before the wake")
                store.send([creation.wake])
                return outcome
            found = outcome.record
        if found.request_id == record.request_id and not found.closed:
            store.send([Outgoing(Wake(run=found.key, turn=1))])
        return CreateOutcome(False, found)

    def read_record(self, execution_id: str) -> Record | None:
        return self._store.read_record(execution_id)

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        return self._store.load_turns(run, after=after)

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        outcomes: list[CommitOutcome] = []
        for index, commit in enumerate(commits):
            if index:
                self._step("commit, before the next turn")
            outcomes.append(self._commit(commit))
        return outcomes

    def _commit(self, commit: TurnCommit) -> CommitOutcome:
        store, run, turn = self._store, commit.run, commit.turn
        outcome = store.commit([TurnCommit(run=run, turn=turn)])[0]
        if outcome.status == "conflict":
            return outcome
        if commit.successor is not None:
            self._step("commit, before the next run")
            store.commit([TurnCommit(run=run.next, turn=commit.successor)])
        for reply in commit.replies:
            self._step("commit, before a reply")
            store.reply([reply])
        for key in commit.cancel:
            self._step("commit, before a cancellation")
            store.commit([TurnCommit(run=run, turn=turn, cancel=(key,))])
        for outgoing in commit.send:
            self._step("commit, before a message")
            store.send([outgoing])
        if commit.change is not None:
            self._step("commit, before the record")
            store.commit([TurnCommit(run=run, turn=turn, change=commit.change)])
        if commit.acknowledge:
            self._step("commit, before the acknowledgement")
            store.acknowledge(commit.acknowledge)
        return outcome

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        return self._store.read_item(key)

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        return self._store.read_items(run)

    def settle(self, settlement: Settlement) -> SettleOutcome:
        store = self._store
        if settlement.guard is not None:
            store.send([settlement.guard])
            self._step("settle, before the item")
        outcome = SettleOutcome(True)
        if settlement.item is not None:
            outcome = store.settle(Settlement(item=settlement.item))
            if not outcome.written:
                return outcome
        for outgoing in settlement.send:
            self._step("settle, before a message")
            store.send([outgoing])
        if settlement.acknowledge:
            self._step("settle, before the acknowledgement")
            store.acknowledge(settlement.acknowledge)
        return outcome

    def reply(self, replies: Sequence[Reply]) -> None:
        for index, reply in enumerate(replies):
            if index:
                self._step("reply, before the next one")
            self._store.reply([reply])

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        return self._store.read_reply(run, request_id)

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        for index, outgoing in enumerate(messages):
            if index:
                self._step("send, before the next message")
            self._store.send([outgoing])
        return ()

    def purge(self, record: Record) -> bool:
        return self._store.purge(record)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        for index, receipt in enumerate(receipts):
            if index:
                self._step("acknowledge, before the next one")
            self._store.acknowledge([receipt])

    def list_records(
        self,
        *,
        status: Status | None = None,
        orchestrator: str | None = None,
        started_before_ms: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        return self._store.list_records(
            status=status, orchestrator=orchestrator, started_before_ms=started_before_ms, limit=limit, cursor=cursor
        )


_: type[Backend] = StepwiseBackend
