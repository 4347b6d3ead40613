"""Runs that follow each other, replies beside turns, and what is left of a purged life."""

from __future__ import annotations

from dataclasses import replace

import pytest

from durably.core.keys import ActivityKey
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.records import ActivityItem, RecordChange, Reply
from tests.contract.builders import FAILURE, GEN, OTHER_GEN, RUN, creation, record, turn, wake
from tests.contract.harness import START_MS, Harness

CLOSED = RecordChange(status="failed", turn=2, code_version="v1", closed_at_ms=START_MS + 5, failure=FAILURE)
DAY_MS = 24 * 3600 * 1000


def closed(harness: Harness) -> None:
    harness.backend.create(creation())
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2), change=CLOSED)])


# --- runs ---------------------------------------------------------------------------------------------------------


def test_a_turn_brings_the_next_run_with_it(harness: Harness) -> None:
    harness.backend.create(creation())
    change = RecordChange(status="running", run=2, turn=1, code_version="v2")
    commit = TurnCommit(run=RUN, turn=turn(2), successor=turn(1), send=(wake(RUN.next),), change=change)
    for _ in range(2):  # repeated after a lost response
        assert harness.backend.commit([commit])[0].status == "stored"
    assert harness.backend.load_turns(RUN.next) == [turn(1)]
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert (found.run, found.turn, found.key) == (2, 1, RUN.next)


def test_a_change_by_an_earlier_run_is_ignored(harness: Harness) -> None:
    harness.backend.create(creation())
    second = RecordChange(status="running", run=2, turn=1, code_version="v2")
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2), successor=turn(1), change=second)])
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3), change=replace(CLOSED, turn=3))])
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert (found.status, found.run) == ("running", 2)


def test_only_a_change_that_says_so_opens_what_is_closed(harness: Harness) -> None:
    closed(harness)
    change = RecordChange(status="running", run=2, turn=1, code_version="v2")
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3), successor=turn(1), change=change)])
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert found.status == "failed"
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3), successor=turn(1), change=replace(change, reopen=True))])
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert (found.status, found.run, found.closed_at_ms, found.failure) == ("running", 2, None, None)


def test_a_custom_status_stays_until_another_is_said(harness: Harness) -> None:
    harness.backend.create(creation())
    said = RecordChange(status="running", turn=2, code_version="v1", custom_status='{"done":1}')
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2), change=said)])
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3), change=replace(CLOSED, turn=3))])
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert (found.status, found.custom_status) == ("failed", '{"done":1}')


# --- replies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(run=RUN, request_id="u-1", result='"é"'),
        Reply(run=RUN, request_id="an id / of any kind #ü", accepted=False, failure=FAILURE),
    ],
)
def test_a_reply_is_read_by_whoever_knows_its_id(harness: Harness, reply: Reply) -> None:
    assert harness.backend.read_reply(RUN, reply.request_id) is None
    harness.backend.reply([reply])
    assert harness.backend.read_reply(RUN, reply.request_id) == reply
    assert harness.backend.read_reply(RUN.next, reply.request_id) == reply
    assert harness.backend.read_reply(replace(RUN, gen=OTHER_GEN), reply.request_id) is None


def test_replies_go_with_a_turn_or_not_at_all(harness: Harness) -> None:
    harness.backend.create(creation())
    first, second = (Reply(run=RUN, request_id=id_, result="1") for id_ in ("u-1", "u-2"))
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2), replies=(first,))])
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2, nonce="another"), replies=(second,))])
    assert harness.backend.read_reply(RUN, "u-1") == first
    assert harness.backend.read_reply(RUN, "u-2") is None


def test_a_rejection_takes_no_other_replys_place(harness: Harness) -> None:
    harness.backend.create(creation())
    done = Reply(run=RUN, request_id="u-1", result="1")
    refused, late = (Reply(run=RUN, request_id=id_, accepted=False, failure=FAILURE) for id_ in ("u-1", "u-2"))
    harness.backend.reply([done])
    harness.backend.reply([refused, late])
    assert harness.backend.read_reply(RUN, "u-1") == done
    assert harness.backend.read_reply(RUN, "u-2") == late
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(2), replies=(refused, replace(done, request_id="u-2")))])
    assert harness.backend.read_reply(RUN, "u-1") == done
    assert harness.backend.read_reply(RUN, "u-2") == replace(done, request_id="u-2")


# --- purging ------------------------------------------------------------------------------------------------------


def test_nothing_but_a_tombstone_is_left_of_a_purged_life(harness: Harness) -> None:
    closed(harness)
    backend = harness.backend
    backend.settle(Settlement(item=ActivityItem(key=ActivityKey(RUN, 1), state="closed", attempt=1, version=1)))
    backend.reply([Reply(run=RUN, request_id="u-1", result="1")])
    before = backend.read_record("packet-42")
    assert before is not None
    for _ in range(2):
        assert backend.purge(before)
    assert backend.load_turns(RUN) == []
    assert backend.read_items(RUN) == []
    assert backend.read_reply(RUN, "u-1") is None
    assert list(backend.list_records().records) == []
    left = backend.read_record("packet-42")
    assert left == replace(before, status="purged", failure=None)


def test_what_is_open_or_lives_again_is_not_purged(harness: Harness) -> None:
    harness.backend.create(creation())
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert not harness.backend.purge(found)
    assert harness.backend.load_turns(RUN) != []
    assert not harness.backend.purge(replace(found, gen=OTHER_GEN))
    assert not harness.backend.purge(record("unknown", status="completed", closed_at_ms=START_MS))


def test_a_purged_id_is_free_but_for_the_start_that_began_the_purged_life(harness: Harness) -> None:
    closed(harness)
    found = harness.backend.read_record("packet-42")
    assert found is not None
    harness.backend.purge(found)
    assert not harness.backend.create(creation(gen=OTHER_GEN)).created
    outcome = harness.backend.create(creation(gen=OTHER_GEN, request_id="request-2"))
    assert outcome.created
    assert outcome.record.gen == OTHER_GEN
    assert not harness.backend.purge(found)


def test_a_large_life_is_purged_whole(harness: Harness) -> None:
    closed(harness)
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3, result=f'"{"x" * 500_000}"'))])
    for number in range(4, 60):
        harness.backend.commit([TurnCommit(run=RUN, turn=turn(number))])
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert harness.backend.purge(found)
    assert harness.backend.load_turns(RUN) == []
    assert found.gen == GEN


def test_a_purged_life_is_not_opened_again_by_a_reset_that_was_under_way(harness: Harness) -> None:
    closed(harness)
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert harness.backend.purge(found)
    change = RecordChange(status="running", run=2, turn=0, code_version="v2", reopen=True)
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(3), successor=turn(1), change=change)])
    left = harness.backend.read_record("packet-42")
    assert left is not None
    assert left.status == "purged"
    assert harness.backend.purge(left)
    assert harness.backend.load_turns(RUN.next) == []


def test_no_purge_that_is_finished_is_listed(harness: Harness) -> None:
    closed(harness)
    found = harness.backend.read_record("packet-42")
    assert found is not None
    assert [each.execution_id for each in harness.backend.list_records(status="failed").records] == ["packet-42"]
    harness.backend.purge(found)
    for status in (None, "purged", "failed"):
        assert harness.backend.list_records(status=status).records == ()
