"""Purged executions: gone, and nobody stumbles over where they were."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durably import Context, Signal, orchestrator
from durably.core.context import instant
from durably.core.errors import ClientError, ExecutionNotFoundError, ExecutionOpenError
from durably.core.events import ChildFailed
from durably.ports.backend import Page
from durably.ports.messages import EventMessage, Outgoing
from tests.unit.runtime.harness import LEASE_MS
from tests.unit.runtime.programs import fan_out, process_of, steps


@orchestrator
async def waiting(ctx: Context) -> int:
    return await ctx.receive(Signal[int]("go"))


@orchestrator
async def family(ctx: Context) -> int:
    return await waiting()


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
    with pytest.raises(ExecutionOpenError, match=r"is running; only what has ended.*Terminate it first"):
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


def test_what_was_closed_before_an_instant_is_purged_step_by_step() -> None:
    process = process_of(steps, fan_out)
    now = process.clock.now_ms
    for execution_id in ("a", "b", "c"):
        process.client.start(execution_id, steps)
    process.client.start("d", fan_out)
    process.client.start("e", steps)
    process.client.terminate("e")
    process.work()
    closed_before = instant(now() + 1)
    process.clock.advance(1_000)
    process.client.start("late", steps)
    process.work()
    process.client.start("open", steps)

    would_go = process.client.purge_closed(closed_before=closed_before, dry_run=True)
    assert sorted(record.execution_id for record in would_go) == ["a", "b", "c", "d", "e"]
    only = process.client.purge_closed(closed_before=closed_before, status="completed", orchestrator="steps")
    assert next(only).execution_id == "c"
    assert sorted(record.execution_id for record in process.client.list()) == ["a", "b", "d", "e", "late", "open"]
    assert [record.execution_id for record in only] == ["b", "a"]
    rest = process.client.purge_closed(closed_before=closed_before)
    assert [(record.execution_id, record.status) for record in rest] == [("d", "completed"), ("e", "terminated")]
    assert list(process.client.purge_closed(closed_before=closed_before)) == []
    assert sorted(record.execution_id for record in process.client.list()) == ["late", "open"]


def test_what_makes_no_sense_is_refused_before_anything_is_purged() -> None:
    client = process_of(steps).client
    with pytest.raises(ClientError, match="must have a time zone"):
        client.purge_closed(closed_before=instant(0).replace(tzinfo=None))
    with pytest.raises(ClientError, match="what is running has not"):
        client.purge_closed(closed_before=instant(0), status="running")


def test_what_goes_on_while_it_is_to_be_purged_is_left_alone() -> None:
    process = process_of(steps)
    process.client.start("e", steps)
    process.work()
    [listed] = process.client.purge_closed(closed_before=instant(process.clock.now_ms() + 1), dry_run=True)
    closed_before = instant(process.clock.now_ms()) + timedelta(days=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.backend, "list_records", lambda **_: Page((listed,), None))
        process.client.reset("e", 1)
        assert list(process.client.purge_closed(closed_before=closed_before)) == []
    process.work()
    assert process.record().result == "3"


def test_whoever_closed_it_may_have_died_before_telling_its_parent() -> None:
    process = process_of(family, waiting)
    process.client.start("p", family)
    process.work()
    put = process.backend._put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.backend, "_put", lambda sent, keep: put([one for one in sent if not tells(one)], keep))
        process.client.terminate("p/1.1")
        process.work()
    assert [process.record(id_).status for id_ in ("p", "p/1.1")] == ["running", "terminated"]
    process.client.purge("p/1.1")
    process.work()
    assert process.record("p").status == "failed"


def tells(sent: Outgoing) -> bool:
    return isinstance(sent.message, EventMessage) and isinstance(sent.message.event, ChildFailed)
