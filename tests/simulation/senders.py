"""Those who signal, update and query executions: again and again until they are answered, sometimes once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from durably.api.attempt import AttemptInfo
from durably.client import Client
from durably.core.channels import Query, Signal, Update
from durably.core.errors import (
    ClientError,
    ExecutionClosedError,
    ExecutionNotFoundError,
    QueryError,
    ReadOnlyError,
    ResultTimeoutError,
    StorageError,
    UpdateFailedError,
    UpdateRejectedError,
)
from durably.core.events import SignalReceived
from durably.runtime.start import send_event
from tests.simulation.activities import answer
from tests.simulation.faults import Crash
from tests.simulation.interpret import FINISHED, MEDDLING
from tests.simulation.programs import Node, signals

if TYPE_CHECKING:
    from tests.simulation.world import World

_NO_ANSWER = (Crash, StorageError)
_NOBODY = (ExecutionNotFoundError, ExecutionClosedError)


@dataclass
class Sent:
    """A signal.

    Attributes:
        gen: of the life that asked for it.
        accepted: whether the sender was told that it is stored.
        idle: whether nobody is about to send it.
    """

    execution_id: str
    gen: str
    id: str
    name: str
    value: int
    accepted: bool = False
    idle: bool = False
    copies: int = 0


@dataclass
class Asked:
    """An update, and what its sender was told."""

    execution_id: str
    gen: str
    id: str
    name: str
    value: int
    tries: int = 0
    told: list[str] = field(default_factory=list[str])


class Senders:
    """Whoever was invited to send something, and the curious.

    Attributes:
        forked: generations of the originals, by the ids of their forks: what those inherit keeps its ids.
    """

    def __init__(self, world: World, clients: list[Client]) -> None:
        self.world = world
        self.clients = clients
        self.signals: dict[tuple[str, str], Sent] = {}
        self.forked: dict[str, str] = {}
        self.updates: dict[str, Asked] = {}
        self.broken: list[str] = []

    def invited(self, name: str, n: int, size: int, what: str, attempt: AttemptInfo) -> None:
        """An execution asks for signals or updates."""
        gen = attempt.idempotency_key.partition(".")[0]
        of = self.forked.get(attempt.execution_id, gen)
        if what == "update":
            for value in self.world.rng.choice(((2 * n,), (2 * n, -1), (2 * n + 1, 2 * n), (-1, 2 * n, 2 * n + 1))):
                id_ = f"{gen}:{name}:{len(self.updates)}"
                asked = self.updates[id_] = Asked(attempt.execution_id, gen, id_, name, value)
                self._soon(lambda asked=asked: self._update(asked))  # type: ignore[misc]
            return
        for index, value in enumerate(signals(Node("", n, size))):
            id_ = f"{of}:{name}:{index}"
            sent = self.signals.get((gen, id_))
            if sent is None or (sent.idle and not sent.accepted):
                sent = self.signals[gen, id_] = Sent(attempt.execution_id, gen, id_, name, value)
                self._soon(lambda sent=sent: self._signal(sent))  # type: ignore[misc]
        if what == "unreadable":
            event = SignalReceived(name=name, payload='"?"', request_id=f"{gen}:{name}:unreadable")
            self._soon(lambda: self._unreadable(attempt.execution_id, event))

    def reopened(self, gen: str) -> None:
        """A life goes on after its end: what was on its way to it then may have reached nobody."""
        for sent in self.signals.values():
            if sent.gen == gen:
                sent.accepted = False

    def will_ask(self, execution_id: str, delay_ms: int) -> None:
        """Ask two queries, in a while."""
        for query in (FINISHED, MEDDLING):
            self.world.at(delay_ms, lambda query=query: self._query(execution_id, query))  # type: ignore[misc]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _soon(self, action: Callable[[], object]) -> None:
        self.world.at(self.world.rng.choice((0, 0, 100, 3_000, 20_000)), action)

    def _client(self) -> Client:
        return self.world.rng.choice(self.clients)

    def _signal(self, sent: Sent) -> None:
        rng = self.world.rng
        try:
            self._client().signal(sent.execution_id, Signal[int](sent.name), sent.value, request_id=sent.id)
        except _NOBODY:
            sent.idle = True
            return
        except _NO_ANSWER:
            self.world.at(rng.choice((100, 5_000)), lambda: self._signal(sent))
            return
        sent.accepted = sent.idle = True
        if sent.copies < 2 and rng.randrange(4) == 0:
            sent.copies += 1
            self.world.at(rng.choice((0, 1_000, 60_000)), lambda: self._signal(sent))

    def _unreadable(self, execution_id: str, event: SignalReceived) -> None:
        try:
            send_event(self.world.outside.runtimes[0].backend, execution_id, event)
        except (*_NOBODY, *_NO_ANSWER):
            pass

    def _update(self, asked: Asked) -> None:
        rng = self.world.rng
        asked.tries += 1
        try:
            update = Update[int, int](asked.name)
            value = self._client().update(asked.execution_id, update, asked.value, request_id=asked.id, timeout=0)
        except UpdateRejectedError:
            verdict = "rejected"
        except UpdateFailedError as error:
            if any(map(error.failure.matches, ("ExecutionClosedError", "QueryError"))):
                return  # ended first, or went on in a run that has no handler of it yet
            verdict = "failed"
        except _NOBODY:
            return
        except (ResultTimeoutError, *_NO_ANSWER):
            pause_ms = min(3_600_000, rng.choice((100, 1_000)) * 2**asked.tries)
            self.world.at(pause_ms, lambda: self._update(asked))
            return
        else:
            verdict = "done" if value == answer(asked.value) else f"done with {value}"
        record = self.world.store.read_record(asked.execution_id)
        if record is None or record.gen != asked.gen:
            return  # another life answered
        if verdict not in _VERDICTS[asked.value % 2 if asked.value >= 0 else -1]:
            self.broken.append(f"{asked} was {verdict}")
        asked.told.append(verdict)
        if len(asked.told) < 3 and rng.randrange(3) == 0:
            self.world.at(rng.choice((0, 1_000, 60_000)), lambda: self._update(asked))

    def _query(self, execution_id: str, query: Query[int]) -> None:
        """Through a client whose calls nothing befalls: so nothing at all may change meanwhile."""
        before = self._everything(execution_id)
        try:
            count = self.world.calm_client().query(execution_id, query)
        except QueryError as error:
            expected = query is MEDDLING and isinstance(error.__cause__, ReadOnlyError)
            if not expected and "answers no query" not in str(error):
                self.broken.append(f"a query of {execution_id} raised {error}")
        except ClientError:
            pass
        else:
            if query is MEDDLING or count < 0:
                self.broken.append(f"a query of {execution_id} was answered {count}")
        if self._everything(execution_id) != before:
            self.broken.append(f"a query changed {execution_id}")

    def _everything(self, execution_id: str) -> object:
        store = self.world.store
        record = store.read_record(execution_id)
        return record, None if record is None else store.load_turns(record.key), store.messages()


_VERDICTS = {0: ("done", "rejected"), 1: ("failed", "rejected"), -1: ("rejected",)}
