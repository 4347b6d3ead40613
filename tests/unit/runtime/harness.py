"""A runtime by hand: the memory backend, a clock that a test moves, and messages handled when the test says so."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable, Sequence
from typing import Any

from durably import Activity, Client, Orchestrator, Registry
from durably.adapters.memory import MemoryBackend
from durably.adapters.tokens import HmacTokenSigner
from durably.api.attempt import current_attempt
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ActivityCancelledError, ContendedError
from durably.core.history import Turn
from durably.ports.messages import (
    ActivityTask,
    CallbackDeadline,
    Delivery,
    Errand,
    EventMessage,
    HeartbeatCheck,
    Message,
    Wake,
)
from durably.ports.records import Record
from durably.runtime.attempt import (
    Answer,
    Attempt,
    attempt_raised,
    attempt_returned,
    open_attempt,
    settle_answer,
)
from durably.runtime.callbacks import callback_deadline
from durably.runtime.errands import run_errand
from durably.runtime.heartbeats import check_heartbeat
from durably.runtime.runtime import Limits, Runtime
from durably.runtime.turn import TurnsTaken, TurnTaker
from tests.contract.harness import ManualClock

LEASE_MS = 60_000
CODEC = PydanticCodec()


class CountingEntropy:
    """Nothing random: everything drawn is new, and back-off draws its longest delay."""

    def __init__(self) -> None:
        self.count = 0

    def ulid(self, now_ms: int) -> str:
        return f"01HF{self._next():022d}"

    def nonce(self) -> str:
        return f"nonce-{self._next()}"

    def seed(self) -> int:
        return self._next()

    def draw(self) -> float:
        return 0.0

    def _next(self) -> int:
        self.count += 1
        return self.count


class Process:
    """One process on a store; `beside()` is another one on the same.

    Attributes:
        turns: takes turns, keeping executions warm as the process would.
    """

    def __init__(
        self,
        definitions: Iterable[Orchestrator[..., Any] | Activity[..., Any]],
        *,
        backend: MemoryBackend | None = None,
        clock: ManualClock | None = None,
        entropy: CountingEntropy | None = None,
        code_version: str = "v1",
        limits: Limits | None = None,
    ) -> None:
        self.definitions = list(definitions)
        self.clock = clock or ManualClock()
        self.backend = backend or MemoryBackend(self.clock, visibility_ms=LEASE_MS)
        self.entropy = entropy or CountingEntropy()
        registry = Registry(
            [one for one in self.definitions if isinstance(one, Orchestrator)],
            [one for one in self.definitions if isinstance(one, Activity)],
            codec=CODEC,
            code_version=code_version,
        )
        self.runtime = Runtime(
            backend=self.backend,
            registry=registry,
            clock=self.clock,
            entropy=self.entropy,
            signer=HmacTokenSigner("here", {"k": b"0123456789abcdef"}, "k"),
            callback_url="http://here",
            limits=limits or Limits(),
        )
        self.turns = TurnTaker(self.runtime)
        self.client = Client(self.backend, registry, self.clock, self.entropy, pause=lambda _: self.work())

    def beside(self, definitions: Iterable[Orchestrator[..., Any] | Activity[..., Any]] | None = None) -> Process:
        """Another process, of other code if that is given."""
        return Process(
            self.definitions if definitions is None else definitions,
            backend=self.backend,
            clock=self.clock,
            entropy=self.entropy,
            code_version="v1" if definitions is None else "v2",
        )

    # --- messages -----------------------------------------------------------------------------------------

    def receive(self) -> list[Delivery]:
        return self.backend.receive(now_ms=self.clock.now_ms(), limit=10_000, visibility_ms=LEASE_MS)

    def queued(self, kind: type[Message] | None = None) -> list[str]:
        """Ids of what is queued, leased or not, by due time."""
        found = sorted(self.backend.messages(), key=lambda entry: entry[1])
        return [message.id.split(".", 2)[2] for message, _ in found if kind is None or isinstance(message, kind)]

    def take(self, deliveries: Sequence[Delivery]) -> TurnsTaken:
        """The turns of the events and wakes among `deliveries`."""
        groups: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            if isinstance(delivery.message, EventMessage | Wake):
                groups.setdefault(delivery.message.run.execution_id, []).append(delivery)
        return self.turns.take(groups)

    def take_due(self) -> None:
        """Take the turns that are due; activities stay queued."""
        due = self.receive()
        self.take(due)
        for delivery in due:
            if not isinstance(delivery.message, EventMessage | Wake):
                self.backend.release(delivery.receipt, due_ms=0)

    def tasks(self) -> list[Delivery]:
        """The activity tasks that are due; anything else stays queued."""
        due = self.receive()
        for delivery in due:
            if not isinstance(delivery.message, ActivityTask):
                self.backend.release(delivery.receipt, due_ms=0)
        return [delivery for delivery in due if isinstance(delivery.message, ActivityTask)]

    def run(self, delivery: Delivery) -> None:
        """One attempt: what it returns or raises, settled."""
        opened = open_attempt(self.runtime, delivery)
        answer = self._ran(opened) if isinstance(opened, Attempt) else opened
        if answer is not None:
            settle_answer(self.runtime, answer)

    def _ran(self, attempt: Attempt) -> Answer | None:
        context = contextvars.copy_context()
        context.run(current_attempt.set, attempt.info)
        try:
            value = context.run(attempt.call)
        except (Exception, ActivityCancelledError) as error:
            return attempt_raised(self.runtime, attempt, error)
        return attempt_returned(self.runtime, attempt, value)

    def work(self) -> None:
        """Handle everything that is due, and what that makes due."""
        while due := self.receive():
            self.take(due)
            for delivery in due:
                if isinstance(delivery.message, ActivityTask):
                    self.run(delivery)
                elif isinstance(delivery.message, CallbackDeadline):
                    callback_deadline(self.runtime, delivery)
                elif isinstance(delivery.message, HeartbeatCheck):
                    check_heartbeat(self.runtime, delivery)
                elif isinstance(delivery.message, Errand):
                    self.run_errand(delivery)

    def run_errand(self, delivery: Delivery) -> None:
        """Carry an errand out, or put it off for a second."""
        try:
            run_errand(self.runtime, delivery)
        except ContendedError:
            self.backend.release(delivery.receipt, due_ms=self.clock.now_ms() + 1_000)

    # --- looking ------------------------------------------------------------------------------------------

    def record(self, execution_id: str = "e") -> Record:
        record = self.backend.read_record(execution_id)
        assert record is not None
        return record

    def stored(self, execution_id: str = "e") -> list[Turn]:
        return self.backend.load_turns(self.record(execution_id).key)

    def kinds(self, execution_id: str = "e") -> list[str]:
        """The history, kind by kind."""
        return [entry.event.kind for entry in self.client.history(execution_id)]
