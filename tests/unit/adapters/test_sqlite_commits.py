"""SQLite: group commit, and writes that fail without hurting others."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading

import pytest

from durably.core.errors import StorageError
from durably.core.keys import ActivityKey
from durably.ports.backend import TurnCommit
from tests.contract.builders import RUN, run_key, task, turn
from tests.contract.harness import ManualClock
from tests.unit.adapters.conftest import Open


def _commits(connection: sqlite3.Connection) -> list[str]:
    seen: list[str] = []
    connection.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    return seen


def _in_threads(count: int, work: object) -> list[threading.Thread]:
    assert callable(work)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_writes_that_wait_at_the_same_time_share_one_commit(opened: Open) -> None:
    backend = opened()
    committer = backend._committer
    seen = _commits(committer.connection)
    with committer.connection_lock:  # the disk is slow: the first leads, the others queue behind it
        threads = _in_threads(12, lambda index: backend.commit([TurnCommit(run=run_key(f"e{index}"), turn=turn(1))]))
        while len(committer._queue) < 11:
            pass
    for thread in threads:
        thread.join()
    assert len(seen) == 2
    assert all(backend.load_turns(run_key(f"e{index}")) for index in range(12))


def test_a_batch_of_commits_is_one_transaction(opened: Open) -> None:
    backend = opened()
    seen = _commits(backend._committer.connection)
    backend.commit([TurnCommit(run=run_key(f"e{index}"), turn=turn(1)) for index in range(50)])
    assert len(seen) == 1


def test_a_write_that_fails_does_not_spoil_those_that_share_its_transaction(opened: Open) -> None:
    backend = opened()
    committer = backend._committer
    broken = ActivityKey(RUN, 1)
    backend.commit([TurnCommit(run=RUN, turn=turn(1), cancel=(broken,))])
    committer.run(lambda connection: connection.execute("UPDATE items SET body = '{'"))
    failed: list[int] = []

    def write(index: int) -> None:
        commit = TurnCommit(run=run_key(f"e{index}"), turn=turn(1), cancel=(broken,) if index == 3 else ())
        try:
            backend.commit([commit])
        except StorageError:
            failed.append(index)

    with committer.connection_lock:
        threads = _in_threads(8, write)
        while len(committer._queue) < 7:
            pass
    for thread in threads:
        thread.join()
    assert failed == [3]
    stored = [index for index in range(8) if backend.load_turns(run_key(f"e{index}"))]
    assert stored == [0, 1, 2, 4, 5, 6, 7]


class Interrupt(BaseException):
    pass


def test_an_interrupted_leader_lets_the_others_write(opened: Open) -> None:
    backend = opened()
    committer = backend._committer

    def interrupted(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM meta")
        raise Interrupt

    name = backend.deployment
    with pytest.raises(Interrupt):
        committer.run(interrupted)
    backend._secrets.clear()
    assert backend.deployment == name
    backend.commit([TurnCommit(run=RUN, turn=turn(1))])
    assert len(backend.load_turns(RUN)) == 1


def test_many_threads_lose_no_write(opened: Open) -> None:
    backend = opened()

    def write(index: int) -> None:
        for number in range(1, 41):
            backend.commit([TurnCommit(run=run_key(f"e{index}"), turn=turn(number))])

    for thread in _in_threads(8, write):
        thread.join()
    assert [len(backend.load_turns(run_key(f"e{index}"))) for index in range(8)] == [40] * 8


def test_a_full_disk_stores_nothing_by_halves_and_works_again_once_there_is_space(opened: Open) -> None:
    backend = opened(max_bytes=400_000)
    refusal = ""
    for number in range(1, 100):
        stored = turn(number, result='"' + "x" * 20_000 + '"')
        try:
            backend.commit([TurnCommit(run=RUN, turn=stored, send=(task(seq=number),))])
        except StorageError as error:
            refusal = str(error)
            break
    assert re.search(r"durably\.db cannot be used: .* is full.*free some space", refusal)
    assert number > 3
    assert len(backend.load_turns(RUN)) == number - 1
    received = backend.receive(now_ms=backend._clock.now_ms(), limit=1000, visibility_ms=1000)
    assert len(received) == number - 1
    backend._committer.run(lambda connection: connection.execute("DELETE FROM turns WHERE number > 3"))
    assert backend.commit([TurnCommit(run=RUN, turn=turn(4))])[0].status == "stored"
    assert len(backend.load_turns(RUN)) == 4


def test_a_full_disk_refuses_what_does_not_fit_and_stores_the_rest(opened: Open) -> None:
    backend = opened(max_bytes=300_000)
    committer = backend._committer
    refused: list[int] = []

    def write(index: int) -> None:
        size = 1_000_000 if index == 2 else 10
        try:
            backend.commit([TurnCommit(run=run_key(f"e{index}"), turn=turn(1, result='"' + "x" * size + '"'))])
        except StorageError:
            refused.append(index)

    with committer.connection_lock:
        threads = _in_threads(5, write)
        while len(committer._queue) < 4:
            pass
    for thread in threads:
        thread.join()
    assert refused == [2]
    assert [index for index in range(5) if backend.load_turns(run_key(f"e{index}"))] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "body",
    [b'{"kind":"UpdateMessage","run":{"execution_id":"a","gen":"g","run":1},"update":1}', b"\x00garbage"],
    ids=["of a newer version", "damaged"],
)
def test_a_message_that_cannot_be_decoded_stays_queued_and_blocks_nobody(
    opened: Open, clock: ManualClock, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    backend = opened()
    backend.send([task(seq=seq) for seq in range(1, 6)])
    odd = (task(seq=1).message.id, task(seq=2).message.id)
    backend._committer.run(
        lambda connection: connection.execute("UPDATE messages SET body = ? WHERE message_id IN (?, ?)", (body, *odd))
    )
    with caplog.at_level(logging.WARNING, "durably.sqlite"):
        received = backend.receive(now_ms=clock.ms, limit=2, visibility_ms=600_000)
    assert [delivery.message.id for delivery in received] == [task(seq=seq).message.id for seq in (3, 4)]
    assert len(caplog.records) == 2
    assert backend.receive(now_ms=clock.ms + 59_999, limit=1, visibility_ms=600_000)
    assert backend.receive(now_ms=clock.ms + 59_999, limit=9, visibility_ms=600_000) == []
    good = backend._read("SELECT body FROM messages WHERE message_id = ?", (task(seq=3).message.id,))[0][0]
    backend._committer.run(
        lambda connection: connection.execute("UPDATE messages SET body = ? WHERE message_id IN (?, ?)", (good, *odd))
    )
    assert len(backend.receive(now_ms=clock.ms + 60_000, limit=9, visibility_ms=600_000)) == 2


def test_a_closed_backend_says_so(opened: Open) -> None:
    backend = opened()
    backend.close()
    with pytest.raises(StorageError, match="closed"):
        backend.commit([TurnCommit(run=RUN, turn=turn(1))])
    with pytest.raises(StorageError, match=r"closed database\. Its runtime has ended: use a client inside"):
        backend.read_record("a")
