"""Completing callback activities from outside, and their deadlines. The activity's item alone arbitrates (P7)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from durably.core.errors import ActivityTimeoutError, ContendedError, PayloadError, TokenError
from durably.core.events import ActivityCompleted, ActivityFailed, InboundEvent
from durably.core.failures import Failure, failure_of
from durably.ports.backend import Settlement
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery, EventMessage, Outgoing
from durably.ports.records import ActivityItem
from durably.ports.tokens import TokenClaims
from durably.runtime.attempt import following, retry_or_fail
from durably.runtime.runtime import Runtime

_MAX_CONFLICTS = 20
_CHECK_MS = 30_000

Verdict: TypeAlias = Literal["accepted", "invalid", "unauthorised", "conflict", "gone", "too large"]


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What the caller is told.

    Attributes:
        verdict: "accepted" also for a repetition of the same payload.
        message: what was wrong and what to do.
    """

    verdict: Verdict
    message: str


_ACCEPTED = CallbackAnswer("accepted", "The result is recorded.")
_EXPIRED = CallbackAnswer("gone", "This attempt's deadline has passed, or its execution has moved on. Do not repeat.")


def complete_callback(runtime: Runtime, token: str, payload: str) -> CallbackAnswer:
    """Complete the attempt that `token` names with `payload`, JSON text of the activity's result."""
    claims = _claims(runtime, token)
    if isinstance(claims, CallbackAnswer):
        return claims
    too_large = _too_large(runtime, payload)
    if too_large is not None:
        return too_large
    return _complete(runtime, claims, payload, failure=None)


def fail_callback(runtime: Runtime, token: str, failure: Failure) -> CallbackAnswer:
    """Fail the attempt that `token` names; its policy decides whether there is another one."""
    claims = _claims(runtime, token)
    if isinstance(claims, CallbackAnswer):
        return claims
    return _complete(runtime, claims, f"{failure.type}\n{failure.message}", failure=failure)


def callback_deadline(runtime: Runtime, delivery: Delivery) -> None:
    """A deadline message arrived: if its attempt is still open it is late; retry it or fail the activity."""
    message = delivery.message
    assert isinstance(message, CallbackDeadline)
    task = message.task
    for _ in range(_MAX_CONFLICTS):
        item = runtime.backend.read_item(task.key)
        if item is None or item.state != "open" or item.attempt != task.attempt or message.check:
            send = () if item is None else _sent_before(runtime, item, task)
            runtime.backend.settle(Settlement(send=send, acknowledge=(delivery.receipt,)))
            return
        if item.deadline_ms is not None and message.deadline_ms < item.deadline_ms:
            runtime.backend.acknowledge([delivery.receipt])  # the item's own deadline was sent before it was written
            return
        failure = failure_of(
            ActivityTimeoutError(f"no callback arrived for attempt {task.attempt} of {task.name} before its deadline")
        )
        settlement = _settle_failure(runtime, item, failure, digest=None)
        if runtime.backend.settle(replace(settlement, acknowledge=(delivery.receipt,))).written:
            return
    raise ContendedError(f"the item of {task.name} (activity {task.key.seq}) changed meanwhile")


def _sent_before(runtime: Runtime, item: ActivityItem, task: ActivityTask) -> tuple[Outgoing, ...]:
    """What whoever changed the item was to send next, in case it died before it could."""
    if item.state == "retrying" and item.attempt == task.attempt + 1:
        now_ms = runtime.clock.now_ms()
        return (Outgoing(following(task, due_ms=now_ms, failure=item.last_failure), now_ms),)
    return _event_of(item)


def _event_of(item: ActivityItem) -> tuple[Outgoing, ...]:
    """How the activity ended, if it did."""
    event: InboundEvent
    if item.state == "completed" and item.result is not None:
        event = ActivityCompleted(seq=item.key.seq, result=item.result, attempt=item.attempt)
    elif item.state == "closed" and item.last_failure is not None:
        event = ActivityFailed(seq=item.key.seq, failure=item.last_failure, attempt=item.attempt)
    else:
        return ()
    return (Outgoing(EventMessage(run=item.key.run, event=event)),)


def _claims(runtime: Runtime, token: str) -> TokenClaims | CallbackAnswer:
    try:
        return runtime.signer.verify(token)
    except TokenError:
        return CallbackAnswer("unauthorised", "This is not a task token of this deployment.")


def _too_large(runtime: Runtime, payload: str) -> CallbackAnswer | None:
    size, limit = len(payload.encode()), runtime.limits.payload_bytes
    if size <= limit:
        return None
    return CallbackAnswer(
        "too large", f"The payload has {size} bytes, more than {limit}. Store it elsewhere and send a reference."
    )


def _complete(runtime: Runtime, claims: TokenClaims, payload: str, *, failure: Failure | None) -> CallbackAnswer:
    digest = hashlib.sha256(payload.encode()).hexdigest()
    backend, run = runtime.backend, claims.key.run
    for _ in range(_MAX_CONFLICTS):
        record = backend.read_record(run.execution_id)
        if record is None or record.gen != run.gen:
            return _EXPIRED
        item = backend.read_item(claims.key)
        if item is None:
            return _EXPIRED
        if item.answered == claims.attempt:
            return _repeat(runtime, item, digest)
        if record.closed or item.state != "open" or item.attempt != claims.attempt:
            return _EXPIRED
        if runtime.clock.now_ms() >= claims.expires_at_ms:
            return _EXPIRED
        if failure is None:
            refused = _undecodable(runtime, item, payload)
            if refused is not None:
                return refused
            event = ActivityCompleted(seq=claims.key.seq, result=payload, attempt=claims.attempt)
            completed = replace(
                item,
                state="completed",
                version=item.version + 1,
                answered=item.attempt,
                digest=digest,
                result=payload,
                task=None,
            )
            settlement = Settlement(item=completed, send=(Outgoing(EventMessage(run=run, event=event)),))
        else:
            settlement = _settle_failure(runtime, item, failure, digest=digest)
        assert item.task is not None
        check = Outgoing(CallbackDeadline(task=item.task, check=True), runtime.clock.now_ms() + _CHECK_MS)
        if backend.settle(replace(settlement, guard=check)).written:
            return _ACCEPTED
    return CallbackAnswer("conflict", "Too many callbacks for the same token at once. Try again.")


def _repeat(runtime: Runtime, item: ActivityItem, digest: str) -> CallbackAnswer:
    """The same callback again: the first one may have died between storing and sending.

    Where it led to another attempt, the check that it left behind sends that.
    """
    if item.digest != digest:
        return CallbackAnswer("conflict", "Another result was recorded for this token before; it stands.")
    send = _event_of(item) if item.attempt == item.answered else ()
    if send:
        runtime.backend.send(send)
    return _ACCEPTED


def _settle_failure(runtime: Runtime, item: ActivityItem, failure: Failure, *, digest: str | None) -> Settlement:
    assert item.task is not None
    next_item, follow = retry_or_fail(runtime, item.task, failure, item)
    assert next_item is not None
    if digest is not None:
        next_item = replace(next_item, answered=item.attempt, digest=digest)
    return Settlement(item=next_item, send=(follow if isinstance(follow, Outgoing) else Outgoing(follow),))


def _undecodable(runtime: Runtime, item: ActivityItem, payload: str) -> CallbackAnswer | None:
    """Refuse at the door what the orchestrator could not read, where this process knows the activity."""
    runnable = None if item.task is None else runtime.registry.activity(item.task.name)
    if runnable is None:
        return None
    try:
        runnable.result.decode(payload)
    except PayloadError as error:
        return CallbackAnswer("invalid", str(error))
    return None
