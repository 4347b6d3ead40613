"""Small data for contract tests."""

from __future__ import annotations

from typing import Any

from durably.core.events import ActivityCompleted, ActivityScheduled, ExecutionStarted, InboundEvent
from durably.core.failures import Failure
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.core.options import ActivityOptions
from durably.core.retry import RetryPolicy
from durably.ports.backend import Creation
from durably.ports.messages import ActivityTask, EventMessage, Outgoing, Wake
from durably.ports.records import ActivityItem, Record
from tests.contract.harness import START_MS

GEN = "01HF7YAT00AAAAAAAAAAAAAAAA"
OTHER_GEN = "01HF7YAT00BBBBBBBBBBBBBBBB"
RUN = RunKey("packet-42", GEN, 1)
FAILURE = Failure(type="builtins.OSError", message="närrisch ☃", bases=("builtins.Exception",), non_retryable=True)
OPTIONS = ActivityOptions(retry=RetryPolicy(max_attempts=7, non_retryable=[ValueError]), mode="callback")


def run_key(execution_id: str = "packet-42", gen: str = GEN, run: int = 1) -> RunKey:
    return RunKey(execution_id, gen, run)


def turn(number: int, *, nonce: str | None = None, result: str = "1", **changes: Any) -> Turn:
    fields: dict[str, Any] = {
        "number": number,
        "kind": "applied",
        "inbound": (ActivityCompleted(seq=number, result=result, at_ms=START_MS),),
        "outbound": (
            ActivityScheduled(
                seq=number + 1, name="act", input="{}", options=OPTIONS, call_site="a.py:3", cause=number
            ),
        ),
        "applied_through": number,
        "nonce": nonce or f"nonce-{number}",
        "code_version": "v1",
        "at_ms": START_MS,
    }
    return Turn(**(fields | changes))


def started() -> InboundEvent:
    return ExecutionStarted(orchestrator="route", input='{"n":1}', seed=2**62, python="3.11", at_ms=START_MS)


def record(execution_id: str = "packet-42", gen: str = GEN, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "execution_id": execution_id,
        "gen": gen,
        "orchestrator": "route",
        "status": "running",
        "request_id": "request-1",
        "code_version": "v1",
        "started_at_ms": START_MS,
    }
    return Record(**(fields | changes))


def wake(run: RunKey = RUN, number: int = 1, tries: int = 0, *, due_ms: int = 0) -> Outgoing:
    return Outgoing(Wake(run=run, turn=number, tries=tries), due_ms)


def task(run: RunKey = RUN, seq: int = 1, attempt: int = 1, *, due_ms: int = 0, payload: str = "{}") -> Outgoing:
    message = ActivityTask(
        key=ActivityKey(run, seq),
        name="act",
        input=payload,
        scheduled_at_ms=START_MS,
        queued_at_ms=START_MS,
        attempt=attempt,
        options=OPTIONS,
        last_failure=FAILURE if attempt > 1 else None,
    )
    return Outgoing(message, due_ms)


def completed(run: RunKey = RUN, seq: int = 1, *, due_ms: int = 0) -> Outgoing:
    return Outgoing(EventMessage(run=run, event=ActivityCompleted(seq=seq, result='"ü"')), due_ms)


def creation(execution_id: str = "packet-42", gen: str = GEN, *, replace: bool = False, **changes: Any) -> Creation:
    made = record(execution_id, gen, **changes)
    first = turn(1, kind="deferred", inbound=(started(),), outbound=(), applied_through=0, nonce=f"start-{gen}")
    return Creation(record=made, turn=first, wake=wake(made.key), replace_closed=replace)


def item(seq: int = 1, version: int = 1, run: RunKey = RUN, **changes: Any) -> ActivityItem:
    fields: dict[str, Any] = {
        "state": "open",
        "attempt": 1,
        "deadline_ms": START_MS + 5,
        "last_failure": FAILURE,
        "beat_at_ms": START_MS + 3,
        "details": '{"done":"närrisch ☃"}',
    }
    return ActivityItem(key=ActivityKey(run, seq), version=version, **(fields | changes))
