"""Running one attempt of an activity: what comes before the user's function and what comes after it.

The function itself is run by the composition root (a thread, a loop, a Lambda). Receive counts are never attempts:
only the activity's item and the message say which attempt this is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from durably.api.attempt import AttemptInfo, Callback
from durably.api.registry import RunnableActivity
from durably.core.context import instant
from durably.core.errors import (
    ActivityTimeoutError,
    AttemptLostError,
    ContendedError,
    NonRetryableError,
    PayloadError,
)
from durably.core.events import ActivityCompleted
from durably.core.failures import failure_of
from durably.core.options import DEFAULT_OPTIONS, ActivityOptions
from durably.ports.backend import Settlement
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery, EventMessage, Outgoing
from durably.ports.records import ActivityItem
from durably.ports.tokens import TokenClaims
from durably.runtime.fence import (
    MAX_CONFLICTS,
    contended,
    current,
    overtaken,
    remembering,
    retry_or_fail,
    wanted,
)
from durably.runtime.heart import Heart
from durably.runtime.heartbeats import next_check
from durably.runtime.runtime import Runtime

FOR_EVER_MS = 253_370_764_800_000  # the year 9999: a callback without a deadline
_SLACK_MS = 5_000  # clocks differ, and who ran out of time takes a moment to end


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that is to run now.

    Attributes:
        delivery: of the task.
        call: runs the user's function; a coroutine if `is_async`.
        timeout_ms: start-to-close left, None for no bound.
        item: as it was when the attempt began.
        heart: knows the item as it is since.
    """

    task: ActivityTask
    delivery: Delivery
    runnable: RunnableActivity
    call: Callable[[], Any]
    info: AttemptInfo
    timeout_ms: int | None
    item: ActivityItem | None
    heart: Heart

    @property
    def is_async(self) -> bool:
        """Whether `call` returns a coroutine."""
        return self.runnable.is_async


@dataclass(frozen=True, slots=True)
class Answer:
    """An event for the execution, and the receipt of the task that it answers.

    Store both together: either in the turn that applies the event, or by `settle_answer`. A turn takes it as a
    delivery of the task: one that ends the process again and again shows in `receives`.
    """

    event: EventMessage
    receipt: str
    receives: int

    @property
    def delivery(self) -> Delivery:
        """The answer as a turn takes it."""
        return Delivery(self.event, self.receipt, self.receives)


def settle_answer(runtime: Runtime, answer: Answer) -> None:
    """Send the event on its way and acknowledge the task."""
    runtime.backend.settle(Settlement(send=(Outgoing(answer.event),), acknowledge=(answer.receipt,)))


def open_attempt(runtime: Runtime, delivery: Delivery, *, within_ms: int | None = None) -> Attempt | Answer | None:
    """Decide whether a task is run: an `Attempt` to run, an `Answer` without running, or None (dealt with).

    Args:
        runtime: the surroundings.
        delivery: of the task.
        within_ms: the longest that this process can run it. None where a message is delivered again only once the
            process that had it is gone: nobody who claimed an attempt before runs it still.

    Raises:
        ContendedError: its item changed meanwhile, or somebody else may be running the attempt, which is to run at
            most once; the delivery is to be handled again.
        StorageError: the store refused.
    """
    task = delivery.message
    assert isinstance(task, ActivityTask)
    options = task.options or DEFAULT_OPTIONS
    item = None
    alone = options.at_most_once or options.heartbeat_ms or options.mode == "callback"
    if alone or delivery.receives > 1 or task.attempt > 1 or task.again:
        if not wanted(runtime, task):
            runtime.backend.acknowledge([delivery.receipt])
            return None
        item = runtime.backend.read_item(task.key)
        if item is not None and task.again and delivery.receives == 1:
            runtime.backend.acknowledge([delivery.receipt])  # whoever wrote the item holds a message of its own
            return None
        if item is not None and not current(item, task):
            overtaken(runtime, task, item, delivery.receipt)
            return None
    prepared = _prepare(runtime, task, options)
    if isinstance(prepared, BaseException):
        return _fail(runtime, task, delivery, item, prepared)
    runnable, args, kwargs = prepared
    check = None if options.heartbeat_ms is None else next_check(task, runtime.clock.now_ms())
    if options.at_most_once:
        item = _claim(runtime, task, item, within_ms, check)
        if item.owner is None:
            lost = AttemptLostError(
                f"attempt {task.attempt} of {task.name} was claimed before and never reported; "
                "whether it ran to its end is unknown"
            )
            return _fail(runtime, task, delivery, item, lost)
    if options.mode == "callback":
        item = _open_callback(runtime, task, options, item, check)
        args = (_callback(runtime, item), *args)
    elif check is not None and not options.at_most_once:
        item = _begin(runtime, task, item, check)
    function = runnable.activity.implementation
    heart = Heart(runtime, task, item)
    return Attempt(
        task=task,
        delivery=delivery,
        runnable=runnable,
        call=lambda: function(*args, **kwargs),
        info=AttemptInfo(
            execution_id=task.run.execution_id,
            activity=task.name,
            attempt=task.attempt,
            idempotency_key=f"{task.run.gen}.{task.origin or task.run.run}.{task.key.seq}",
            last_failure=task.last_failure,
            heartbeat_details=None if item is None or item.details is None else json.loads(item.details),
            heart=heart,
        ),
        timeout_ms=_time_left(task, options, runtime.clock.now_ms(), within_ms),
        item=item,
        heart=heart,
    )


