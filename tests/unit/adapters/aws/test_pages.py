"""Answers that come in pages, each of them to its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from durably.adapters.aws import AwsBackend, keys
from durably.core.errors import StorageError
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.records import RecordChange
from tests.contract.aws import Cloud, cloud
from tests.contract.builders import GEN, OTHER_GEN, RUN, creation, item, run_key, turn
from tests.contract.harness import START_MS, ManualClock


@pytest.fixture
def made() -> Iterator[Cloud]:
    with cloud(ManualClock(), page_items=2) as deployed:
        yield deployed


def test_turns_and_items_are_read_to_the_last_page(made: Cloud, backend: AwsBackend) -> None:
    turns = [turn(number) for number in range(1, 8)]
    for each in turns:
        backend.commit([TurnCommit(run=RUN, turn=each)])
        backend.settle(Settlement(item=item(each.number)))
    with made.meter.measured() as bill:
        assert backend.load_turns(RUN) == turns
    assert bill.requests["dynamodb.Query"] == 4
    assert backend.load_turns(RUN, after=4) == turns[4:]
    assert [found.key.seq for found in backend.read_items(RUN)] == list(range(1, 8))


def test_a_missing_turn_is_noticed(backend: AwsBackend) -> None:
    for number in (1, 2, 4):
        backend.commit([TurnCommit(run=RUN, turn=turn(number))])
    with pytest.raises(StorageError, match="no gap"):
        backend.load_turns(RUN)
    with pytest.raises(StorageError, match="no gap"):
        backend.load_turns(RUN, after=2)


def test_a_listing_merges_all_shards_to_the_last_page(backend: AwsBackend) -> None:
    names = [f"e{number:02d}" for number in range(40)]
    for number, name in enumerate(names):
        assert backend.create(creation(name, f"{GEN[:-2]}{number:02d}", started_at_ms=START_MS + number)).created
    assert len({keys.status_shard(name) for name in names}) > 15
    listed: list[str] = []
    cursor = None
    while True:
        page = backend.list_records(status="running", orchestrator="route", limit=13, cursor=cursor)
        listed += [found.execution_id for found in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert listed == names[::-1]


def test_an_execution_that_changes_status_is_listed_under_the_new_one(backend: AwsBackend) -> None:
    backend.create(creation())
    change = RecordChange(status="completed", turn=2, code_version="v2", closed_at_ms=START_MS + 5, result="1")
    backend.commit([TurnCommit(run=RUN, turn=turn(2), change=change)])
    assert backend.list_records(status="running").records == ()
    (found,) = backend.list_records(status="completed").records
    assert (found.status, found.closed_at_ms, found.code_version, found.turn) == ("completed", START_MS + 5, "v2", 2)


def test_the_sweeper_sees_running_executions_of_a_shard_oldest_first(backend: AwsBackend) -> None:
    shard = keys.status_shard("packet-42")
    mates = [name for name in (f"m{number}" for number in range(200)) if keys.status_shard(name) == shard][:4]
    for number, name in enumerate(mates):
        backend.create(creation(name, f"{GEN[:-1]}{number}", started_at_ms=START_MS + number))
    backend.create(creation("elsewhere", OTHER_GEN))
    change = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS)
    backend.commit([TurnCommit(run=run_key(mates[1], f"{GEN[:-1]}1"), turn=turn(2), change=change)])
    found = backend.started(shard, after_ms=START_MS, before_ms=START_MS + 3)
    assert [record.execution_id for record in found] == [mates[0], mates[2]]
