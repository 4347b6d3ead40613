"""Contract: turns. The conditional append that is the lock, the fence and the history in one."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from durably.core.keys import ActivityKey
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.records import RecordChange
from tests.contract.builders import (
    GEN,
    OTHER_GEN,
    RUN,
    completed,
    creation,
    item,
    record,
    run_key,
    task,
    turn,
    wake,
)
from tests.contract.harness import START_MS, Harness


def _commit(number: int, nonce: str | None = None) -> TurnCommit:
    return TurnCommit(run=RUN, turn=turn(number, nonce=nonce))


def test_turns_are_loaded_whole_and_in_order(harness: Harness) -> None:
    turns = [turn(number) for number in range(1, 13)]
    for stored in turns:
        assert harness.backend.commit([TurnCommit(run=RUN, turn=stored)])[0].status == "stored"
    assert harness.backend.load_turns(RUN) == turns
    assert [loaded.number for loaded in harness.backend.load_turns(RUN)] == list(range(1, 13))


@pytest.mark.parametrize(("after", "expected"), [(0, [1, 2, 3]), (2, [3]), (3, []), (9, [])])
def test_turns_are_loaded_after_a_number(harness: Harness, after: int, expected: list[int]) -> None:
    harness.backend.commit([_commit(1)])
    harness.backend.commit([_commit(2)])
    harness.backend.commit([_commit(3)])
    assert [loaded.number for loaded in harness.backend.load_turns(RUN, after=after)] == expected


def test_lives_and_runs_have_turns_of_their_own(harness: Harness) -> None:
    keys = [run_key(), run_key(run=2), run_key(gen=OTHER_GEN), run_key("packet-43"), run_key("PACKET-42")]
    for number, key in enumerate(keys):
        commit = TurnCommit(run=key, turn=turn(1, nonce=f"n{number}"))
        assert harness.backend.commit([commit])[0].status == "stored"
    for number, key in enumerate(keys):
        assert [loaded.nonce for loaded in harness.backend.load_turns(key)] == [f"n{number}"]


def test_a_taken_number_is_a_conflict_and_nothing_else_is_done(harness: Harness) -> None:
    harness.backend.create(creation())
    harness.drain(until=[wake().message.id])
    harness.backend.send([completed()])
    delivery = harness.one(completed().message.id, visibility_ms=1000)
    harness.backend.commit([_commit(2, "winner")])
    loser = TurnCommit(
        run=RUN,
        turn=turn(2, nonce="loser"),
        send=(task(),),
        cancel=(ActivityKey(RUN, 5),),
        change=RecordChange(status="failed", turn=2, code_version="v9"),
        acknowledge=(delivery.receipt,),
    )
    (outcome,) = harness.backend.commit([loser], keep=True)
    assert outcome.status == "conflict"
    assert outcome.kept == ()
    assert [loaded.nonce for loaded in harness.backend.load_turns(RUN, after=1)] == ["winner"]
    assert harness.backend.read_record("packet-42") == record()
    assert harness.backend.read_item(ActivityKey(RUN, 5)) is None
    harness.advance(1000)
    assert set(harness.drain(until=[completed().message.id])) == {completed().message.id}


def test_a_writer_whose_response_was_lost_knows_its_own_turn_again(harness: Harness) -> None:
    commit = TurnCommit(run=RUN, turn=turn(1), send=(task(),), cancel=(ActivityKey(RUN, 5),))
    assert harness.backend.commit([commit])[0].status == "stored"
    assert harness.backend.commit([commit])[0].status == "stored"
    assert len(harness.backend.load_turns(RUN)) == 1
    cancelled = harness.backend.read_item(ActivityKey(RUN, 5))
    assert cancelled is not None
    assert cancelled.version == 1
    assert set(harness.drain(until=[task().message.id])) == {task().message.id}


def test_a_conflict_does_not_hinder_the_other_commits_of_a_batch(harness: Harness) -> None:
    harness.backend.commit([_commit(1, "first")])
    others = [run_key(f"other-{number}") for number in range(3)]
    batch = [
        TurnCommit(run=others[0], turn=turn(1), send=(task(others[0]),)),
        TurnCommit(run=RUN, turn=turn(1, nonce="late"), send=(task(),)),
        TurnCommit(run=others[1], turn=turn(1)),
        TurnCommit(run=others[2], turn=turn(1)),
    ]
    outcomes = harness.backend.commit(batch)
    assert [outcome.status for outcome in outcomes] == ["stored", "conflict", "stored", "stored"]
    assert all(len(harness.backend.load_turns(other)) == 1 for other in others)
    assert [message.run for message in harness.drain(until=[task(others[0]).message.id]).values()] == [others[0]]


def test_a_commit_of_nothing_is_nothing(harness: Harness) -> None:
    assert harness.backend.commit([]) == []


def test_a_stored_turn_sends_and_acknowledges(harness: Harness) -> None:
    harness.backend.send([completed()])
    delivery = harness.one(completed().message.id)
    commit = TurnCommit(run=RUN, turn=turn(1), send=(task(),), acknowledge=(delivery.receipt,))
    harness.backend.commit([commit])
    assert set(harness.drain(until=[task().message.id])) == {task().message.id}
    harness.advance(10 * 60_000)
    assert harness.drain() == {}


def test_kept_and_queued_messages_of_a_commit_are_all_there_and_none_twice(harness: Harness) -> None:
    sent = (task(seq=1), task(seq=2), task(seq=3, due_ms=START_MS + 5000))
    (outcome,) = harness.backend.commit([TurnCommit(run=RUN, turn=turn(1), send=sent)], keep=True)
    due = {message.message.id for message in sent[:2]}
    kept = {delivery.message.id for delivery in outcome.kept}
    assert kept <= due
    assert all(delivery.receives == 1 for delivery in outcome.kept)
    assert set(harness.drain(until=due - kept)) == due - kept
    harness.backend.acknowledge([delivery.receipt for delivery in outcome.kept])
    harness.advance(5000)
    assert set(harness.drain(until=[sent[2].message.id])) == {sent[2].message.id}
    harness.advance(10 * 60_000)
    assert harness.drain() == {}


@pytest.mark.parametrize("state", ["retrying", "claimed", "open"])
def test_cancelling_ends_what_an_activity_was_doing(harness: Harness, state: str) -> None:
    busy = item(state=state)
    harness.backend.settle(Settlement(item=busy))
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=(busy.key,))])
    assert harness.backend.read_item(busy.key) == dataclasses.replace(busy, state="cancelled", version=2)


@pytest.mark.parametrize("state", ["completed", "closed", "cancelled"])
def test_cancelling_what_is_over_changes_nothing(harness: Harness, state: str) -> None:
    over = item(state=state)
    harness.backend.settle(Settlement(item=over))
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=(over.key,))])
    assert harness.backend.read_item(over.key) == over


def test_cancelling_what_left_no_item_leaves_one(harness: Harness) -> None:
    key = ActivityKey(RUN, 3)
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=(key,))])
    found = harness.backend.read_item(key)
    assert found is not None
    assert (found.state, found.version, found.attempt) == ("cancelled", 1, 1)


def test_large_turns_and_messages_come_back_whole(harness: Harness) -> None:
    payload = '"' + "ü☃x" * 100_000 + '"'
    big = turn(1, result=payload)
    message = task(payload=payload)
    harness.backend.commit([TurnCommit(run=RUN, turn=big, send=(message,))])
    assert harness.backend.load_turns(RUN) == [big]
    assert harness.drain(until=[message.message.id]) == {message.message.id: message.message}


def test_of_writers_that_race_for_a_number_exactly_one_wins(harness: Harness) -> None:
    rounds, writers = 20, 4
    won: list[tuple[int, str]] = []
    barrier = threading.Barrier(writers)

    def write(name: str) -> None:
        for number in range(1, rounds + 1):
            barrier.wait()
            commit = TurnCommit(run=RUN, turn=turn(number, nonce=f"{name}-{number}"), send=(task(seq=number),))
            if harness.backend.commit([commit])[0].status == "stored":
                won.append((number, f"{name}-{number}"))

    threads = [threading.Thread(target=write, args=(f"w{index}",)) for index in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = [(loaded.number, loaded.nonce) for loaded in harness.backend.load_turns(RUN)]
    assert sorted(won) == stored
    assert [number for number, _ in stored] == list(range(1, rounds + 1))


def test_what_was_acknowledged_to_one_thread_is_read_by_every_other(harness: Harness) -> None:
    seen: list[int] = []

    def read(number: int) -> None:
        seen.append(len(harness.backend.load_turns(RUN)) - number)

    for number in range(1, 20):
        harness.backend.commit([_commit(number)])
        thread = threading.Thread(target=read, args=(number,))
        thread.start()
        thread.join()
    assert seen == [0] * 19


def test_gens_separate_items_and_turns_of_one_id(harness: Harness) -> None:
    mine, other = ActivityKey(run_key(gen=GEN), 1), ActivityKey(run_key(gen=OTHER_GEN), 1)
    harness.backend.commit([TurnCommit(run=mine.run, turn=turn(1), cancel=(mine,))])
    assert harness.backend.read_item(other) is None
    assert harness.backend.read_items(other.run) == []
