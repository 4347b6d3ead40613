"""Heartbeats from outside, and the check that notices when they stop. The activity's item alone arbitrates."""

from __future__ import annotations

from dataclasses import replace

from durably.core.errors import ActivityTimeoutError
from durably.core.failures import failure_of
from durably.core.options import DEFAULT_OPTIONS
from durably.ports.backend import Settlement
from durably.ports.messages import ActivityTask, Delivery, HeartbeatCheck, Outgoing
from durably.runtime.fence import MAX_CONFLICTS, contended, current, left_behind, retry_or_fail, wanted
from durably.runtime.runtime import Essentials


def check_heartbeat(runtime: Essentials, delivery: Delivery) -> None:
    """A check arrived: if its attempt has been silent for too long, its policy decides; else look again later.

    Raises:
        ContendedError: its item changed meanwhile; the delivery is to be handled again.
        StorageError: the store refused.
    """
    message = delivery.message
    assert isinstance(message, HeartbeatCheck)
    task, backend = message.task, runtime.backend
    if not wanted(runtime, task):
        backend.acknowledge([delivery.receipt])
        return
    for _ in range(MAX_CONFLICTS):
        item = backend.read_item(task.key)
        if item is None or not current(item, task) or item.beat_at_ms is None:
            # the attempt has ended; or it never began, and whoever begins it sends a check of its own
            send = () if item is None else left_behind(runtime, item, task)
            backend.settle(Settlement(send=send, acknowledge=(delivery.receipt,)))
            return
        check = next_check(task, item.beat_at_ms)
        if check.due_ms > max(runtime.clock.now_ms(), message.deadline_ms):  # this clock may be slower than the queue's
            backend.settle(Settlement(send=(check,), acknowledge=(delivery.receipt,)))
            return
        error = ActivityTimeoutError(
            f"attempt {task.attempt} of {task.name} sent no heartbeat for {_seconds(task):g} s"
        )
        next_item, follow = retry_or_fail(runtime, task, failure_of(error), item)
        send = (follow if isinstance(follow, Outgoing) else Outgoing(follow),)
        if backend.settle(Settlement(item=next_item, send=send, acknowledge=(delivery.receipt,))).written:
            return
    raise contended(task)


def next_check(task: ActivityTask, beat_at_ms: int) -> Outgoing:
    """The check of an attempt whose last heartbeat, or beginning, was at `beat_at_ms`."""
    deadline_ms = beat_at_ms + round(_seconds(task) * 1000)
    return Outgoing(HeartbeatCheck(task=replace(task, again=None), deadline_ms=deadline_ms), deadline_ms)


def _seconds(task: ActivityTask) -> float:
    options = task.options or DEFAULT_OPTIONS
    assert options.heartbeat_ms is not None
    return options.heartbeat_ms / 1000
