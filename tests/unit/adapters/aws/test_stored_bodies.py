"""Bodies: compressed where that saves a unit, in S3 where they fit nowhere else, and checked when they come back."""

from __future__ import annotations

from typing import Any

import pytest

from durably.adapters.aws import AwsBackend, keys
from durably.adapters.aws.items import item_size, units, with_body
from durably.core.errors import PayloadError, StorageError
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.records import RecordChange
from tests.contract.aws import Cloud
from tests.contract.builders import RUN, creation, item, task, turn
from tests.contract.harness import START_MS
from tests.unit.adapters.aws.bodies import noise, started_with


def stored(made: Cloud, key: tuple[str, str]) -> Any:
    found: Any = made.clients.dynamodb.get_item(
        TableName="durably", Key={keys.PARTITION: {"S": key[0]}, keys.SORT: {"S": key[1]}}
    )
    return found["Item"]


def objects(made: Cloud) -> list[str]:
    listed: Any = made.clients.s3.list_objects_v2(Bucket="durably")
    return [entry["Key"] for entry in listed.get("Contents", [])]


def put_turn(backend: AwsBackend, result: str) -> None:
    assert backend.commit([TurnCommit(run=RUN, turn=turn(1, result=result))])[0].status == "stored"


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("1", "S"),  # one unit as it is
        (noise(200), "S"),  # one unit either way
        (f'"{"x" * 900}"', "B"),  # two units, one compressed
        (noise(1500), "B"),  # three units, two compressed: letters have six bits
    ],
)
def test_a_turn_is_compressed_iff_that_saves_a_write_unit(
    made: Cloud, backend: AwsBackend, result: str, kind: str
) -> None:
    put_turn(backend, result)
    assert list(stored(made, keys.turn_key(RUN, 1))["body"]) == [kind]
    assert backend.load_turns(RUN) == [turn(1, result=result)]


@pytest.mark.parametrize(("size", "kind"), [(900, "S"), (1900, "S"), (2100, "B"), (3000, "S"), (3100, "B")])
def test_compression_that_saves_no_unit_is_left(size: int, kind: str) -> None:
    body = noise(size).encode()  # letters and digits: three quarters, compressed
    made_item = with_body({keys.PARTITION: {"S": "x" * 20}}, "body", body, lambda _: pytest.fail("not to S3"))
    assert list(made_item["body"]) == [kind]
    assert units(item_size(made_item)) == (2 if size > 1000 else 1) + (size >= 3000)


def test_a_turn_of_400_kb_lies_in_s3_under_its_checksum_and_is_one_item(made: Cloud, backend: AwsBackend) -> None:
    result = noise(600_000)
    put_turn(backend, result)
    item_ = stored(made, keys.turn_key(RUN, 1))
    digest = item_["body_ref"]["S"].partition(":")[0]
    assert "body" not in item_
    assert objects(made) == [f"bodies/{RUN.gen}/{digest}"]
    assert backend.load_turns(RUN) == [turn(1, result=result)]


def test_a_long_body_that_compresses_well_stays_in_the_table(made: Cloud, backend: AwsBackend) -> None:
    put_turn(backend, f'"{"x" * 2_000_000}"')
    assert objects(made) == []
    assert backend.load_turns(RUN) == [turn(1, result=f'"{"x" * 2_000_000}"')]


def test_a_conflict_over_a_body_in_s3_is_told_without_reading_it(made: Cloud, backend: AwsBackend) -> None:
    put_turn(backend, noise(600_000))
    with made.meter.measured() as bill:
        assert backend.commit([TurnCommit(run=RUN, turn=turn(1, nonce="late"))])[0].status == "conflict"
    assert bill.requests == {"dynamodb.PutItem": 1}


def test_results_and_items_of_400_kb_come_back(made: Cloud, backend: AwsBackend) -> None:
    backend.create(creation())
    result = noise(700_000)
    change = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS, result=result)
    backend.commit([TurnCommit(run=RUN, turn=turn(2), change=change)])
    backend.settle(Settlement(item=item(state="completed", result=result)))
    record, kept = backend.read_record("packet-42"), backend.read_item(item().key)
    assert record is not None
    assert record.result == result
    assert kept is not None
    assert kept.result == result
    assert len(objects(made)) == 2
    assert [listed.result for listed in backend.list_records().records] == [None]


@pytest.mark.parametrize(
    ("wait_ms", "prefix"), [(0, "messages/"), (900_000, "messages/"), (900_001, "bodies/")], ids=["now", "soon", "late"]
)
def test_a_message_is_kept_with_its_life_only_where_it_may_wait_for_long(
    made: Cloud, backend: AwsBackend, wait_ms: int, prefix: str
) -> None:
    backend.send([task(payload=noise(300_000), due_ms=made.clock.now_ms() + wait_ms)])
    (key,) = objects(made)
    assert key.startswith(f"{prefix}{RUN.gen}/")


def test_a_corrupted_body_is_refused(made: Cloud, backend: AwsBackend) -> None:
    put_turn(backend, noise(600_000))
    (key,) = objects(made)
    made.clients.s3.put_object(Bucket="durably", Key=key, Body=b"something else")
    with pytest.raises(StorageError, match="checksum differs"):
        backend.load_turns(RUN)


def test_a_missing_body_is_refused(made: Cloud, backend: AwsBackend) -> None:
    put_turn(backend, noise(600_000))
    made.clients.s3.delete_object(Bucket="durably", Key=objects(made)[0])
    with pytest.raises(StorageError, match="not there"):
        backend.load_turns(RUN)


@pytest.mark.parametrize(
    "damage",
    [{"body_ref": {"S": "elsewhere"}}, {"body": {"B": b"no zlib"}}, {"body": {"S": "{"}}, {"body": {"S": "{}"}}],
)
def test_an_item_edited_by_hand_is_refused(made: Cloud, backend: AwsBackend, damage: Any) -> None:
    partition, sort = keys.turn_key(RUN, 1)
    made.clients.dynamodb.put_item(
        TableName="durably", Item={keys.PARTITION: {"S": partition}, keys.SORT: {"S": sort}, **damage}
    )
    with pytest.raises(StorageError):
        backend.load_turns(RUN)


def test_a_turn_is_not_stored_where_its_body_was_not(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutObject", "request lost", 3)
    with pytest.raises(StorageError, match="store a body"):
        put_turn(backend, noise(600_000))
    assert backend.load_turns(RUN) == []


def test_an_input_of_ten_megabytes_is_refused_and_nothing_is_stored(made: Cloud, backend: AwsBackend) -> None:
    with pytest.raises(PayloadError, match="Store it yourself"):
        backend.create(started_with(f'"{"x" * 10_000_000}"'))
    assert backend.read_record("packet-42") is None
    assert made.meter.bill.write_units == 0


def test_an_input_of_four_megabytes_starts(backend: AwsBackend) -> None:
    start = started_with(f'"{"x" * 4_000_000}"')
    assert backend.create(start).created
    assert backend.load_turns(RUN) == [start.turn]
