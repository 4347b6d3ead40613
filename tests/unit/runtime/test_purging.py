"""Purged executions: gone, and nobody stumbles over where they were."""

from __future__ import annotations

import pytest

from durably.core.errors import ClientError, ExecutionNotFoundError
from tests.unit.runtime.harness import LEASE_MS
from tests.unit.runtime.programs import process_of, steps


def test_a_purged_execution_is_not_found_and_its_id_is_free() -> None:
    process = process_of(steps)
    handle = process.client.start("e", steps)
    process.work()
    process.client.purge("e")
    process.client.purge("e")
    for look in (handle.describe, handle.result, lambda: process.client.history("e"), handle.cancel):
        with pytest.raises(ExecutionNotFoundError, match="It was purged"):
            look()
    assert list(process.client.list()) == []
    process.client.start("e", steps)
    process.work()
    assert process.record().result == "3"


def test_what_is_open_or_unknown_is_not_purged() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    with pytest.raises(ClientError, match="is running: terminate it first"):
        process.client.purge("e")
    with pytest.raises(ExecutionNotFoundError):
        process.client.purge("unknown")
    process.work()
    assert process.record().result == "3"


def test_messages_of_a_purged_life_are_dropped() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.take_due()
    tasks = process.tasks()
    process.client.terminate("e")
    process.take_due()
    process.client.purge("e")
    for task in tasks:
        process.run(task)
    process.work()
    process.clock.advance(LEASE_MS)
    process.work()
    assert process.queued() == []
    assert process.record().status == "purged"


def test_a_tombstone_goes_after_fifteen_days() -> None:
    process = process_of(steps)
    for execution_id in ("old", "new"):
        process.client.start(execution_id, steps)
        process.work()
        process.client.purge(execution_id)
        process.clock.advance(16 * 24 * 3600 * 1000)
    assert process.backend.read_record("old") is None
    assert process.record("new").status == "purged"
