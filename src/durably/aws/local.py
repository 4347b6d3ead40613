"""Local activities: tasks that run beside the turn that scheduled them, without a queue in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from durably.adapters.aws import AwsBackend
from durably.ports.clock import Clock
from durably.ports.messages import ActivityTask, Delivery, Message, Outgoing


class LocalTasks:
    """Keeps the local tasks that are due for the process itself.

    Nothing is lost with the process: the messages whose turn scheduled the tasks are acknowledged after them, and their
    redelivery schedules again what has no result.

    Attributes:
        backend: sends everything else.
    """

    def __init__(self, backend: AwsBackend, clock: Clock) -> None:
        self.backend = backend.keeping(self._keeps)
        self._queues = backend
        self._clock = clock
        self._kept: dict[str, Delivery] = {}

    def clear(self) -> None:
        """Forget what is kept."""
        self._kept.clear()

    def has(self, execution_id: str) -> bool:
        """Whether anything is kept for an execution."""
        return any(delivery.message.run.execution_id == execution_id for delivery in self._kept.values())

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
            self._queues.send(send)

    def _keeps(self, outgoing: Outgoing) -> bool:
        task = outgoing.message
        if not isinstance(task, ActivityTask) or not is_local(task) or outgoing.due_ms > self._clock.now_ms():
            return False
        # Nobody else holds a local task, so one that is sent again is looked at as a redelivered one is.
        self._kept[task.id] = Delivery(replace(task, again=None), "", receives=2 if task.again else 1)
        return True


def is_local(message: Message) -> bool:
    """Whether a message is a task that runs beside its turn."""
    return isinstance(message, ActivityTask) and message.options is not None and message.options.mode == "local"
