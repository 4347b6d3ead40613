"""What steps cost: billed units counted where boto makes the requests, on the real runtime."""

from __future__ import annotations

from typing import Any

import pytest

from durably.adapters.aws import AwsBackend, keys
from durably.adapters.aws.items import item_size, units
from durably.core.errors import StorageError
from durably.ports.backend import Settlement, TurnCommit
from durably.ports.messages import Delivery
from durably.ports.records import RecordChange
from tests.contract.aws import Cloud
from tests.contract.builders import RUN, completed, creation, item, task, turn
from tests.contract.harness import START_MS
from tests.unit.adapters.aws.bodies import noise
from tests.unit.adapters.aws.worker import STEPS, Deploy, all_at_once, one_after_another


def test_a_sequential_step_costs_one_write_unit_no_read_and_two_sends(made: Cloud, deploy: Deploy) -> None:
    worker = deploy(one_after_another)
    handle = worker.client.start("e", one_after_another, STEPS)
    worker.step()  # the first turn reads what the start stored
    with made.meter.measured() as bill:
        for _ in range(STEPS - 1):
            assert worker.step()  # the activity
            assert worker.step()  # the turn
    steps = STEPS - 1
    assert (bill.write_units, bill.read_units, bill.index_units) == (steps, 0, 0)
    assert bill.requests["dynamodb.PutItem"] == steps
    assert bill.requests["sqs.SendMessageBatch"] == bill.messages == 2 * steps
    assert bill.queue_units == {
        made.settings.events_queue: steps,
        made.settings.activity_queues["double"]: steps,
    }
    others = {name for name in bill.requests if name not in ("dynamodb.PutItem", "sqs.SendMessageBatch")}
    assert others <= {"sqs.ReceiveMessage", "sqs.DeleteMessage"}  # Lambda's pollers, here the test itself
    worker.run()
    assert handle.result(timeout=1) == sum(2 * number for number in range(STEPS))


def test_starting_and_closing_cost_what_the_record_costs(made: Cloud, deploy: Deploy) -> None:
    worker = deploy(one_after_another)
    with made.meter.measured() as start:
        worker.client.start("e", one_after_another, 1)
    assert (start.write_units, start.index_units, start.read_units, start.messages) == (2, 1, 0, 1)
    worker.step()
    worker.step()
    with made.meter.measured() as close:
        worker.step()
    assert (close.write_units, close.index_units, close.read_units, close.messages) == (2, 2, 0, 0)


def test_a_cold_turn_reads_no_more_than_its_history(made: Cloud, deploy: Deploy) -> None:
    worker = deploy(one_after_another)
    worker.client.start("e", one_after_another, STEPS)
    for _ in range(2 * STEPS - 1):
        worker.step()
    worker.taker.clear()
    worker.step()  # the activity
    stored: Any = made.clients.dynamodb.scan(TableName="durably")["Items"]
    history = sum(item_size(found) for found in stored if found[keys.SORT]["S"] != keys.RECORD)
    with made.meter.measured() as bill:
        worker.step()
    assert bill.read_units <= 1 + units(history, 4096)  # the record, and the turns
    assert bill.requests["dynamodb.GetItem"] == bill.requests["dynamodb.Query"] == 1


def test_a_fan_out_is_sent_in_batches_of_ten_and_stored_in_one_item(made: Cloud, deploy: Deploy) -> None:
    worker = deploy(all_at_once)
    handle = worker.client.start("e", all_at_once, 100)
    with made.meter.measured() as bill:
        worker.step()
    assert bill.requests["sqs.SendMessageBatch"] == 10
    assert bill.requests["dynamodb.PutItem"] == 1
    assert bill.write_units <= 3  # 100 commands, compressed
    worker.run()
    assert handle.result(timeout=1) == 9900


def test_what_a_redelivery_sends_again_is_sent_before_it_is_acknowledged(made: Cloud, deploy: Deploy) -> None:
    worker = deploy(all_at_once)
    worker.client.start("e", all_at_once, 3)
    worker.step()
    record = worker.backend.read_record("e")
    assert record is not None
    worker.taker.take({"e": [Delivery(completed(record.key, 1).message, "first")]})
    again = [Delivery(completed(record.key, seq).message, f"again-{seq}", 2) for seq in (1, 2)]
    worker.backend.acknowledged.clear()
    made.faults.plan("SendMessageBatch", "request lost", 3)
    with pytest.raises(StorageError):
        worker.taker.take({"e": again})
    assert worker.backend.acknowledged == set()
    worker.taker.take({"e": again})
    assert worker.backend.acknowledged == {"again-1", "again-2"}


# --- the meter itself ----------------------------------------------------------------------------------


def test_units_are_counted_by_bytes(made: Cloud, backend: AwsBackend) -> None:
    with made.meter.measured() as bill:
        backend.commit([TurnCommit(run=RUN, turn=turn(1, result='"' + "ab" * 100 + '"'))])
        backend.load_turns(RUN)
        backend.read_item(item().key)
    assert (bill.write_units, bill.read_units) == (1, 2)
    with made.meter.measured() as bill:
        backend.settle(Settlement(item=item(state="completed", result=noise(40_000))))
        backend.read_item(item().key)
    stored = bill.write_units * 1024
    assert 30 <= bill.write_units <= 40
    assert bill.read_units == units(stored, 4096)


def test_a_refused_condition_costs_what_the_larger_item_would(made: Cloud, backend: AwsBackend) -> None:
    backend.settle(Settlement(item=item(result=noise(5_000))))
    with made.meter.measured() as bill:
        assert not backend.settle(Settlement(item=item())).written
    assert bill.write_units >= 4


def test_a_message_is_billed_by_64_kb(made: Cloud, backend: AwsBackend) -> None:
    with made.meter.measured() as bill:
        backend.send([task(payload=noise(100_000))])
    assert sum(bill.queue_units.values()) == 2


def test_attempts_that_failed_are_counted_as_requests(made: Cloud, backend: AwsBackend) -> None:
    made.faults.plan("PutItem", "refused", 2)
    with made.meter.measured() as bill:
        backend.commit([TurnCommit(run=RUN, turn=turn(1))])
    assert bill.requests == {"dynamodb.PutItem": 3}


def test_a_change_of_status_is_billed_in_the_index(made: Cloud, backend: AwsBackend) -> None:
    backend.create(creation())
    change = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS)
    with made.meter.measured() as bill:
        backend.commit([TurnCommit(run=RUN, turn=turn(2), change=change)])
    assert (bill.write_units, bill.index_units) == (2, 2)