def attempt_returned(runtime: Runtime, attempt: Attempt, value: Any) -> Answer | None:
    """The function returned `value`."""
    task = attempt.task
    if attempt.heart.lost:
        _drop(runtime, attempt)
        return None
    if attempt.runnable.is_callback:
        runtime.backend.acknowledge([attempt.delivery.receipt])
        return None
    try:
        result = attempt.runnable.result.encode(value)
    except PayloadError as error:
        return attempt_raised(runtime, attempt, error)
    event = ActivityCompleted(seq=task.key.seq, result=result, attempt=task.attempt)
    answer = _answer(EventMessage(run=task.run, event=event), attempt.delivery)
    return _report(runtime, attempt, answer, result)


def attempt_raised(runtime: Runtime, attempt: Attempt, error: BaseException) -> Answer | None:
    """The function raised `error`."""
    item = attempt.heart.stop()
    if attempt.heart.lost:
        _drop(runtime, attempt)
        return None
    if type(error) is NotImplementedError and not attempt.runnable.activity.implemented and not str(error):
        error = NonRetryableError(
            f"activity {attempt.task.name} is a contract without an implementation in this process. Import the module "
            f"that holds its `@{attempt.task.name}.implement`."
        )
    return _fail(runtime, attempt.task, attempt.delivery, item, error, heart=attempt.heart)


def attempt_timed_out(runtime: Runtime, attempt: Attempt) -> Answer | None:
    """The function did not end within start-to-close. What it still does has no effect."""
    seconds = (attempt.timeout_ms or 0) / 1000
    error = ActivityTimeoutError(f"attempt {attempt.task.attempt} did not end within {seconds:g} s (start-to-close)")
    return attempt_raised(runtime, attempt, error)


def attempt_lost(runtime: Runtime, delivery: Delivery) -> Answer | None:
    """No delivery of the task ever reported: its policy decides whether there is another attempt.

    Raises:
        ContendedError: its item changed meanwhile, or the attempt may be running; the delivery is to be handled again.
        StorageError: the store refused.
    """
    task = delivery.message
    assert isinstance(task, ActivityTask)
    if not wanted(runtime, task):
        runtime.backend.acknowledge([delivery.receipt])
        return None
    item = runtime.backend.read_item(task.key)
    if item is not None and not current(item, task):
        overtaken(runtime, task, item, delivery.receipt)
        return None
    _check_claim(runtime, task, item)
    error = AttemptLostError(
        f"attempt {task.attempt} of {task.name} was delivered again and again and never reported; its process "
        "probably died each time. Look for what ends it (memory, time, os._exit) in its log."
    )
    return _fail(runtime, task, delivery, item, error)


# --- inside ------------------------------------------------------------------------------------------------


def _answer(event: EventMessage, delivery: Delivery) -> Answer:
    return Answer(event, delivery.receipt, delivery.receives)


def _fail(
    runtime: Runtime,
    task: ActivityTask,
    delivery: Delivery,
    item: ActivityItem | None,
    error: BaseException,
    *,
    heart: Heart | None = None,
) -> Answer | None:
    failure = failure_of(error)
    for _ in range(MAX_CONFLICTS):
        next_item, follow = retry_or_fail(runtime, task, failure, item)
        if isinstance(follow, EventMessage) and next_item is None:
            return _answer(follow, delivery)
        if isinstance(follow, Outgoing) and not wanted(runtime, task):
            runtime.backend.acknowledge([delivery.receipt])
            return None
        send = (follow,) if isinstance(follow, Outgoing) else (Outgoing(follow),)
        outcome = runtime.backend.settle(Settlement(item=next_item, send=send, acknowledge=(delivery.receipt,)))
        if outcome.written:
            return None
        item = outcome.found if heart is None else heart.seen(outcome.found)
        if item is not None and not current(item, task):
            overtaken(runtime, task, item, delivery.receipt)
            return None
    raise contended(task)


