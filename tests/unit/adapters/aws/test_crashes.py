"""A process that dies before or after any request of an operation, and whoever repeats the operation afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durably.adapters.aws import AwsBackend
from durably.core.keys import ActivityKey
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.records import RecordChange
from tests.contract.aws import Cloud, SqsSource, cloud
from tests.contract.aws_faults import Died
from tests.contract.builders import OTHER_GEN, RUN, completed, creation, item, record, task, turn, wake
from tests.contract.harness import START_MS, Harness, ManualClock
from tests.unit.adapters.aws.bodies import noise, started_with

CLOSE = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS, result=noise(600_000))
BUSY = item(3, state="retrying", deadline_ms=None)
COMMIT = TurnCommit(
    run=RUN,
    turn=turn(2, result=noise(600_000)),
    send=(task(), completed(), task(seq=2, payload=noise(300_000)), wake(due_ms=START_MS + 10_000_000)),
    cancel=(BUSY.key, ActivityKey(RUN, 4)),
    change=CLOSE,
    acknowledge=("receipt",),
)
OPEN = Settlement(item=item(), guard=wake(tries=1), send=(completed(),), acknowledge=("receipt",))

Operation = Callable[[AwsBackend], Any]


def prepare(backend: AwsBackend) -> None:
    backend.create(creation())
    backend.settle(Settlement(item=BUSY))


def start(backend: AwsBackend) -> None:
    assert backend.create(started_with(noise(600_000))).created


def commit(backend: AwsBackend) -> None:
    assert backend.commit([COMMIT])[0].status == "stored"


def settle(backend: AwsBackend) -> None:
    backend.settle(OPEN)


def requests_of(operation: Operation, *, prepared: bool) -> int:
    with cloud(ManualClock(), parallel=1) as made:
        backend = made.backend()
        if prepared:
            prepare(backend)
        made.faults.requests = 0
        operation(backend)
        return made.faults.requests


def died(made: Cloud, operation: Operation, *, at: int, after: bool) -> AwsBackend:
    """The backend of the process that takes over."""
    first = made.backend()
    made.faults.requests, made.faults.die_at = 0, (at, after)
    with pytest.raises(Died):
        operation(first)
    assert first.acknowledged == set()  # so that the message returns
    made.faults.die_at = None
    return made.backend()


def messages(made: Cloud, backend: AwsBackend) -> set[str]:
    return set(Harness(backend, SqsSource(made, backend), made.clock).drain())


def points(operation: Operation, *, prepared: bool) -> list[tuple[int, bool]]:
    count = requests_of(operation, prepared=prepared)
    return [(at, after) for at in range(1, count + 1) for after in (False, True)]


@pytest.mark.slow
def test_a_start_that_died_anywhere_is_completed_by_its_repetition() -> None:
    crash_points = points(start, prepared=False)
    assert len(crash_points) == 8  # body, turn, record, wake
    for at, after in crash_points:
        with cloud(ManualClock(), parallel=1) as made:
            backend = died(made, start, at=at, after=after)
            start(backend)
            assert backend.read_record("packet-42") == record()
            assert len(backend.load_turns(RUN)) == 1
            assert messages(made, backend) == {wake().message.id}


@pytest.mark.slow
def test_a_start_that_died_anywhere_is_completed_or_found_by_its_callers_retry() -> None:
    for at, after in points(start, prepared=False):
        with cloud(ManualClock(), parallel=1) as made:
            backend = died(made, start, at=at, after=after)
            outcome = backend.create(creation(gen=OTHER_GEN))
            living = outcome.record
            assert backend.read_record("packet-42") == living
            assert outcome.created is (living.gen == OTHER_GEN)
            assert len(backend.load_turns(living.key)) == 1
            assert wake(living.key).message.id in messages(made, backend)


@pytest.mark.slow
def test_a_turn_that_died_anywhere_is_completed_by_its_repetition() -> None:
    crash_points = points(commit, prepared=True)
    assert len(crash_points) == 24
    for at, after in crash_points:
        with cloud(ManualClock(), parallel=1) as made:
            prepare(made.backend())
            backend = died(made, commit, at=at, after=after)
            commit(backend)
            assert backend.acknowledged == {"receipt"}
            assert backend.load_turns(RUN, after=1) == [COMMIT.turn]
            found = backend.read_record("packet-42")
            assert found is not None
            assert (found.status, found.result) == ("completed", CLOSE.result)
            assert [kept.state for kept in backend.read_items(RUN)] == ["cancelled", "cancelled"]
            sent = {outgoing.message.id for outgoing in COMMIT.send[:3]}
            assert messages(made, backend) == sent | {wake().message.id}
            schedules = made.clients.scheduler.list_schedules(GroupName="durably")["Schedules"]
            assert len(schedules) == 1


def test_a_settlement_that_died_anywhere_is_complete_or_leaves_its_guard_to_tell() -> None:
    crash_points = points(settle, prepared=True)
    assert len(crash_points) == 6
    for at, after in crash_points:
        with cloud(ManualClock(), parallel=1) as made:
            prepare(made.backend())
            backend = died(made, settle, at=at, after=after)
            written = backend.read_item(item().key) is not None
            arrived = messages(made, backend)
            assert OPEN.guard is not None
            assert not written or OPEN.guard.message.id in arrived
            assert written or completed().message.id not in arrived
            outcome = backend.settle(OPEN)
            assert (outcome.written, outcome.found) == ((False, item()) if written else (True, None))
