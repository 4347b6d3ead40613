"""Contract: records. Creating, changing, listing."""

from __future__ import annotations

import pytest

from durably.core.errors import ClientError
from durably.ports.backend import TurnCommit
from durably.ports.records import RecordChange, Status
from tests.contract.builders import FAILURE, GEN, OTHER_GEN, RUN, creation, record, run_key, turn, wake
from tests.contract.harness import START_MS, Harness

CLOSE = RecordChange(status="completed", turn=2, code_version="v2", closed_at_ms=START_MS + 9, result='{"a": "☃"}')


def _close(harness: Harness, execution_id: str = "packet-42", gen: str = GEN, change: RecordChange = CLOSE) -> None:
    commit = TurnCommit(run=run_key(execution_id, gen), turn=turn(change.turn), change=change)
    assert harness.backend.commit([commit])[0].status == "stored"


def test_a_start_on_a_free_id_stores_record_and_first_turn_and_queues_the_wake(harness: Harness) -> None:
    start = creation()
    outcome = harness.backend.create(start)
    assert outcome.created
    assert outcome.record == start.record
    assert harness.backend.read_record("packet-42") == start.record
    assert harness.backend.load_turns(RUN) == [start.turn]
    assert harness.drain(until=[start.wake.message.id]) == {start.wake.message.id: start.wake.message}


def test_a_start_on_a_taken_id_changes_nothing_and_returns_the_record_that_holds_it(harness: Harness) -> None:
    first = creation()
    harness.backend.create(first)
    harness.drain(until=[first.wake.message.id])
    outcome = harness.backend.create(creation(gen=OTHER_GEN, request_id="another", replace=True))
    assert not outcome.created
    assert outcome.record == first.record
    assert outcome.kept == ()
    assert harness.backend.read_record("packet-42") == first.record
    assert harness.backend.load_turns(run_key(gen=OTHER_GEN)) == []
    assert harness.drain() == {}


def test_a_repeated_start_finds_its_own_record_by_the_request_id(harness: Harness) -> None:
    harness.backend.create(creation())
    outcome = harness.backend.create(creation(gen=OTHER_GEN))
    assert (outcome.created, outcome.record.request_id, outcome.record.gen) == (False, "request-1", GEN)


def test_a_closed_id_starts_another_life_only_if_that_was_asked_for(harness: Harness) -> None:
    harness.backend.create(creation())
    _close(harness)
    refused = harness.backend.create(creation(gen=OTHER_GEN))
    assert (refused.created, refused.record.status) == (False, "completed")
    second = creation(gen=OTHER_GEN, replace=True, request_id="request-2")
    assert harness.backend.create(second).created
    assert harness.backend.read_record("packet-42") == second.record
    assert harness.backend.load_turns(second.record.key) == [second.turn]


def test_a_repeated_start_finds_its_closed_life_and_does_not_begin_another(harness: Harness) -> None:
    first = creation(replace=True)
    harness.backend.create(first)
    _close(harness)
    outcome = harness.backend.create(creation(gen=OTHER_GEN, replace=True))
    assert (outcome.created, outcome.record.gen, outcome.record.status) == (False, GEN, "completed")


def test_a_wake_that_is_kept_or_queued_arrives_exactly_one_way(harness: Harness) -> None:
    start = creation()
    outcome = harness.backend.create(start, keep=True)
    kept = {delivery.message.id: delivery.message for delivery in outcome.kept}
    queued = harness.drain(until=() if kept else [start.wake.message.id])
    assert kept | queued == {start.wake.message.id: start.wake.message}
    assert not (kept.keys() & queued.keys())
    harness.backend.acknowledge([delivery.receipt for delivery in outcome.kept])
    harness.advance(10 * 60_000)
    assert harness.drain() == {}


def test_an_unknown_id_has_no_record_and_no_turns(harness: Harness) -> None:
    assert harness.backend.read_record("nobody") is None
    assert harness.backend.load_turns(run_key("nobody")) == []


@pytest.mark.parametrize("odd", ["A._:/@=+-z", "x" * 256, "0", "//", "a:b:c", "-", "..", "=+="])
def test_every_legal_id_is_stored_as_it_is(harness: Harness, odd: str) -> None:
    start = creation(odd)
    assert harness.backend.create(start).created
    assert harness.backend.read_record(odd) == start.record
    assert harness.backend.load_turns(start.record.key) == [start.turn]
    assert harness.drain(until=[start.wake.message.id]) == {start.wake.message.id: start.wake.message}


def test_ids_differ_by_case(harness: Harness) -> None:
    assert harness.backend.create(creation("Packet")).created
    assert harness.backend.create(creation("packet", OTHER_GEN)).created
    found = harness.backend.read_record("Packet")
    assert found is not None
    assert found.gen == GEN


# --- record changes ------------------------------------------------------------------------------------


def test_a_change_replaces_the_records_outcome(harness: Harness) -> None:
    harness.backend.create(creation())
    _close(harness)
    assert harness.backend.read_record("packet-42") == record(
        status="completed", turn=2, code_version="v2", closed_at_ms=START_MS + 9, result='{"a": "☃"}'
    )


