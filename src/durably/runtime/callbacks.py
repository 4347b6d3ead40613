"""Completing callback activities from outside, and their deadlines. The activity's item alone arbitrates (P7)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from durably.core.errors import ActivityTimeoutError, PayloadError, TokenError
from durably.core.events import ActivityCompleted
from durably.core.failures import Failure, failure_of
from durably.ports.backend import Settlement
from durably.ports.messages import CallbackDeadline, Delivery, EventMessage, Outgoing
from durably.ports.records import ActivityItem
from durably.ports.tokens import TokenClaims
from durably.runtime.fence import MAX_CONFLICTS, contended, ending_of, left_behind, retry_or_fail
from durably.runtime.heart import check_details
from durably.runtime.runtime import Essentials, Runtime

_CHECK_MS = 30_000

Verdict: TypeAlias = Literal["accepted", "invalid", "unauthorised", "conflict", "gone", "too large"]


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What the caller is told.

    Attributes:
        verdict: "accepted" also for a repetition of the same payload.
        message: what was wrong and what to do.
        cancelled: to a heartbeat: whether nobody waits for the result any more.
    """

    verdict: Verdict
    message: str
    cancelled: bool | None = None

    @property
    def body(self) -> dict[str, object]:
        """As JSON."""
        said: dict[str, object] = {"message": self.message}
        return said if self.cancelled is None else {**said, "cancelled": self.cancelled}


_ACCEPTED = CallbackAnswer("accepted", "The result is recorded.")
_ALIVE = CallbackAnswer("accepted", "The heartbeat is recorded.", cancelled=False)
_CANCELLED = CallbackAnswer("accepted", "Nobody waits for the result any more. Stop.", cancelled=True)
_EXPIRED = CallbackAnswer("gone", "This attempt's deadline has passed, or its execution has moved on. Do not repeat.")


def complete_callback(runtime: Runtime, token: str, payload: str) -> CallbackAnswer:
    """Complete the attempt that `token` names with `payload`, JSON text of the activity's result."""
    claims = _claims(runtime, token)
    return claims if isinstance(claims, CallbackAnswer) else complete_attempt(runtime, claims, payload)


def fail_callback(runtime: Runtime, token: str, failure: Failure) -> CallbackAnswer:
    """Fail the attempt that `token` names; its policy decides whether there is another one."""
    claims = _claims(runtime, token)
    return claims if isinstance(claims, CallbackAnswer) else fail_attempt(runtime, claims, failure)


def beat_callback(runtime: Runtime, token: str, details: str | None) -> CallbackAnswer:
    """The attempt that `token` names is alive; `details` are JSON text, None leaves them as they are."""
    claims = _claims(runtime, token)
    return claims if isinstance(claims, CallbackAnswer) else beat_attempt(runtime, claims, details)


def complete_attempt(runtime: Essentials, claims: TokenClaims, payload: str) -> CallbackAnswer:
    """The same, for whoever may do so without a token."""
    size, limit = len(payload.encode()), runtime.limits.payload_bytes
    if size > limit:
        return CallbackAnswer(
            "too large", f"The payload has {size} bytes, more than {limit}. Store it elsewhere and send a reference."
        )
    return _complete(runtime, claims, payload, failure=None)


def fail_attempt(runtime: Essentials, claims: TokenClaims, failure: Failure) -> CallbackAnswer:
    """The same, for whoever may do so without a token."""
    return _complete(runtime, claims, f"{failure.type}\n{failure.message}", failure=failure)


def beat_attempt(runtime: Essentials, claims: TokenClaims, details: str | None) -> CallbackAnswer:
    """The same, for whoever may do so without a token."""
    try:
        check_details(runtime, details or "")
    except PayloadError as error:
        return CallbackAnswer("too large", str(error))
    backend, run = runtime.backend, claims.key.run
    for _ in range(MAX_CONFLICTS):
        record, item, now_ms = (
            backend.read_record(run.execution_id),
            backend.read_item(claims.key),
            runtime.clock.now_ms(),
        )
        if record is None or record.gen != run.gen or item is None or now_ms >= claims.expires_at_ms:
            return _EXPIRED
        if item.attempt != claims.attempt or item.answered == claims.attempt:
            return _EXPIRED
        if item.state == "cancelled" or record.closed or record.run > run.run:
            return _CANCELLED
        if item.state != "open":
            return _EXPIRED
        beaten = replace(item, version=item.version + 1, beat_at_ms=now_ms, details=details or item.details)
        if backend.settle(Settlement(item=beaten)).written:
            return _ALIVE
    return CallbackAnswer("conflict", "Too many callbacks for the same token at once. Try again.")


def callback_deadline(runtime: Essentials, delivery: Delivery) -> None:
    """A deadline message arrived: if its attempt is still open it is late; retry it or fail the activity."""
    message = delivery.message
    assert isinstance(message, CallbackDeadline)
    task = message.task
    for _ in range(MAX_CONFLICTS):
        item = runtime.backend.read_item(task.key)
        if item is None or item.state != "open" or item.attempt != task.attempt or message.check:
            send = () if item is None else left_behind(runtime, item, task)
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
    raise contended(task)


def _claims(runtime: Runtime, token: str) -> TokenClaims | CallbackAnswer:
    try:
        return runtime.signer.verify(token)
    except TokenError:
        return CallbackAnswer("unauthorised", "This is not a task token of this deployment.")


def _complete(runtime: Essentials, claims: TokenClaims, payload: str, *, failure: Failure | None) -> CallbackAnswer:
    digest = hashlib.sha256(payload.encode()).hexdigest()
    backend, run = runtime.backend, claims.key.run
    for _ in range(MAX_CONFLICTS):
        record = backend.read_record(run.execution_id)
        item = backend.read_item(claims.key)
        if record is None or record.gen != run.gen or item is None:
            return _EXPIRED
        if item.answered == claims.attempt:
            return _repeat(runtime, item, digest)
        moved_on = record.closed or record.run > run.run
        if moved_on or item.state != "open" or item.attempt != claims.attempt:
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


def _repeat(runtime: Essentials, item: ActivityItem, digest: str) -> CallbackAnswer:
    """The same callback again: the first one may have died between storing and sending.

    Where it led to another attempt, the check that it left behind sends that.
    """
    if item.digest != digest:
        return CallbackAnswer("conflict", "Another result was recorded for this token before; it stands.")
    send = ending_of(item) if item.attempt == item.answered else ()
    if send:
        runtime.backend.send(send)
    return _ACCEPTED


def _settle_failure(runtime: Essentials, item: ActivityItem, failure: Failure, *, digest: str | None) -> Settlement:
    assert item.task is not None
    next_item, follow = retry_or_fail(runtime, item.task, failure, item)
    assert next_item is not None
    if digest is not None:
        next_item = replace(next_item, answered=item.attempt, digest=digest)
    return Settlement(item=next_item, send=(follow if isinstance(follow, Outgoing) else Outgoing(follow),))


def _undecodable(runtime: Essentials, item: ActivityItem, payload: str) -> CallbackAnswer | None:
    """Refuse at the door what the orchestrator could not read, where this process knows the activity."""
    runnable = None if item.task is None else runtime.registry.activity(item.task.name)
    if runnable is None:
        return None
    try:
        runnable.result.decode(payload)
    except PayloadError as error:
        return CallbackAnswer("invalid", str(error))
    return None
