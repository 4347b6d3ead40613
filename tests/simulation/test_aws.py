"""The simulation over the functions that are deployed to AWS, on moto; and planted bugs that it must notice there."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from durably.adapters.aws import AwsBackend, items, keys, table
from durably.adapters.aws.table import Table
from durably.aws import timers
from durably.aws.sweeper import SweeperHandler
from durably.aws.timers import TimersHandler
from durably.core.errors import StorageError
from durably.core.keys import RunKey
from durably.ports.backend import TurnCommit
from durably.ports.messages import Delivery, Message
from durably.ports.records import RecordChange
from durably.runtime.runtime import Runtime
from tests.simulation import world
from tests.simulation.aws import REQUEST_FAULTS, AwsWorld, RequestFaults, on_moto
from tests.simulation.faults import DELIVERY_FAULTS
from tests.simulation.programs import Node
from tests.simulation.seeds import Report, broken_by, run_seeds

LEAST_SEEDS, MOST_SEEDS = 25, 60
SECONDS = 12
MOST_SEEDS_OF_A_BUG = 100  # the rarest is noticed by one in five


@pytest.mark.slow
def test_whatever_befalls_requests_and_deliveries_every_execution_ends_as_its_direct_execution_ends() -> None:
    """As many seeds as there is time for; `make simulate ARGS="--mode aws"` runs others."""
    report, began = Report(), time.monotonic()
    while report.seeds < LEAST_SEEDS or (report.seeds < MOST_SEEDS and time.monotonic() - began < SECONDS):
        report.add(run_seeds(report.seeds, 1, "aws"))
    failures = [
        f'make simulate SEEDS=1 ARGS="--first-seed {seed} --mode aws": {why[0]}'
        for seed, why in report.failures.items()
    ]
    assert not failures, "\n".join(failures)
    kinds = {kind.rpartition(" ")[0] if "." in kind else kind for kind in report.faults}
    assert set(REQUEST_FAULTS) <= kinds
    assert set(DELIVERY_FAULTS) <= kinds
    assert {"reorder", "deduplicated", "http: executions", "http: callbacks"} <= kinds
    assert {"completed", "cancelled", "terminated"} <= set(report.statuses)
    assert {"receive", "updated", "child", "anew", "beat"} <= {name.partition(":")[0] for name in report.features}


# --- planted bugs ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bug:
    """A bug, where to plant it, what must run for it to show, and what must go wrong."""

    place: tuple[Any, str, Any]
    program: tuple[Node, ...]
    fault: str = ""


def _nothing(*_: Any, **__: Any) -> None:
    return None


_follow = AwsBackend._follow


def _follow_if_possible(backend: AwsBackend, commit: TurnCommit) -> None:
    try:
        _follow(backend, commit)
    except StorageError:
        return


_change_record = Table.change_record


def _change_if_possible(table_: Table, run: RunKey, change: RecordChange) -> None:
    try:
        _change_record(table_, run, change)
    except StorageError:
        return


_change_values = items.change_values


def _say_less(execution_id: str, change: RecordChange, *args: Any, **more: Any) -> Any:
    """A custom status that a last turn says is forgotten."""
    if change.closed_at_ms is not None:
        change = replace(change, custom_status=None)
    return _change_values(execution_id, change, *args, **more)


_deduplication_id = keys.deduplication_id


def _same_in_each_run(message: Message, again: str = "") -> str:
    return _deduplication_id(message, again).replace(f".{message.run.run}.", ".1.")


_handle = TimersHandler._handle


def _acknowledge_first(handler: TimersHandler, delivery: Delivery, due_ms: int) -> None:
    handler._runtime.backend.acknowledge([delivery.receipt])
    try:
        _handle(handler, delivery, due_ms)
    except StorageError:
        return


class Strikes(RequestFaults):
    """One kind of fault, at every fourth request of one kind."""

    def __init__(self, rng: Random, bug: Bug) -> None:
        super().__init__(rng, budget=0, gap=1)
        self._fault, _, self._operation = bug.fault.rpartition(" ")
        self._until = rng.randrange(4)

    def request(self, operation: str) -> str | None:
        if operation != self._operation:
            return None
        self._until -= 1
        return self._fault if self._until % 4 == 0 else None


def _unchecked(runtime: Runtime, delivery: Delivery) -> None:
    runtime.backend.acknowledge([delivery.receipt])


_UPDATED = (Node("updated", 1, 1, "at once"), Node("updated", 2, 1, "slowly"))
_CHILD = (Node("child", 1, 1, "awaited", (Node("work", 2),)),)
_ANEW = (Node("post", 1, 3, "one by one"), Node("anew", 2, 1), Node("fetch", 1, 3, "one by one"), Node("anew", 3, 2))
_WORK = (Node("work", 1), Node("anew", 2, 1), Node("work", 3))
_ALIVE = (Node("ask_alive", 1, 1, "dies"),)
_STATUS = (Node("status", 1), Node("work", 2), Node("status", 3))
_BUGS = {
    "a reply is not written": Bug((AwsBackend, "reply", _nothing), _UPDATED),
    "the next run is not stored": Bug((AwsBackend, "_follow", _follow_if_possible), _ANEW, "refused dynamodb.PutItem"),
    "messages of several runs are taken for copies": Bug((keys, "deduplication_id", _same_in_each_run), _WORK),
    "an errand is acknowledged before it is run": Bug(
        (TimersHandler, "_handle", _acknowledge_first), _CHILD, "refused dynamodb.GetItem"
    ),
    "a change of a record is lost": Bug(
        (Table, "change_record", _change_if_possible), _CHILD, "refused dynamodb.UpdateItem"
    ),
    "the last custom status is not stored": Bug((table, "change_values", _say_less), _STATUS),
    "an unanswered write is believed": Bug((Table, "_resolved", _nothing), _STATUS, "requests lost dynamodb.PutItem"),
    "nobody looks whether a heart beats": Bug((timers, "check_heartbeat", _unchecked), _ALIVE),
    "nobody wakes what was started": Bug(
        (SweeperHandler, "_sweep_starts", _nothing), _CHILD, "refused sqs.SendMessageBatch"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _BUGS)
def test_the_simulation_notices_on_aws_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = _BUGS[name]
    monkeypatch.setattr(*bug.place)
    monkeypatch.setattr(world, "MAX_STEPS", 1_000)  # a world that comes to rest takes fewer
    for seed in range(MOST_SEEDS_OF_A_BUG):
        with on_moto():
            faults = Strikes(Random(seed), bug)
            broken = broken_by(AwsWorld(seed, programs=[Node("seq", 0, 0, "", bug.program)], faults=faults))
        if broken:
            print(f"seed {seed}: {broken[0]}")
            return
    pytest.fail(f"{MOST_SEEDS_OF_A_BUG} seeds did not notice that {name}")