def _report(runtime: Runtime, attempt: Attempt, answer: Answer, result: str) -> Answer | None:
    """Where a duplicate could take the attempt for lost, its item says that it returned, and arbitrates.

    The item holds the result: whoever dies before the event is sent leaves the task behind, whose redelivery sends it.
    """
    task, options = attempt.task, attempt.task.options or DEFAULT_OPTIONS
    item = attempt.heart.stop()
    if item is None or not (options.at_most_once or options.heartbeat_ms):
        return answer
    for _ in range(MAX_CONFLICTS):
        completed = ActivityItem(
            key=task.key, state="completed", attempt=task.attempt, version=item.version + 1, result=result
        )
        outcome = runtime.backend.settle(
            Settlement(item=completed, send=(Outgoing(answer.event),), acknowledge=(answer.receipt,))
        )
        if outcome.written:
            return None
        found = attempt.heart.seen(outcome.found)
        if found is None:
            return answer
        if not current(found, task):
            overtaken(runtime, task, found, answer.receipt)
            return None
        item = found
    raise contended(task)


def _drop(runtime: Runtime, attempt: Attempt) -> None:
    """Nobody waits for the attempt; whoever ended it may have died before it said so."""
    item = runtime.backend.read_item(attempt.task.key)
    if item is None or current(item, attempt.task):
        runtime.backend.acknowledge([attempt.delivery.receipt])
    else:
        overtaken(runtime, attempt.task, item, attempt.delivery.receipt)


def _prepare(
    runtime: Runtime, task: ActivityTask, options: ActivityOptions
) -> tuple[RunnableActivity, tuple[Any, ...], dict[str, Any]] | BaseException:
    """What is called with what, or why it is not."""
    late = _too_late(task, options, runtime.clock.now_ms())
    if late is not None:
        return late
    runnable = runtime.registry.activity(task.name)
    if runnable is None:
        known = ", ".join(runtime.registry.activity_names) or "none"
        return NonRetryableError(
            f"No activity is named {task.name!r} here; this process knows: {known}. "
            "Give it to the registry of the process that serves its queue."
        )
    try:
        args, kwargs = runnable.arguments.decode(task.input)
    except PayloadError as error:
        return error
    return runnable, args, kwargs


def _too_late(task: ActivityTask, options: ActivityOptions, now_ms: int) -> ActivityTimeoutError | None:
    waited = now_ms - task.queued_at_ms
    if options.schedule_to_close_ms is not None and now_ms >= task.scheduled_at_ms + options.schedule_to_close_ms:
        return ActivityTimeoutError(
            f"{task.name} was not done within {options.schedule_to_close_ms / 1000:g} s (schedule-to-close)",
            non_retryable=True,
        )
    if options.schedule_to_start_ms is not None and waited > options.schedule_to_start_ms:
        return ActivityTimeoutError(
            f"attempt {task.attempt} of {task.name} waited {waited / 1000:g} s in its queue, longer than "
            f"{options.schedule_to_start_ms / 1000:g} s (schedule-to-start)",
            non_retryable=True,
        )
    return None


def _time_left(task: ActivityTask, options: ActivityOptions, now_ms: int, within_ms: int | None) -> int | None:
    bounds = [] if within_ms is None else [within_ms]
    if options.start_to_close_ms is not None and options.mode != "callback":
        bounds.append(options.start_to_close_ms)
    if options.schedule_to_close_ms is not None:
        bounds.append(task.scheduled_at_ms + options.schedule_to_close_ms - now_ms)
    return max(1, min(bounds)) if bounds else None


def _check_claim(runtime: Runtime, task: ActivityTask, item: ActivityItem | None) -> None:
    """Leave an attempt alone that somebody else may be running.

    Raises:
        ContendedError: somebody may.
    """
    if item is None or item.state != "claimed" or item.deadline_ms is None:
        return
    if runtime.clock.now_ms() < item.deadline_ms:
        raise ContendedError(
            f"attempt {task.attempt} of {task.name} (activity {task.key.seq}) was claimed by somebody who may be "
            "running it; this delivery waits until it is settled, or until its time is up"
        )


