"""SQLite: several instances and several processes on one file; owners that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from durably.adapters.sqlite import SqliteBackend
from durably.adapters.system import SystemClock
from durably.embedded.engine import LEASE_MS
from durably.ports.backend import TurnCommit
from tests.contract.builders import RUN, run_key, task, turn
from tests.contract.harness import ManualClock
from tests.unit.adapters.conftest import Open

ROOT = Path(__file__).parents[3]

LEASE_AND_WAIT = """
import sys, time
from durably.adapters.sqlite import SqliteBackend
backend = SqliteBackend(sys.argv[1], visibility_ms=3_600_000)
backend.send([task(seq=seq) for seq in range(1, 4)])
received = backend.receive(now_ms=int(time.time() * 1000), limit=2, visibility_ms=3_600_000)
kept = backend.send([task(seq=4)], keep=True)
print(len(received) + len(kept), flush=True)
time.sleep(60)
"""

RACE = """
import sys
from durably.adapters.sqlite import SqliteBackend
path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
won = 0
with SqliteBackend(path, synchronous="OFF") as backend:
    sys.stdin.readline()
    for number in range(1, rounds + 1):
        commit = TurnCommit(run=RUN, turn=turn(number, nonce=f"{name}-{number}"), send=(task(seq=number),))
        won += backend.commit([commit])[0].status == "stored"
        own = run_key(f"own-{name}")
        assert backend.commit([TurnCommit(run=own, turn=turn(number))])[0].status == "stored"
print(won)
"""


def _spawn(script: str, *arguments: object) -> subprocess.Popen[str]:
    prelude = (
        "from durably.ports.backend import TurnCommit\nfrom tests.contract.builders import RUN, run_key, task, turn\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
    )


def _now() -> int:
    return SystemClock().now_ms()


def _ids(backend: SqliteBackend, now_ms: int) -> list[tuple[str, int]]:
    received = backend.receive(now_ms=now_ms, limit=100, visibility_ms=1000)
    return sorted((delivery.message.id, delivery.receives) for delivery in received)


def _expected() -> list[tuple[str, int]]:
    return [(task(seq=seq).message.id, 1 if seq == 3 else 2) for seq in range(1, 5)]


@pytest.mark.parametrize("late", [False, True], ids=["opened before the death", "opened after"])
def test_what_a_killed_process_had_leased_is_delivered_to_another_at_once(path: Path, late: bool) -> None:
    survivor = None if late else SqliteBackend(path)
    with _spawn(LEASE_AND_WAIT, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "3\n"
        if survivor:
            now = _now() + 2000
            received = survivor.receive(now_ms=now, limit=9, visibility_ms=1)
            assert [delivery.message.id for delivery in received] == [task(seq=3).message.id]
            survivor.release(received[0].receipt, due_ms=now)
        os.kill(process.pid, signal.SIGKILL)
    survivor = survivor or SqliteBackend(path)
    with survivor:
        found = _ids(survivor, _now() + 4000)
        assert [message_id for message_id, _ in found] == [message_id for message_id, _ in _expected()]
        assert len(list(Path(f"{path}-owners").iterdir())) == 1


def test_a_living_owner_keeps_its_leases_also_within_one_process(opened: Open, clock: ManualClock) -> None:
    first, second = opened(), opened()
    first.send([task()], keep=True)
    clock.advance(2000)
    assert _ids(second, clock.ms) == []
    assert _ids(opened(), clock.ms) == []


def test_a_living_owner_keeps_the_lease_of_the_engine_for_life(opened: Open, clock: ManualClock) -> None:
    first, second = opened(), opened()
    first.send([task()])
    assert len(first.receive(now_ms=clock.ms, limit=1, visibility_ms=LEASE_MS)) == 1
    for days in (1, 30, 10_000):
        later_ms = clock.ms + days * 86_400_000
        for backend in (first, second):
            assert backend.receive(now_ms=later_ms, limit=1, visibility_ms=LEASE_MS) == []
    first._owner.abandon()
    clock.advance(1_000)
    assert _ids(second, clock.ms) == [(task().message.id, 2)]


def test_a_dead_instance_of_the_same_process_is_noticed_within_a_second(
    opened: Open, clock: ManualClock, path: Path
) -> None:
    survivor = opened()
    dead = opened()
    dead.send([task()], keep=True)
    dead._owner.abandon()
    clock.advance(999)
    assert _ids(survivor, clock.ms) == []
    clock.advance(1)
    assert _ids(survivor, clock.ms) == [(task().message.id, 2)]
    assert len(list(Path(f"{path}-owners").iterdir())) == 1


def test_leases_whose_lock_file_was_removed_return_when_somebody_opens_the_file(
    opened: Open, clock: ManualClock, path: Path
) -> None:
    dead = opened()
    dead.send([task()], keep=True)
    dead._owner.abandon()
    for file in Path(f"{path}-owners").iterdir():
        file.unlink()
    assert _ids(opened(), clock.ms) == [(task().message.id, 2)]


def test_closing_gives_leases_back_and_removes_the_lock_file(opened: Open, clock: ManualClock, path: Path) -> None:
    closing, other = opened(), opened()
    closing.send([task()], keep=True)
    closing.close()
    closing.close()
    assert _ids(other, clock.ms) == [(task().message.id, 1)]  # as if it had not been received
    assert len(list(Path(f"{path}-owners").iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_keep_its_dead_parent_alive(opened: Open, clock: ManualClock) -> None:
    survivor, parent = opened(), opened()
    parent.send([task()], keep=True)
    hold, release = os.pipe()
    wait, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.write(ready, b"!")
        os.read(hold, 1)
        os._exit(0)
    os.close(hold)
    os.close(ready)
    assert os.read(wait, 1) == b"!"
    os.close(wait)
    parent._owner.abandon()
    clock.advance(1000)
    found = _ids(survivor, clock.ms)
    os.close(release)
    os.waitpid(child, 0)
    assert found == [(task().message.id, 2)]


def test_two_processes_that_write_one_file_lose_and_double_nothing(path: Path) -> None:
    rounds = 150
    processes = [_spawn(RACE, path, name, rounds) for name in ("a", "b")]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with SqliteBackend(path) as backend:
        turns = backend.load_turns(RUN)
        assert [stored.number for stored in turns] == list(range(1, rounds + 1))
        assert won == [sum(stored.nonce.startswith(name) for stored in turns) for name in ("a-", "b-")]
        assert [len(backend.load_turns(run_key(f"own-{name}"))) for name in ("a", "b")] == [rounds, rounds]
        received = backend.receive(now_ms=_now(), limit=1000, visibility_ms=1000)
        assert len(received) == rounds


def test_an_instance_notices_what_another_wrote_and_not_what_it_wrote_itself(opened: Open) -> None:
    mine, other = opened(), opened()
    mine.changed()
    mine.send([task(seq=1)])
    assert not mine.changed()
    other.send([task(seq=2)])
    assert mine.changed()
    assert not mine.changed()


def test_all_instances_share_the_files_secrets_and_name(opened: Open) -> None:
    first, second = opened(), opened()
    assert first.secret("tokens") == second.secret("tokens")
    assert first.deployment == second.deployment
    assert len(first.deployment) == 32


def test_everything_is_there_after_reopening(opened: Open) -> None:
    first = opened()
    first.commit([TurnCommit(run=RUN, turn=turn(1), send=(task(),))])
    secret = first.secret("tokens")
    first.close()
    second = opened()
    assert second.load_turns(RUN) == [turn(1)]
    assert second.secret("tokens") == secret
