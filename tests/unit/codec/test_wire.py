"""The wire format: it round-trips, it does not change unnoticed, and old and new workers understand each other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, get_args

import pytest

from durably.codec import wire
from durably.core.errors import DurablyError, PayloadError, StorageError
from durably.core.events import (
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ChildCancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildScheduled,
    ChildStarted,
    Event,
    ExecutionCancelled,
    ExecutionCancelRequested,
    ExecutionCompleted,
    ExecutionContinuedAsNew,
    ExecutionFailed,
    ExecutionReset,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    PatchRecorded,
    SignalDelivered,
    SignalFailed,
    SignalReceived,
    SignalRejected,
    SignalSent,
    StatusSet,
    TimerFired,
    TimerStarted,
    UpdateAccepted,
    UpdateCompleted,
    UpdateFailed,
)
from durably.core.failures import Failure
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.core.options import ActivityOptions, ChildOptions
from durably.core.retry import RetryPolicy
from durably.ports.messages import ActivityTask, CallbackDeadline, Errand, EventMessage, HeartbeatCheck, Message, Wake
from durably.ports.records import ActivityItem, Record

_RUN = RunKey("packet-42", "01J", 1)
_FAILURE = Failure(
    type="app.TransmitError",
    message="no route",
    bases=("builtins.OSError",),
    cause=Failure(type="builtins.OSError", message="é\n", stack="  File ..."),
    members=(Failure(type="a.B", message=""), Failure(type="a.C", message="", retry_after_ms=5)),
    non_retryable=True,
)
_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=1500),
    maximum_interval=timedelta(days=400),
    max_attempts=7,
    non_retryable=(ValueError, "app.Fatal"),
)
_OPTIONS = ActivityOptions(retry=_RETRY, start_to_close_ms=10, mode="callback", at_most_once=True)
_TASK = ActivityTask(
    key=ActivityKey(_RUN, 3),
    name="transmit",
    input="{}",
    scheduled_at_ms=5,
    queued_at_ms=6,
    options=_OPTIONS,
    attempt=2,
    last_failure=_FAILURE,
)


def _inbound(events: Iterable[Event]) -> list[InboundEvent]:
    return [event for event in events if isinstance(event, InboundEvent)]


def _outbound(events: Iterable[Event]) -> list[OutboundEvent]:
    return [event for event in events if isinstance(event, OutboundEvent)]


EVENTS: list[Event] = [
    ExecutionStarted(orchestrator="route_packet", input='{"a":1}', seed=2**63 - 1, python="3.11", at_ms=7),
    ActivityCompleted(seq=1, result='"é"', attempt=2, at_ms=8),
    ActivityFailed(seq=1, failure=_FAILURE, attempt=3, at_ms=9),
    TimerFired(seq=2, at_ms=10),
    ExecutionTerminated(reason="operator", at_ms=11),
    ActivityScheduled(seq=1, name="a", input="{}", options=_OPTIONS, call_site="r.py:31", cause=1),
    ActivityScheduled(seq=2, name="a", input="{}", options=ActivityOptions(), call_site="r.py:31", cause=1),
    ActivityCancelRequested(seq=1, cause=2),
    TimerStarted(seq=2, delay_ms=5, due_ms=15, call_site="r.py:32", cause=2),
    ExecutionCompleted(result="null", cause=4),
    ExecutionFailed(failure=_FAILURE, cause=4),
    ChildScheduled(
        seq=3,
        orchestrator="ship",
        execution_id="x/1.3",
        input="{}",
        options=ChildOptions(parent_close="abandon", id_reuse="allow_if_closed", announced=True),
        call_site="r.py:33",
        cause=2,
        at_ms=9,
    ),
    ChildCancelRequested(seq=3, execution_id="x/1.3", cause=2),
    SignalSent(seq=4, execution_id="y", name="go", payload="1", call_site="r.py:34", cause=2, at_ms=9),
    SignalRejected(request_id="s2", reason="not a number", cause=2),
    UpdateCompleted(request_id="u1", result="2", cause=2),
    UpdateFailed(request_id="u2", failure=_FAILURE, cause=2),
    PatchRecorded(patch_id="five", cause=2),
    StatusSet(status='{"done":3}', cause=2),
    ExecutionCancelled(reason="enough", cause=4),
    ExecutionContinuedAsNew(
        input="{}",
        carried=(
            SignalReceived(name="go", payload="1", request_id="s1", at_ms=12),
            UpdateAccepted(name="add", payload="1", request_id="u1", at_ms=13),
        ),
        seen=("s0", "u0"),
        cause=4,
    ),
    SignalReceived(name="go", payload='{"n":1}', request_id="s1", at_ms=12),
    UpdateAccepted(name="add", payload="1", request_id="u1", at_ms=13),
    ChildStarted(seq=3, at_ms=14),
    ChildCompleted(seq=3, result='"é"', at_ms=15),
    ChildFailed(seq=3, failure=_FAILURE, at_ms=16),
    SignalDelivered(seq=4, at_ms=17),
    SignalFailed(seq=4, failure=_FAILURE, at_ms=18),
    ExecutionCancelRequested(reason="enough", at_ms=19),
    ExecutionSuspended(reason="wait", request_id="r1", at_ms=20),
    ExecutionResumed(reason="go on", request_id="r2", at_ms=21),
    ExecutionReset(applied=2, dropped=(3, 5), reason="again", at_ms=22),
]
MESSAGES: list[Message] = [
    *(EventMessage(run=_RUN, event=event) for event in _inbound(EVENTS)),
    Wake(run=_RUN, turn=3, tries=1),
    _TASK,
    CallbackDeadline(task=_TASK),
    HeartbeatCheck(task=_TASK, deadline_ms=7),
    Errand(key=ActivityKey(_RUN, 3), execution_id="y", action="start", name="ship", payload="{}"),
]
RECORD = Record(
    execution_id="x",
    gen="g",
    orchestrator="o",
    status="failed",
    request_id="r",
    code_version="v",
    started_at_ms=1,
    closed_at_ms=2,
    failure=_FAILURE,
    turn=3,
)
ITEM = ActivityItem(key=ActivityKey(_RUN, 1), state="open", attempt=1, version=2, last_failure=_FAILURE)


def _turn(*events: Event) -> Turn:
    inbound = tuple(_inbound(events))
    outbound = tuple(_outbound(events))
    return Turn(
        number=2,
        kind="applied",
        inbound=inbound,
        outbound=outbound,
        applied_through=1,
        nonce="n",
        code_version="v",
        at_ms=12,
    )


def test_every_event_and_message_is_covered_here() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    assert {type(message) for message in MESSAGES} == set(get_args(Message))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_event_comes_back_equal_within_a_turn(event: Event) -> None:
    turn = _turn(event)
    back = wire.decode_turn(wire.encode_turn(turn))
    assert back == turn
    assert type((back.inbound + back.outbound)[0]) is type(event)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_every_message_comes_back_equal(message: Message) -> None:
    back = wire.decode_message(wire.encode_message(message))
    assert back == message
    assert type(back) is type(message)
    assert back.id == message.id


def test_records_items_and_failures_come_back_equal() -> None:
    assert wire.decode_record(wire.encode_record(RECORD)) == RECORD
    assert wire.decode_item(wire.encode_item(ITEM)) == ITEM
    assert wire.decode_failure(wire.encode_failure(_FAILURE)) == _FAILURE


def test_turns_are_decoded_together_as_one_by_one() -> None:
    turns = [_turn(event) for event in EVENTS]
    rows = [wire.encode_turn(turn) for turn in turns]
    assert wire.decode_turns(rows) == turns
    assert wire.decode_turns([]) == []
    with pytest.raises(StorageError):
        wire.decode_turns([*rows, b"{"])


GOLDEN: list[tuple[Any, Any, str]] = [
    (
        wire.encode_turn,
        _turn(EVENTS[1], EVENTS[6]),
        (
            '{"number":2,"kind":"applied","inbound":[{"seq":1,"result":"\\"é\\"","attempt":2,"at_ms":8,'
            '"kind":"ActivityCompleted"}],"outbound":[{"seq":2,"name":"a","input":"{}","options":{},'
            '"call_site":"r.py:31","cause":1,"at_ms":0,"kind":"ActivityScheduled"}],"applied_through":1,"nonce":"n",'
            '"code_version":"v","at_ms":12}'
        ),
    ),
    (
        wire.encode_message,
        Wake(run=_RUN, turn=3),
        '{"run":{"execution_id":"packet-42","gen":"01J","run":1},"turn":3,"tries":0,"kind":"Wake"}',
    ),
    (
        wire.encode_message,
        EventMessage(run=_RUN, event=TimerFired(seq=2)),
        (
            '{"run":{"execution_id":"packet-42","gen":"01J","run":1},'
            '"event":{"seq":2,"at_ms":0,"kind":"TimerFired"},"kind":"EventMessage"}'
        ),
    ),
    (
        wire.encode_message,
        dataclasses.replace(_TASK, last_failure=Failure(type="a.B", message="c")),
        (
            '{"key":{"run":{"execution_id":"packet-42","gen":"01J","run":1},"seq":3},"name":"transmit","input":"{}",'
            '"scheduled_at_ms":5,"queued_at_ms":6,"options":{"retry":{"initial_interval":1.5,"coefficient":2.0,'
            '"maximum_interval":34560000.0,"max_attempts":7,"non_retryable":["builtins.ValueError","app.Fatal"],'
            '"jitter":true},"start_to_close_ms":10,"mode":"callback","at_most_once":true},"attempt":2,'
            '"last_failure":{"type":"a.B","message":"c","bases":[],"members":[]},"kind":"ActivityTask"}'
        ),
    ),
    (
        wire.encode_item,
        dataclasses.replace(ITEM, last_failure=None),
        (
            '{"key":{"run":{"execution_id":"packet-42","gen":"01J","run":1},"seq":1},"state":"open","attempt":1,'
            '"version":2}'
        ),
    ),
    (
        wire.encode_record,
        dataclasses.replace(RECORD, failure=None, status="completed", result="1"),
        (
            '{"execution_id":"x","gen":"g","orchestrator":"o","status":"completed","request_id":"r",'
            '"code_version":"v","started_at_ms":1,"run":1,"closed_at_ms":2,"result":"1","turn":3}'
        ),
    ),
]


@pytest.mark.parametrize(("encode", "value", "text"), GOLDEN, ids=lambda part: type(part).__name__)
def test_the_format_is_what_stored_histories_hold(encode: Any, value: Any, text: str) -> None:
    assert encode(value).decode() == text


def _edited(data: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(data), **changes}).encode()


def test_a_field_that_a_newer_worker_added_is_ignored() -> None:
    turn = _turn(EVENTS[1])
    row = json.loads(wire.encode_turn(turn))
    row["inbound"][0]["added"] = {"x": [1]}
    row["added"] = 1
    assert wire.decode_turn(json.dumps(row)) == turn


def test_a_row_without_a_field_that_has_a_default_is_read() -> None:
    row = json.loads(wire.encode_turn(_turn(ActivityCompleted(seq=1, result="1"))))
    del row["inbound"][0]["attempt"]
    assert wire.decode_turn(json.dumps(row)) == _turn(ActivityCompleted(seq=1, result="1"))


def test_an_unknown_kind_says_that_a_newer_worker_wrote_it() -> None:
    row = json.loads(wire.encode_turn(_turn(EVENTS[1])))
    row["inbound"][0]["kind"] = "MoonRisen"
    with pytest.raises(wire.WireError, match=r"MoonRisen.*newer worker.*Give the message back"):
        wire.decode_turn(json.dumps(row))
    with pytest.raises(wire.WireError):
        wire.decode_turns([json.dumps(row).encode()])
    with pytest.raises(wire.WireError):
        wire.decode_message(_edited(wire.encode_message(MESSAGES[-1]), kind="Gossip"))
    with pytest.raises(wire.WireError):
        wire.decode_record(_edited(wire.encode_record(RECORD), status="dreaming"))
    assert issubclass(wire.WireError, DurablyError)
    assert not issubclass(wire.WireError, StorageError)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        _edited(wire.encode_turn(_turn(EVENTS[1])), number="x"),
        _edited(wire.encode_turn(_turn(EVENTS[1])), kind=3),
        _edited(wire.encode_turn(_turn(EVENTS[1])), inbound=[{"seq": 1}]),
        _edited(wire.encode_turn(_turn(EVENTS[1])), inbound=[{"seq": 1, "kind": "ActivityCompleted"}]),
        wire.encode_turn(_turn(EVENTS[5])).replace(b'"coefficient":2.0', b'"coefficient":0.5'),
    ],
)
def test_a_corrupt_row_is_a_storage_error(data: bytes) -> None:
    for decode in (wire.decode_turn, lambda row: wire.decode_turns([row])):
        with pytest.raises(StorageError, match="damaged or edited"):
            decode(data)


def test_text_that_cannot_be_stored_is_refused_with_its_path() -> None:
    with pytest.raises(PayloadError) as caught:
        wire.encode_message(EventMessage(run=_RUN, event=ExecutionTerminated(reason="\ud800")))
    assert caught.value.path == "event.reason"
