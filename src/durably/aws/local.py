"""Local activities: tasks that run beside the turn that scheduled them, without a queue in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

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
from durably.ports.messages import ActivityTask, Delivery, Message, Outgoing
from durably.ports.records import ActivityItem, Record, Reply, Status


class LocalTasks:
    """A backend that keeps local tasks which are due for the process itself; all else goes to the one within.

    Nothing is lost with the process: the messages whose turn scheduled the tasks are acknowledged after them, and their
    redelivery schedules again what has no result.
    """

    def __init__(self, inner: Backend, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._kept: dict[str, Delivery] = {}

    def clear(self) -> None:
        """Forget what is kept."""
        self._kept.clear()

    def take(self, execution_id: str) -> list[Delivery]:
        """Remove and return what is kept for an execution."""
        kept = [delivery for delivery in self._kept.values() if delivery.message.run.execution_id == execution_id]
        for delivery in kept:
            del self._kept[delivery.message.id]
        return kept

    def hand_over(self, deliveries: Iterable[Delivery]) -> None:
        """Send kept tasks through the queue after all; tasks that came from a queue are left to it."""
        send = [Outgoing(delivery.message) for delivery in deliveries if delivery.receipt == ""]
        if send:
            self._inner.send(send)

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        """As the backend within."""
        return self._inner.create(creation, keep=keep)

    def read_record(self, execution_id: str) -> Record | None:
        """As the backend within."""
        return self._inner.read_record(execution_id)

    def load_turns(self, run: RunKey, *, after: int = 0) -> list[Turn]:
        """As the backend within."""
        return self._inner.load_turns(run, after=after)

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        """As the backend within, which sends everything but the tasks that are kept."""
        parted = [self._parted(commit.send) for commit in commits]
        outcomes = self._inner.commit(
            [replace(commit, send=others) for commit, (_, others) in zip(commits, parted, strict=True)], keep=keep
        )
        for (tasks, _), outcome in zip(parted, outcomes, strict=True):
            if outcome.status == "stored":
                self._keep(tasks)
        return outcomes

    def read_item(self, key: ActivityKey) -> ActivityItem | None:
        """As the backend within."""
        return self._inner.read_item(key)

    def read_items(self, run: RunKey) -> list[ActivityItem]:
        """As the backend within."""
        return self._inner.read_items(run)

    def settle(self, settlement: Settlement) -> SettleOutcome:
        """As the backend within, which sends everything but the tasks that are kept."""
        tasks, others = self._parted(settlement.send)
        outcome = self._inner.settle(replace(settlement, send=others))
        if outcome.written:
            self._keep(tasks)
        return outcome

    def send(self, messages: Sequence[Outgoing], *, keep: bool = False) -> tuple[Delivery, ...]:
        """As the backend within, which sends everything but the tasks that are kept."""
        tasks, others = self._parted(messages)
        sent = self._inner.send(others, keep=keep) if others else ()
        self._keep(tasks)
        return sent

    def reply(self, replies: Sequence[Reply]) -> None:
        """As the backend within."""
        self._inner.reply(replies)

    def read_reply(self, run: RunKey, request_id: str) -> Reply | None:
        """As the backend within."""
        return self._inner.read_reply(run, request_id)

    def acknowledge(self, receipts: Sequence[str]) -> None:
        """As the backend within."""
        self._inner.acknowledge(receipts)

    def list_records(
        self,
        *,
        status: Status | None = None,
        orchestrator: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """As the backend within."""
        return self._inner.list_records(status=status, orchestrator=orchestrator, limit=limit, cursor=cursor)

    def _parted(self, messages: Sequence[Outgoing]) -> tuple[list[ActivityTask], tuple[Outgoing, ...]]:
        """The local tasks that are due, and everything else."""
        now_ms = self._clock.now_ms()
        tasks: list[ActivityTask] = []
        others: list[Outgoing] = []
        for outgoing in messages:
            message = outgoing.message
            if isinstance(message, ActivityTask) and is_local(message) and outgoing.due_ms <= now_ms:
                tasks.append(message)
            else:
                others.append(outgoing)
        return tasks, tuple(others)

    def _keep(self, tasks: Iterable[ActivityTask]) -> None:
        for task in tasks:
            # Nobody else holds a local task, so one that is sent again is looked at as a redelivered one is.
            receives = 2 if task.again else 1
            self._kept[task.id] = Delivery(replace(task, again=None), "", receives)


def is_local(message: Message) -> bool:
    """Whether a message is a task that runs beside its turn."""
    return isinstance(message, ActivityTask) and message.options is not None and message.options.mode == "local"