def test_a_stalled_execution_runs_on_and_its_failure_is_forgotten(harness: Harness) -> None:
    harness.backend.create(creation())
    _close(harness, change=RecordChange(status="stalled", turn=2, code_version="v1", failure=FAILURE))
    stalled = harness.backend.read_record("packet-42")
    assert stalled is not None
    assert (stalled.status, stalled.failure, stalled.closed) == ("stalled", FAILURE, False)
    _close(harness, change=RecordChange(status="running", turn=3, code_version="v2"))
    assert harness.backend.read_record("packet-42") == record(turn=3, code_version="v2")


def test_a_closed_record_does_not_change(harness: Harness) -> None:
    harness.backend.create(creation())
    _close(harness)
    before = harness.backend.read_record("packet-42")
    _close(harness, change=RecordChange(status="failed", turn=3, code_version="v3", failure=FAILURE))
    assert harness.backend.read_record("packet-42") == before


def test_a_change_of_another_life_is_ignored(harness: Harness) -> None:
    harness.backend.create(creation())
    _close(harness, gen=OTHER_GEN)
    assert harness.backend.read_record("packet-42") == record()


@pytest.mark.parametrize("late", [2, 3])
def test_a_change_by_a_turn_that_is_not_newer_is_ignored(harness: Harness, late: int) -> None:
    harness.backend.create(creation())
    _close(harness, change=RecordChange(status="stalled", turn=3, code_version="v1", failure=FAILURE))
    before = harness.backend.read_record("packet-42")
    change = RecordChange(status="running", turn=late, code_version="v9")
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(10), change=change)])
    assert harness.backend.read_record("packet-42") == before


def test_a_change_of_an_execution_without_a_record_is_ignored(harness: Harness) -> None:
    _close(harness)
    assert harness.backend.read_record("packet-42") is None


# --- listing -------------------------------------------------------------------------------------------


def _fill(harness: Harness) -> None:
    for number in range(7):
        harness.backend.create(
            creation(
                f"e{number}",
                f"{GEN[:-1]}{number}",
                started_at_ms=START_MS + number // 3,
                orchestrator=("route", "bill")[number % 2],
            )
        )


def _walk(harness: Harness, limit: int, *, status: Status | None = None, orchestrator: str | None = None) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = harness.backend.list_records(status=status, orchestrator=orchestrator, limit=limit, cursor=cursor)
        assert len(page.records) <= limit
        found += [entry.execution_id for entry in page.records]
        cursor = page.cursor
        if cursor is None:
            return found


def test_records_are_listed_newest_first(harness: Harness) -> None:
    _fill(harness)
    starts = [entry.started_at_ms for entry in harness.backend.list_records().records]
    assert len(starts) == 7
    assert starts == sorted(starts, reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_any_size_hold_each_record_once_in_the_same_order(harness: Harness, limit: int) -> None:
    _fill(harness)
    whole = [entry.execution_id for entry in harness.backend.list_records().records]
    assert _walk(harness, limit) == whole


def test_a_listing_can_be_narrowed_by_status_and_orchestrator(harness: Harness) -> None:
    _fill(harness)
    _close(harness, "e4", f"{GEN[:-1]}4")
    assert _walk(harness, 2, status="completed") == ["e4"]
    assert set(_walk(harness, 2, orchestrator="bill")) == {"e1", "e3", "e5"}
    assert set(_walk(harness, 1, status="running", orchestrator="route")) == {"e0", "e2", "e6"}
    assert _walk(harness, 5, status="failed") == []


def test_a_listing_can_begin_with_what_was_started_before_an_instant(harness: Harness) -> None:
    _fill(harness)
    page = harness.backend.list_records(started_before_ms=START_MS + 1, limit=2)
    rest = harness.backend.list_records(started_before_ms=START_MS + 1, limit=2, cursor=page.cursor)
    assert [entry.execution_id for entry in (*page.records, *rest.records)] == ["e2", "e1", "e0"]


def test_a_record_created_between_two_pages_shifts_nothing(harness: Harness) -> None:
    _fill(harness)
    first = harness.backend.list_records(limit=3)
    harness.backend.create(creation("later", OTHER_GEN, started_at_ms=START_MS + 99))
    rest = harness.backend.list_records(limit=100, cursor=first.cursor)
    listed = [entry.execution_id for entry in (*first.records, *rest.records)]
    assert len(listed) == 7
    assert "later" not in listed


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "ü", "MTIz", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTphYWE", "=" * 9])
def test_a_malformed_cursor_is_the_callers_mistake(harness: Harness, cursor: str) -> None:
    with pytest.raises(ClientError, match="cursor"):
        harness.backend.list_records(cursor=cursor)


def test_a_page_of_no_records_is_the_callers_mistake(harness: Harness) -> None:
    with pytest.raises(ClientError, match="at least 1"):
        harness.backend.list_records(limit=0)


def test_starting_wakes_carry_the_life_they_belong_to(harness: Harness) -> None:
    harness.backend.create(creation("a", GEN))
    harness.backend.create(creation("b", OTHER_GEN))
    ids = [wake(run_key("a", GEN)).message.id, wake(run_key("b", OTHER_GEN)).message.id]
    assert set(harness.drain(until=ids)) == set(ids)