def _claim(
    runtime: Runtime, task: ActivityTask, item: ActivityItem | None, within_ms: int | None, check: Outgoing | None
) -> ActivityItem:
    """Claim an at-most-once attempt; without an owner if it was claimed before."""
    if item is not None and item.state == "claimed":
        _check_claim(runtime, task, item)
        return replace(item, owner=None)
    claim = ActivityItem(
        key=task.key,
        state="claimed",
        attempt=task.attempt,
        version=1 if item is None else item.version + 1,
        deadline_ms=None if within_ms is None else runtime.clock.now_ms() + within_ms + _SLACK_MS,
        owner=runtime.entropy.nonce(),
        last_failure=task.last_failure,
    )
    claim, settlement = _beginning(runtime, remembering(claim, item), check)
    outcome = runtime.backend.settle(settlement)
    if outcome.written or (outcome.found is not None and outcome.found.owner == claim.owner):
        _send_again_if_late(runtime, check)
        return claim
    raise contended(task)


def _open_callback(
    runtime: Runtime,
    task: ActivityTask,
    options: ActivityOptions,
    item: ActivityItem | None,
    check: Outgoing | None,
) -> ActivityItem:
    """The open item of this attempt's callback; a redelivered submission keeps the one that it opened.

    The deadline's message is sent before the item is written. If that took so long that it found no item, or if who
    wrote it died of it, it is sent again.
    """
    if item is not None and item.state == "open":
        if item.deadline_ms is not None:
            runtime.backend.send([_deadline(task, item.deadline_ms)])
        if item.beat_at_ms is not None:
            runtime.backend.send([next_check(task, item.beat_at_ms)])
        return item
    now_ms = runtime.clock.now_ms()
    deadline_ms = None if options.start_to_close_ms is None else now_ms + options.start_to_close_ms
    if options.schedule_to_close_ms is not None:
        latest_ms = task.scheduled_at_ms + options.schedule_to_close_ms
        deadline_ms = latest_ms if deadline_ms is None else min(deadline_ms, latest_ms)
    opened = ActivityItem(
        key=task.key,
        state="open",
        attempt=task.attempt,
        version=1 if item is None else item.version + 1,
        deadline_ms=deadline_ms,
        last_failure=task.last_failure,
        task=task,
    )
    deadline = None if deadline_ms is None else _deadline(task, deadline_ms)
    send = () if deadline is None else (deadline,)
    opened = remembering(opened, item)
    if check is not None:
        opened = replace(opened, beat_at_ms=now_ms)
        runtime.backend.send((check,))
    if not runtime.backend.settle(Settlement(item=opened, send=send, guard=deadline)).written:
        raise contended(task)
    _send_again_if_late(runtime, deadline, check)
    return opened


def _begin(runtime: Runtime, task: ActivityTask, item: ActivityItem | None, check: Outgoing) -> ActivityItem:
    """The item of an attempt that is to beat from now on."""
    begun = ActivityItem(
        key=task.key,
        state="running",
        attempt=task.attempt,
        version=1 if item is None else item.version + 1,
        last_failure=task.last_failure,
    )
    begun, settlement = _beginning(runtime, remembering(begun, item), check)
    if not runtime.backend.settle(settlement).written:
        raise contended(task)
    _send_again_if_late(runtime, check)
    return begun


def _beginning(runtime: Runtime, item: ActivityItem, check: Outgoing | None) -> tuple[ActivityItem, Settlement]:
    """The item of an attempt that begins, and how it is written: not before its check is on its way."""
    if check is None:
        return item, Settlement(item=item)
    begun = replace(item, beat_at_ms=runtime.clock.now_ms())
    return begun, Settlement(item=begun, send=(check,), guard=check)


def _send_again_if_late(runtime: Runtime, *messages: Outgoing | None) -> None:
    """Who received them found no item yet, if writing that took too long."""
    late = [message for message in messages if message is not None and runtime.clock.now_ms() >= message.due_ms]
    if late:
        runtime.backend.send(late)


def _deadline(task: ActivityTask, deadline_ms: int) -> Outgoing:
    return Outgoing(CallbackDeadline(task=task, deadline_ms=deadline_ms), deadline_ms)


def _callback(runtime: Runtime, item: ActivityItem) -> Callback[Any]:
    expires_ms = FOR_EVER_MS if item.deadline_ms is None else item.deadline_ms
    token = runtime.signer.sign(TokenClaims(key=item.key, attempt=item.attempt, expires_at_ms=expires_ms))
    return Callback(url=f"{runtime.callback_url}/callbacks/{token}", token=token, expires_at=instant(expires_ms))
