"""Writes whose outcome nobody told, refused writes, and what a failure in the middle leaves behind."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from durably.adapters.aws import AwsBackend
from durably.core.errors import StorageError
from durably.core.keys import ActivityKey
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.records import RecordChange
from tests.contract.aws import Cloud, SqsSource
from tests.contract.builders import RUN, completed, creation, item, record, run_key, task, turn, wake
from tests.contract.harness import START_MS, Harness
from tests.unit.adapters.aws.bodies import noise, started_with

ALWAYS = 99


def harness_of(made: Cloud, backend: AwsBackend) -> Harness:
    return Harness(backend, SqsSource(made, backend), made.clock)


def commit(nonce: str = "mine", **more: Any) -> TurnCommit:
    return TurnCommit(run=RUN, turn=turn(1, nonce=nonce), **more)


def test_an_answer_that_is_lost_once_is_no_conflict(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "answer lost")
    assert backend.commit([commit()])[0].status == "stored"
    assert made.meter.bill.requests == {"dynamodb.PutItem": 2}  # boto's second attempt met the first one's turn


def test_a_turn_is_found_to_be_stored_although_nobody_ever_answered(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "answer lost", ALWAYS)
    assert backend.commit([commit(send=(task(),), acknowledge=("receipt",))])[0].status == "stored"
    assert made.meter.bill.requests["dynamodb.GetItem"] == 1
    assert backend.acknowledged == {"receipt"}
    assert set(harness_of(made, backend).drain()) == {task().message.id}


def test_a_turn_that_another_wrote_while_nobody_answered_is_a_conflict(made: Cloud, backend: AwsBackend) -> None:
    backend.commit([commit("other")])
    made.faults.plan("PutItem", "request lost", ALWAYS)
    assert backend.commit([commit()])[0].status == "conflict"
    assert [stored.nonce for stored in backend.load_turns(RUN)] == ["other"]


def test_a_turn_that_is_not_there_when_nobody_answered_is_not_taken_for_stored(
    made: Cloud, backend: AwsBackend
) -> None:
    made.faults.plan("PutItem", "request lost", 3)
    with pytest.raises(StorageError, match="did not answer in time"):
        backend.commit([commit(send=(task(),), acknowledge=("receipt",))])
    assert backend.acknowledged == set()
    assert harness_of(made, backend).drain() == {}
    assert backend.commit([commit()])[0].status == "stored"


def test_an_outage_is_survived_where_even_reading_back_fails(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "answer lost", 3)
    made.faults.plan("GetItem", "request lost", 3)
    with pytest.raises(StorageError, match="find out whether"):
        backend.commit([commit()])
    assert backend.commit([commit()])[0].status == "stored"
    assert len(backend.load_turns(RUN)) == 1


@pytest.mark.parametrize(("times", "survives"), [(1, True), (2, True), (3, False)])
def test_throttled_writes_are_repeated_three_times(
    made: Cloud, backend: AwsBackend, times: int, survives: bool
) -> None:
    made.faults.plan("PutItem", "refused", times, code="ProvisionedThroughputExceededException")
    if survives:
        assert backend.commit([commit()])[0].status == "stored"
    else:
        with pytest.raises(StorageError, match="throttles"):
            backend.commit([commit()])
        assert backend.load_turns(RUN) == []
    assert made.meter.bill.requests["dynamodb.PutItem"] == min(3, times + 1)


def test_a_missing_permission_says_where_to_look(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "refused", code="AccessDeniedException")
    with pytest.raises(StorageError, match="permissions"):
        backend.commit([commit()])


def test_a_commit_that_fails_leaves_the_others_complete(made: Cloud, backend: AwsBackend) -> None:
    good, bad = run_key("good"), run_key("bad")
    backend.create(creation("good"))
    refused = task(bad)
    made.faults.plan("UpdateItem", "refused", code="AccessDeniedException")
    change = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS)
    commits = [
        TurnCommit(run=bad, turn=turn(1), send=(refused,), change=change, acknowledge=("bad",)),
        TurnCommit(run=good, turn=turn(2), send=(task(good),), acknowledge=("good",)),
    ]
    with pytest.raises(StorageError):
        backend.commit(commits)
    assert backend.acknowledged == {"good"}
    assert {task(good).message.id, refused.message.id} <= set(harness_of(made, backend).drain())


def test_a_message_that_cannot_be_sent_now_is_not_followed_by_an_acknowledgement(
    made: Cloud, backend: AwsBackend
) -> None:
    backend.create(creation())
    made.faults.plan("SendMessageBatch", "request lost", 3)
    change = RecordChange(status="stalled", turn=2, code_version="v1")
    with pytest.raises(StorageError, match="send 1 messages"):
        backend.commit([TurnCommit(run=RUN, turn=turn(2), send=(wake(),), change=change, acknowledge=("receipt",))])
    assert backend.acknowledged == set()
    assert backend.read_record("packet-42") == record()  # or the redelivery would not send the wake again


def test_an_item_is_found_to_be_written_although_nobody_ever_answered(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "answer lost", ALWAYS)
    outcome = backend.settle(Settlement(item=item(), send=(completed(),)))
    assert outcome.written
    assert set(harness_of(made, backend).drain()) == {completed().message.id}


def test_of_two_equal_items_one_is_written(backend: AwsBackend) -> None:
    assert backend.settle(Settlement(item=item(), send=(task(attempt=2),))).written
    again = backend.settle(Settlement(item=item(), send=(task(attempt=2),)))
    assert (again.written, again.found) == (False, item())


def test_a_guard_is_on_its_way_before_the_item_is_written(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "refused", code="AccessDeniedException")
    with pytest.raises(StorageError):
        backend.settle(Settlement(item=item(), guard=wake(tries=1), send=(completed(),)))
    assert set(harness_of(made, backend).drain()) == {wake(tries=1).message.id}
    assert backend.read_item(item().key) is None


def test_a_guard_that_is_the_message_itself_is_sent_once(made: Cloud, backend: AwsBackend) -> None:
    backend.settle(Settlement(item=item(), guard=completed(), send=(completed(),)))
    assert made.meter.bill.messages == 1


def test_cancelling_costs_no_read(made: Cloud, backend: AwsBackend) -> None:
    busy = item(state="retrying", deadline_ms=None)
    backend.settle(Settlement(item=busy))
    with made.meter.measured() as bill:
        backend.commit([commit(cancel=(busy.key, ActivityKey(RUN, 9)))])
    assert bill.read_units == 0
    cancelled = backend.read_item(busy.key)
    assert cancelled is not None
    assert cancelled.state == "cancelled"


def test_a_setting_that_is_missing_is_not_taken_for_silence(made: Cloud) -> None:
    nameless = AwsBackend(dataclasses.replace(made.settings, table=""), clients=made.clients, clock=made.clock)
    with pytest.raises(StorageError, match="DURABLY_"):
        nameless.commit([commit()])
    assert made.meter.bill.requests["dynamodb.GetItem"] == 0


# --- starting ------------------------------------------------------------------------------------------


def test_a_start_is_accepted_although_nobody_ever_answered(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "answer lost", ALWAYS)
    outcome = backend.create(creation())
    assert (outcome.created, outcome.record) == (True, record())


def test_a_repeated_call_to_create_finds_its_own_execution(made: Cloud, backend: AwsBackend) -> None:
    assert backend.create(creation()).created
    assert backend.create(creation()).created
    assert len(backend.load_turns(RUN)) == 1


def test_an_accepted_start_whose_wake_was_not_sent_stands_and_its_callers_retry_wakes_it(
    made: Cloud, backend: AwsBackend
) -> None:
    made.faults.plan("SendMessageBatch", "request lost", 3)
    assert backend.create(creation()).created
    assert harness_of(made, backend).drain() == {}
    retried = backend.create(creation(gen="01HF7YAT00CCCCCCCCCCCCCCCC"))
    assert (retried.created, retried.record) == (False, record())
    assert set(harness_of(made, backend).drain()) == {wake().message.id}


def test_a_start_without_a_record_is_nobodys(backend: AwsBackend) -> None:
    start = creation()
    backend.commit([TurnCommit(run=RUN, turn=start.turn)])  # died before the record
    assert backend.read_record("packet-42") is None
    assert backend.list_records().records == ()
    assert backend.create(start).created


def test_a_refused_start_leaves_no_turn_behind_not_even_in_s3(made: Cloud, backend: AwsBackend) -> None:
    backend.create(creation())
    big = started_with(noise(600_000), gen="01HF7YAT00CCCCCCCCCCCCCCCC", request_id="another")
    assert not backend.create(big).created
    assert backend.load_turns(big.record.key) == []
    assert "Contents" not in made.clients.s3.list_objects_v2(Bucket="durably")


def test_a_purge_that_nobody_answered_and_nobody_did_deletes_nothing(made: Cloud, backend: AwsBackend) -> None:
    backend.create(creation())
    change = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS, result="1")
    backend.commit([TurnCommit(run=RUN, turn=turn(2), change=change)])
    closed = backend.read_record("packet-42")
    assert closed is not None
    made.faults.plan("PutItem", "request lost", 3)
    with pytest.raises(StorageError, match="did not answer in time"):
        backend.purge(closed)
    assert backend.read_record("packet-42") == closed
    assert len(backend.load_turns(RUN)) == 2
    made.faults.plan("PutItem", "answer lost", 3)
    assert backend.purge(closed)
    assert backend.load_turns(RUN) == []
