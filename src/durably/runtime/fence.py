"""Which attempt of an activity may still run, and what follows one that failed. The activity's item alone arbitrates.

Whoever changes an item sends what follows; should it die in between, whoever comes next finds that in the item.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from durably.core.errors import ContendedError
from durably.core.events import ActivityCompleted, ActivityFailed, InboundEvent
from durably.core.failures import Failure
from durably.core.options import DEFAULT_OPTIONS, DEFAULT_RETRY
from durably.core.retry import LONGEST
from durably.ports.backend import Settlement
from durably.ports.messages import ActivityTask, EventMessage, Outgoing
from durably.ports.records import ActivityItem
from durably.runtime.runtime import Essentials

MAX_CONFLICTS = 20
_UNDER_WAY = ("retrying", "running", "claimed", "open")


def wanted(runtime: Essentials, task: ActivityTask) -> bool:
    """Whether the run that asked is still open."""
    record = runtime.backend.read_record(task.run.execution_id)
    if record is None or record.closed:
        return False
    return record.gen == task.run.gen and record.run <= task.run.run


def current(item: ActivityItem, task: ActivityTask) -> bool:
    """Whether `task` is the attempt that the item speaks of and may still run."""
    return item.attempt == task.attempt and item.state in _UNDER_WAY


def following(task: ActivityTask, *, due_ms: int, failure: Failure | None) -> ActivityTask:
    """The task of the next attempt."""
    return replace(task, attempt=task.attempt + 1, queued_at_ms=due_ms, last_failure=failure, again=None)


def retry_or_fail(
    runtime: Essentials, task: ActivityTask, failure: Failure, item: ActivityItem | None
) -> tuple[ActivityItem | None, Outgoing | EventMessage]:
    """What follows a failed attempt: the item and the task of the next one, or the event that it failed for good."""
    options = task.options or DEFAULT_OPTIONS
    policy = options.retry or DEFAULT_RETRY
    version = 1 if item is None else item.version + 1
    now_ms = runtime.clock.now_ms()
    if policy.allows(failure, task.attempt):
        delay_ms = failure.retry_after_ms
        if delay_ms is None:
            delay_ms = policy.delay_ms(task.attempt, runtime.entropy.draw())
        due_ms = now_ms + min(delay_ms, LONGEST // timedelta(milliseconds=1))
        if options.schedule_to_close_ms is None or due_ms < task.scheduled_at_ms + options.schedule_to_close_ms:
            next_task = following(task, due_ms=due_ms, failure=failure)
            next_item = ActivityItem(
                key=task.key, state="retrying", attempt=next_task.attempt, version=version, last_failure=failure
            )
            return remembering(next_item, item), Outgoing(next_task, due_ms)
    event = ActivityFailed(seq=task.key.seq, failure=failure, attempt=task.attempt)
    closed = None
    if item is not None:
        closed = ActivityItem(key=task.key, state="closed", attempt=task.attempt, version=version, last_failure=failure)
        closed = remembering(closed, item)
    return closed, EventMessage(run=task.run, event=event)


def remembering(item: ActivityItem, before: ActivityItem | None) -> ActivityItem:
    """The item with what outlives an attempt: the callback that answered it, which may be repeated, and its details."""
    if before is None:
        return item
    return replace(item, answered=before.answered, digest=before.digest, details=before.details)


def left_behind(runtime: Essentials, item: ActivityItem, task: ActivityTask) -> tuple[Outgoing, ...]:
    """What whoever changed the item after `task` was to send next, in case it died before it could."""
    if item.state == "retrying" and item.attempt == task.attempt + 1:
        now_ms = runtime.clock.now_ms()
        return (Outgoing(following(task, due_ms=now_ms, failure=item.last_failure), now_ms),)
    return ending_of(item) if item.attempt == task.attempt else ()


def ending_of(item: ActivityItem) -> tuple[Outgoing, ...]:
    """How the activity ended, if it did."""
    event: InboundEvent
    if item.state == "completed" and item.result is not None:
        event = ActivityCompleted(seq=item.key.seq, result=item.result, attempt=item.attempt)
    elif item.state == "closed" and item.last_failure is not None:
        event = ActivityFailed(seq=item.key.seq, failure=item.last_failure, attempt=item.attempt)
    else:
        return ()
    return (Outgoing(EventMessage(run=item.key.run, event=event)),)


def overtaken(runtime: Essentials, task: ActivityTask, item: ActivityItem, receipt: str) -> None:
    """A later attempt exists or nobody waits any more."""
    runtime.backend.settle(Settlement(send=left_behind(runtime, item, task), acknowledge=(receipt,)))


def contended(task: ActivityTask) -> ContendedError:
    """Others kept changing the item."""
    return ContendedError(f"the item of {task.name} (activity {task.key.seq}) changed meanwhile")
