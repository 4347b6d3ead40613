"""What the two backends promise of their queues beyond the contract, which a cloud's queues cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durably.adapters.memory import MemoryBackend
from durably.adapters.sqlite import SqliteBackend
from durably.ports.backend import Settlement, TurnCommit
from tests.contract.builders import RUN, task, turn, wake
from tests.contract.harness import START_MS, ManualClock


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, path: Path, clock: ManualClock) -> Iterator[MemoryBackend | SqliteBackend]:
    if request.param == "memory":
        yield MemoryBackend(clock, visibility_ms=1000)
    else:
        with SqliteBackend(path, clock=clock, synchronous="OFF", visibility_ms=1000) as sqlite:
            yield sqlite


def _received(backend: MemoryBackend | SqliteBackend, now_ms: int) -> list[str]:
    found = backend.receive(now_ms=now_ms, limit=100, visibility_ms=1000)
    return [delivery.message.id for delivery in found]


def test_messages_arrive_in_the_order_in_which_they_were_sent(
    backend: MemoryBackend | SqliteBackend, clock: ManualClock
) -> None:
    sent = [task(seq=seq) for seq in (3, 1, 2)]
    backend.send(sent[:2])
    clock.advance(5)
    backend.send(sent[2:])
    assert _received(backend, clock.ms) == [outgoing.message.id for outgoing in sent]


def test_what_has_been_due_longest_arrives_first(backend: MemoryBackend | SqliteBackend, clock: ManualClock) -> None:
    early, late = task(seq=1, due_ms=START_MS + 10), task(seq=2, due_ms=START_MS + 20)
    backend.send([late, early])
    clock.advance(15)
    backend.send([task(seq=3)])
    assert _received(backend, START_MS + 30) == [
        early.message.id,
        task(seq=3).message.id,
        late.message.id,
    ]


def test_whatever_is_due_is_kept_and_is_the_very_message_sent(backend: MemoryBackend | SqliteBackend) -> None:
    now, later = task(seq=1), task(seq=2, due_ms=START_MS + 1)
    (kept,) = backend.send([now, later, now], keep=True)
    assert kept.message is now.message
    assert kept.receives == 1
    (outcome,) = backend.commit([TurnCommit(run=RUN, turn=turn(1), send=(now, task(seq=3)))], keep=True)
    assert [delivery.message.id for delivery in outcome.kept] == [task(seq=3).message.id]


def test_what_is_acknowledged_and_sent_again_under_its_id_at_once_stays_queued(
    backend: MemoryBackend | SqliteBackend, clock: ManualClock
) -> None:
    (first,) = backend.send([wake()], keep=True)
    commit = TurnCommit(run=RUN, turn=turn(1), send=(wake(),), acknowledge=(first.receipt,))
    (outcome,) = backend.commit([commit], keep=True)
    (second,) = outcome.kept
    backend.settle(Settlement(send=(wake(),), acknowledge=(second.receipt,)))
    assert _received(backend, clock.ms) == [wake().message.id]


def test_a_secret_is_the_same_at_every_call_and_another_for_every_name(
    backend: MemoryBackend | SqliteBackend,
) -> None:
    assert backend.secret("tokens") == backend.secret("tokens")
    assert backend.secret("tokens") != backend.secret("other")
    assert len(backend.secret("tokens")) == 32
    assert backend.deployment == backend.deployment


def test_the_memory_backend_shows_its_queue(clock: ManualClock) -> None:
    backend = MemoryBackend(clock)
    later = task(seq=2, due_ms=START_MS + 7)
    backend.send([task(seq=1), later])
    assert backend.messages() == [(task(seq=1).message, START_MS), (later.message, START_MS + 7)]


def test_the_memory_backend_gives_out_copies(clock: ManualClock) -> None:
    backend = MemoryBackend(clock)
    stored = turn(1)
    backend.commit([TurnCommit(run=RUN, turn=stored)])
    (loaded,) = backend.load_turns(RUN)
    assert loaded == stored
    assert loaded is not stored
