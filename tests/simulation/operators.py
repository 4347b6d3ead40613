"""Operators: they cancel, suspend, resume, retry, reset and fork executions, whatever those are doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from durably.client import Client
from durably.core.errors import ClientError, ContendedError, StorageError
from durably.core.events import ExecutionStarted
from durably.core.history import read_history
from tests.simulation.faults import Crash
from tests.simulation.interpret import program_of
from tests.simulation.programs import features

if TYPE_CHECKING:
    from tests.simulation.world import World

_NOT_FORKED = {"tell:self", "tell:parent", "greeted"}  # they speak of their own id, or of what a fork does not get
_RESUMED_AFTER_MS = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)


class Operators:
    """Whoever steers executions.

    Attributes:
        cancelled: ids of those whose cancellation was asked for.
        disturbed: ids of those whose end is not that of their program any more.
        rewound: how often each life was retried or reset, by generation.
    """

    def __init__(self, world: World, clients: list[Client]) -> None:
        self.world = world
        self.clients = clients
        self.cancelled: set[str] = set()
        self.disturbed: set[str] = set()
        self.rewound: Counter[str] = Counter()
        self._actions: dict[str, Callable[[str, Client], object]] = {
            "cancel": self._cancel,
            "suspend": self._suspend,
            "resume": self._resume,
            "retry": self._retry,
            "reset": self._reset,
            "fork": self._fork,
            "terminate a child": self._terminate_child,
        }

    def will(self, action: str, execution_id: str, delay_ms: int) -> None:
        """Do something to an execution in a while."""
        self.world.at(delay_ms, lambda: self._do(action, execution_id))

    def _do(self, action: str, execution_id: str) -> None:
        rng = self.world.rng
        try:
            self._actions[action](execution_id, rng.choice(self.clients))
        except ClientError:
            pass
        except (Crash, StorageError, ContendedError):
            self.will(action, execution_id, rng.choice((100, 5_000)))
        else:
            self.world.faults.counts[f"operator: {action}"] += 1

    def _cancel(self, execution_id: str, client: Client) -> None:
        self.cancelled.add(execution_id)
        client.cancel(execution_id, "the operator said so")

    def _suspend(self, execution_id: str, client: Client) -> None:
        for delay_ms in _RESUMED_AFTER_MS:  # the last of them comes after every message was delivered
            self.will("resume", execution_id, delay_ms)
        client.suspend(execution_id)

    def _resume(self, execution_id: str, client: Client) -> None:
        if client.describe(execution_id).status == "suspended":
            client.resume(execution_id)

    def _retry(self, execution_id: str, client: Client) -> None:
        self._rewind(execution_id)
        client.retry(execution_id)

    def _reset(self, execution_id: str, client: Client) -> None:
        record = self.world.store.read_record(execution_id)
        if record is None:
            return
        applied = [entry.number for entry in read_history(self.world.store.load_turns(record.key)) if entry.applied]
        if applied:
            self._rewind(execution_id)
            client.reset(execution_id, self.world.rng.choice(applied))

    def _fork(self, execution_id: str, client: Client) -> None:
        record = self.world.store.read_record(execution_id)
        if record is None:
            return
        turns = self.world.store.load_turns(record.key)
        started = turns[0].inbound[0]
        assert isinstance(started, ExecutionStarted)
        if _NOT_FORKED & set(features(program_of(started.input))):
            return
        applied = [entry.number for entry in read_history(turns) if entry.applied]
        if applied:
            self.world.sweep_later()
            for delay_ms in _RESUMED_AFTER_MS:  # it may begin as a suspended one
                self.will("resume", f"{execution_id}@fork", delay_ms)
            self.world.outside.senders.forked.setdefault(f"{execution_id}@fork", record.gen)
            client.fork(execution_id, f"{execution_id}@fork", to_event=self.world.rng.choice(applied))

    def _terminate_child(self, execution_id: str, client: Client) -> None:
        children = [r.execution_id for r in self.world.store.records() if r.execution_id.startswith(f"{execution_id}/")]
        if children:
            self.disturbed.add(execution_id)
            client.terminate(self.world.rng.choice(children))

    def _rewind(self, execution_id: str) -> None:
        record = self.world.store.read_record(execution_id)
        if record is not None:
            self.rewound[record.gen] += 1
            self.world.outside.senders.reopened(record.gen)
