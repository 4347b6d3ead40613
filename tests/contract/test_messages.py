"""Contract: queues and activity items. Leases, receipts, redelivery, settling."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from durably.core.events import ActivityFailed, ExecutionTerminated, TimerFired
from durably.core.keys import ActivityKey
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.messages import CallbackDeadline, EventMessage, HeartbeatCheck, Outgoing
from tests.contract.builders import FAILURE, RUN, completed, item, run_key, started, task, turn, wake
from tests.contract.harness import START_MS, VISIBILITY_MS, Harness


def _deadline() -> Outgoing:
    message = task(attempt=2).message
    assert message.kind == "ActivityTask"
    return Outgoing(CallbackDeadline(task=message))


def _check() -> Outgoing:
    message = task(attempt=2).message
    assert message.kind == "ActivityTask"
    return Outgoing(HeartbeatCheck(task=message, deadline_ms=7))


KINDS = [
    wake(tries=3),
    task(attempt=2),
    completed(),
    _deadline(),
    _check(),
    Outgoing(EventMessage(run=RUN, event=ActivityFailed(seq=4, failure=FAILURE))),
    Outgoing(EventMessage(run=RUN, event=TimerFired(seq=5))),
    Outgoing(EventMessage(run=RUN, event=ExecutionTerminated(reason="enough"))),
    Outgoing(EventMessage(run=RUN, event=started())),
]


def test_every_kind_of_message_arrives_as_it_was_sent(harness: Harness) -> None:
    harness.backend.send(KINDS)
    ids = [outgoing.message.id for outgoing in KINDS]
    assert harness.drain(until=ids) == {outgoing.message.id: outgoing.message for outgoing in KINDS}


def test_sending_nothing_is_nothing(harness: Harness) -> None:
    assert harness.backend.send([]) == ()
    assert harness.drain() == {}


def test_the_first_delivery_counts_one(harness: Harness) -> None:
    harness.backend.send([task()])
    assert harness.one(task().message.id).receives == 1


def test_tasks_stay_where_they_are_for_whoever_has_enough_of_them(harness: Harness) -> None:
    if not harness.knows_next_due:
        pytest.skip("nobody fetches from SQS; Lambda polls")
    harness.backend.send([task(), wake(), completed(), task(attempt=2)])
    now_ms = harness.clock.now_ms()
    found = harness.source.receive(now_ms=now_ms, limit=10, visibility_ms=VISIBILITY_MS, tasks=False)
    assert {each.message.id for each in found} == {wake().message.id, completed().message.id}
    rest = harness.source.receive(now_ms=now_ms, limit=10, visibility_ms=VISIBILITY_MS)
    assert {each.message.id for each in rest} == {task().message.id, task(attempt=2).message.id}


def test_a_queued_message_is_not_queued_twice(harness: Harness) -> None:
    harness.backend.send([task()])
    harness.backend.send([task(), task()])
    assert set(harness.drain(until=[task().message.id])) == {task().message.id}
    harness.advance(VISIBILITY_MS)
    assert harness.drain() == {}


def test_a_leased_message_is_not_queued_again_by_sending_it(harness: Harness) -> None:
    harness.backend.send([task()])
    delivery = harness.one(task().message.id)
    kept = harness.backend.send([task()], keep=True)
    assert kept == ()
    harness.backend.acknowledge([delivery.receipt])
    assert harness.drain().keys() <= (set() if harness.drops_copies else {task().message.id})


def test_a_message_waits_until_it_is_due(harness: Harness) -> None:
    later = task(due_ms=START_MS + 5000)
    assert harness.backend.send([later], keep=True) == ()
    assert harness.drain() == {}
    harness.advance(4999)
    assert harness.drain() == {}
    harness.advance(1)
    assert set(harness.drain(until=[later.message.id])) == {later.message.id}


def test_a_leased_message_stays_hidden_and_returns_with_a_higher_count(harness: Harness) -> None:
    harness.backend.send([task()])
    assert harness.one(task().message.id, visibility_ms=1000).receives == 1
    harness.advance(900)
    assert harness.receive() == []
    harness.advance(100)
    assert harness.one(task().message.id, visibility_ms=1000).receives == 2
    harness.advance(1000)
    assert harness.one(task().message.id).receives == 3


def test_an_acknowledged_message_never_returns(harness: Harness) -> None:
    harness.backend.send([task()])
    harness.backend.acknowledge([harness.one(task().message.id).receipt])
    harness.advance(10 * VISIBILITY_MS)
    assert harness.receive() == []


def test_acknowledging_twice_is_acknowledging_once(harness: Harness) -> None:
    harness.backend.send([task()])
    receipt = harness.one(task().message.id).receipt
    harness.backend.acknowledge([receipt, receipt])
    harness.backend.acknowledge([receipt])
    harness.backend.acknowledge([])
    assert harness.receive() == []


def test_a_receipt_of_a_message_delivered_again_since_has_no_effect(harness: Harness) -> None:
    harness.backend.send([task()])
    stale = harness.one(task().message.id, visibility_ms=1000).receipt
    harness.advance(1000)
    harness.one(task().message.id, visibility_ms=1000)
    harness.backend.acknowledge([stale])
    harness.backend.commit([TurnCommit(run=RUN, turn=turn(1), acknowledge=(stale,))])
    harness.backend.settle(Settlement(acknowledge=(stale,)))
    harness.source.release(stale, due_ms=0)
    assert harness.receive() == []
    harness.advance(1000)
    assert harness.one(task().message.id).receives == 3


def test_an_old_receipt_does_not_hit_a_newer_message(harness: Harness) -> None:
    harness.backend.send([task(seq=1)])
    receipt = harness.one(task(seq=1).message.id).receipt
    harness.backend.acknowledge([receipt])
    harness.backend.send([task(seq=2)])
    harness.one(task(seq=2).message.id, visibility_ms=1000)
    harness.backend.acknowledge([receipt])
    harness.advance(1000)
    assert harness.one(task(seq=2).message.id).receives == 2


def test_a_kept_message_returns_after_its_lease_like_any_other(harness: Harness) -> None:
    kept = harness.backend.send([task()], keep=True)
    if not kept:
        harness.one(task().message.id)
    assert harness.receive() == []
    harness.advance(VISIBILITY_MS)
    again = harness.one(task().message.id)
    assert again.receives == 2
    harness.backend.acknowledge([delivery.receipt for delivery in kept])
    harness.advance(VISIBILITY_MS)
    assert harness.one(task().message.id).receives == 3


def test_a_released_message_returns_when_its_giver_said(harness: Harness) -> None:
    harness.backend.send([task()])
    delivery = harness.one(task().message.id)
    harness.source.release(delivery.receipt, due_ms=START_MS + 3000)
    assert harness.receive() == []
    harness.advance(3000)
    harness.one(task().message.id)


def test_the_delivery_of_a_message_that_is_given_back_does_not_count(harness: Harness) -> None:
    harness.backend.send([task()])
    for released in range(3):
        delivery = harness.one(task().message.id)
        assert delivery.receives == (released + 1 if harness.counts_released else 1)
        harness.source.release(delivery.receipt, due_ms=0)
    harness.one(task().message.id, visibility_ms=1000)
    harness.advance(1000)
    assert harness.one(task().message.id).receives == (5 if harness.counts_released else 2)


def test_a_receipt_is_void_once_the_message_is_released(harness: Harness) -> None:
    harness.backend.send([task()])
    delivery = harness.one(task().message.id)
    harness.source.release(delivery.receipt, due_ms=0)
    again = harness.one(task().message.id, visibility_ms=1000)
    harness.backend.acknowledge([delivery.receipt])
    harness.advance(1000)
    assert harness.one(task().message.id).receives == again.receives + 1


def test_no_more_messages_are_received_than_were_asked_for(harness: Harness) -> None:
    harness.backend.send([task(seq=seq) for seq in range(1, 26)])
    batch = harness.source.receive(now_ms=harness.clock.now_ms(), limit=10, visibility_ms=VISIBILITY_MS)
    assert len(batch) <= 10
    rest = harness.receive(until=[task(seq=seq).message.id for seq in range(1, 26)])
    assert len({delivery.message.id for delivery in batch + rest}) == 25


def test_the_next_due_instant_is_known_or_a_poll_is_worth_it(harness: Harness) -> None:
    if not harness.knows_next_due:
        pytest.skip("SQS does not tell when a message is due; Lambda polls")
    assert harness.source.next_due_ms() is None
    harness.backend.send([task(seq=1, due_ms=START_MS + 900), task(seq=2, due_ms=START_MS + 500)])
    assert harness.source.next_due_ms() == START_MS + 500
    harness.advance(500)
    delivery = harness.one(task(seq=2).message.id, visibility_ms=100)
    assert harness.source.next_due_ms() == START_MS + 600
    harness.backend.acknowledge([delivery.receipt])
    assert harness.source.next_due_ms() == START_MS + 900


def test_consumers_that_compete_lease_each_message_once(harness: Harness) -> None:
    ids = {task(seq=seq).message.id for seq in range(1, 61)}
    harness.backend.send([task(seq=seq) for seq in range(1, 61)])
    received: list[str] = []

    def consume() -> None:
        received.extend(delivery.message.id for delivery in harness.receive(limit=3))

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(received) == sorted(ids)


# --- items ---------------------------------------------------------------------------------------------


def test_a_settlement_writes_sends_and_acknowledges(harness: Harness) -> None:
    harness.backend.send([task()])
    delivery = harness.one(task().message.id)
    settlement = Settlement(item=item(), send=(completed(),), guard=_deadline(), acknowledge=(delivery.receipt,))
    outcome = harness.backend.settle(settlement)
    assert (outcome.written, outcome.found) == (True, None)
    assert harness.backend.read_item(item().key) == item()
    arrived = set(harness.drain(until=[completed().message.id]))
    assert completed().message.id in arrived
    assert arrived <= {completed().message.id, _deadline().message.id}
    harness.advance(10 * VISIBILITY_MS)
    assert task().message.id not in harness.drain()


def test_an_item_is_replaced_by_its_next_version_only(harness: Harness) -> None:
    first = item(version=1)
    second = item(version=2, state="retrying", attempt=2, owner="me", digest="d", deadline_ms=None)
    assert harness.backend.settle(Settlement(item=first)).written
    assert harness.backend.settle(Settlement(item=second)).written
    assert harness.backend.read_item(first.key) == second


@pytest.mark.parametrize("version", [1, 2, 4])
def test_a_settlement_on_another_version_does_nothing_and_returns_what_it_found(harness: Harness, version: int) -> None:
    harness.backend.settle(Settlement(item=item(version=1)))
    current = item(version=2, state="closed")
    harness.backend.settle(Settlement(item=current))
    harness.backend.send([task()])
    delivery = harness.one(task().message.id, visibility_ms=1000)
    outcome = harness.backend.settle(
        Settlement(item=item(version=version), send=(completed(),), acknowledge=(delivery.receipt,))
    )
    assert not outcome.written
    assert outcome.found == current
    assert harness.backend.read_item(current.key) == current
    harness.advance(1000)
    assert set(harness.drain(until=[task().message.id])) == {task().message.id}


def test_a_settlement_that_expects_an_absent_item_finds_none(harness: Harness) -> None:
    outcome = harness.backend.settle(Settlement(item=item(version=2), send=(completed(),)))
    assert (outcome.written, outcome.found) == (False, None)
    assert harness.backend.read_item(item().key) is None
    assert harness.drain() == {}


def test_a_settlement_without_an_item_leaves_items_alone(harness: Harness) -> None:
    assert harness.backend.settle(Settlement(send=(completed(),))).written
    assert harness.backend.read_items(RUN) == []
    assert set(harness.drain(until=[completed().message.id])) == {completed().message.id}


def test_items_of_a_run_are_read_by_seq(harness: Harness) -> None:
    for seq in (11, 2, 100, 1):
        harness.backend.settle(Settlement(item=item(seq)))
    harness.backend.settle(Settlement(item=item(7, run=run_key(run=2))))
    assert [found.key.seq for found in harness.backend.read_items(RUN)] == [1, 2, 11, 100]
    assert harness.backend.read_item(ActivityKey(RUN, 7)) is None


def test_of_settlements_that_race_for_a_version_exactly_one_is_written(harness: Harness) -> None:
    written: list[str] = []
    barrier = threading.Barrier(4)

    def settle(name: str) -> None:
        barrier.wait()
        if harness.backend.settle(Settlement(item=dataclasses.replace(item(), owner=name))).written:
            written.append(name)

    threads = [threading.Thread(target=settle, args=(f"w{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = harness.backend.read_item(item().key)
    assert found is not None
    assert written == [found.owner]
