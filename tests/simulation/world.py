"""The scheduler: virtual time, several processes, one store, and a seed that decides who goes next."""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

from durably.adapters.tokens import HmacTokenSigner
from durably.api import scheduler
from durably.api.registry import Registry
from durably.client import Client
from durably.core import replay
from durably.core.errors import StorageError
from durably.core.keys import ActivityKey
from durably.ports.backend import Backend
from durably.ports.messages import ActivityTask, Delivery, Outgoing, Wake
from durably.runtime.attempt import Attempt
from durably.runtime.runtime import Limits, Runtime
from durably.runtime.turn import TurnTaker
from tests.simulation import activities
from tests.simulation.faults import Faults, FaultyBackend, Process, RandomFaults
from tests.simulation.interpret import BROKEN, DEPLOYED, PROGRAMS
from tests.simulation.outside import Outsiders, Start
from tests.simulation.programs import Node, child_programs, draw_program
from tests.simulation.statements import REGISTRY
from tests.simulation.store import LEASE_MS, StepwiseBackend, Store
from tests.simulation.worker import SkewedClock, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

Mode = Literal["atomic", "stepwise", "aws"]
START_MS = 1_700_000_000_000
MAX_STEPS = 30_000
_OPERATORS = {"cancel": 12, "suspend": 10, "retry": 4, "reset": 8, "fork": 10, "terminate a child": 20}
SIGNER = HmacTokenSigner("simulation", {"k1": b"k" * 32}, "k1")


class SimulationError(Exception):
    """A promise was broken under some seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a world is made of; a test plants bugs here."""

    store: type[Store] = Store
    stepwise: Callable[[Store, Callable[[str], None]], Backend] = StepwiseBackend
    taker: Callable[[Runtime], TurnTaker] = TurnTaker
    registry: Registry = REGISTRY


class SeededEntropy:
    """Randomness of the seed's."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._count = 0

    def ulid(self, now_ms: int) -> str:
        self._count += 1
        return f"{now_ms:014d}{self._count:012d}"

    def nonce(self) -> str:
        self._count += 1
        return f"nonce-{self._count}"

    def seed(self) -> int:
        return self._rng.getrandbits(63)

    def draw(self) -> float:
        return self._rng.random()


class World:
    """One seed's world.

    Args:
        seed: decides everything.
        mode: whether the store's calls are atomic, or several operations each.
        programs: to run, by name; drawn from the seed unless given.
        faults: what goes wrong; drawn from the seed unless given.
        calm: nothing is drawn but the order: one process, no skew, default limits, no termination.
        limits: of the processes, instead of drawn or default ones.
        parts: what the world is made of.
    """

    def __init__(
        self,
        seed: int,
        mode: Mode = "atomic",
        *,
        programs: Sequence[Node] = (),
        faults: Faults | None = None,
        calm: bool = False,
        limits: Limits | None = None,
        parts: Parts | None = None,
    ) -> None:
        rng = self.rng = Random(seed)
        parts = parts or Parts()
        self.seed = seed
        self.mode = mode
        self.calm = calm
        self.registry = parts.registry
        self.now_ms = START_MS
        self.steps = 0
        self.runs: Counter[tuple[ActivityKey, int]] = Counter()
        self.began_ms: dict[ActivityKey, int] = {}
        self.verdicts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.deployed: tuple[str, ...] = ()
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._events = 0
        self._depth = 0
        self._swept = False
        self._entropy = SeededEntropy(rng)
        self._parts = parts
        self.faults = faults or self._drawn_faults()
        self.store = self._made_store()
        self._limits = limits or (Limits() if calm else self._drawn_limits())
        self.outstanding = 1_000 if calm else rng.choice((1, 2, 1_000, 1_000))
        self.long_run = 500 if calm else rng.choice((10, 20, 500))
        self.shuffled = not calm and rng.random() < 0.7
        self.slow = not calm and rng.random() < 0.5
        embedded = mode == "atomic" and (calm or rng.random() < 0.5)
        workers = 1 if calm else rng.choice((1, 2, 2, 3))
        self.workers = [self._made_worker(embedded=embedded) for _ in range(workers)]
        self.outside = self._made_outsiders()
        self.store.written = self.outside.hearts.stored
        self._populate(programs)

    def _made_store(self) -> Store:
        return self._parts.store(SkewedClock(self, 0), self.faults.forgets if self.mode == "stepwise" else _never)

    def _made_worker(self, *, embedded: bool) -> Worker:
        return Worker(self, self.skew_ms(), embedded=embedded, taker=self._parts.taker)

    def _made_outsiders(self) -> Outsiders:
        return Outsiders(self)

    def _drawn_faults(self) -> Faults:
        rng = self.rng
        return RandomFaults(rng, budget=rng.choice((0, 2, 6, 15, 30)), gap=rng.choice((2, 6, 15)))

    def _drawn_program(self) -> Node:
        return draw_program(self.rng, 7)

    def _drawn_limits(self) -> Limits:
        rng = self.rng
        return Limits(
            events_per_turn=rng.choice((1, 2, 200)),
            warm_executions=rng.choice((0, 1, 1_000)),
            deliveries_before_stall=rng.choice((2, 3, 5)),
            steps_per_event=20_000,
        )

    def _populate(self, programs: Sequence[Node]) -> None:
        rng, outside = self.rng, self.outside
        if not programs and not self.calm and rng.randrange(16) == 0:
            outside.timekeepers.will_create()
            return
        if not programs:
            programs = [self._drawn_program() for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        for index, program in enumerate(programs):
            name = f"p{index}"
            enlist(name, program)
            execution_id = f"x{index}"
            reuse = not self.calm and index > 0 and rng.randrange(3) == 0
            if reuse:
                execution_id = f"x{index - 1}"
            delay = 0 if self.calm else rng.choice((0, 0, 5_000))
            start = Start(execution_id, f"request-{index}", name, pinned=(self.seed + index) % 4 == 0)
            if reuse or (not self.calm and rng.randrange(2)):
                start.id_reuse = "allow_if_closed"
            if not self.calm and rng.randrange(8) == 0:
                start.greeted = True
                enlist(name, program._replace(parts=(Node("greeted"), *program.parts)))
            outside.will_start(start, delay + (30_000 if reuse else 0))
            if not self.calm and rng.randrange(10) == 0:
                outside.will_terminate(execution_id, rng.choice((0, 1_000, 20_000)))
            if not self.calm:
                self._trouble(execution_id, delay)
        if not self.calm and rng.randrange(2):
            self.at(rng.choice((0, 1_000, 10_000, 60_000)), lambda: DEPLOYED.append("another version"))
            self.deployed = rng.choice(((), ("the version before it",)))

    def _trouble(self, execution_id: str, delay_ms: int) -> None:
        """What outsiders will do to an execution."""
        rng, operators = self.rng, self.outside.operators
        for action, one_in in _OPERATORS.items():
            if rng.randrange(one_in) == 0:
                for _ in range(rng.choice((1, 1, 2))):
                    operators.will(action, execution_id, delay_ms + rng.choice((0, 100, 2_000, 15_000, 100_000)))
        for _ in range(rng.choice((0, 0, 1, 2))):
            self.outside.senders.will_ask(execution_id, delay_ms + rng.choice((0, 1_000, 10_000, 10_000_000)))

    def calm_client(self) -> Client:
        """A client whose calls nothing befalls."""
        clock = SkewedClock(self, 0)
        return Client(self.store, self.registry, clock, self._entropy)

    # --- what processes ask for ----------------------------------------------------------------------------------

    def runtime_for(self, process: Process, offset_ms: int) -> Runtime:
        """The surroundings of a process, with all that goes wrong in them."""
        faults, inner = self.faults, self.store
        backend: Backend = inner
        if self.mode == "stepwise":
            backend = self._parts.stepwise(inner, lambda place: faults.port(process, place, "inside"))
        return Runtime(
            backend=FaultyBackend(backend, faults, process),
            registry=self.registry,
            clock=SkewedClock(self, offset_ms),
            entropy=self._entropy,
            signer=SIGNER,
            callback_url="http://simulation",
            limits=self._limits,
        )

    def skew_ms(self) -> int:
        return 0 if self.calm else self.rng.randrange(-2_000, 2_001)

    def at(self, delay_ms: int, action: Callable[[], object]) -> None:
        """Do something later."""
        self._events += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._events, action))

    def restart_later(self, worker: Worker) -> None:
        self.at(self.rng.choice((0, 1_000, 70_000)), worker.restart)

    def sweep_later(self) -> None:
        """The sweeper of AWS: wakes records that never took a turn, because their starter died before the wake."""
        if self.mode == "stepwise":
            self.at(300_000, self._sweep)

    def ran(self, attempt: Attempt) -> None:
        self.runs[attempt.task.key, attempt.task.attempt] += 1
        self.began_ms.setdefault(attempt.task.key, self.now_ms)

    def duration_ms(self, task: ActivityTask) -> int:
        """How long an attempt takes."""
        if task.name == "overrun":
            return 20_000
        if not self.slow or self.rng.randrange(4):
            return 0
        return self.rng.choice((10, 2_000, 2_000, LEASE_MS + 5_000))

    def let_others_go_on(self) -> None:
        """A process is suspended here: the others go on for a while."""
        if self._depth >= 3:
            return
        self._depth += 1
        until_ms = self.now_ms + self.rng.choice((0, 5_000, LEASE_MS + 5_000))
        try:
            for _ in range(self.rng.choice((1, 3, 10, 40))):
                if not self.step(until_ms):
                    break
        finally:
            self._depth -= 1

    # --- the scheduler --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go on until nothing is left to do.

        Raises:
            SimulationError: something is always left to do.
        """
        activities.face(self.outside)
        DEPLOYED[:] = self.deployed
        BROKEN.clear()
        try:
            with self.in_force(), _errors_of(self.broken):
                self._go_on()
        finally:
            self.broken.extend(BROKEN)
            for worker in self.workers:
                worker.close()

    def _go_on(self) -> None:
        while self.step():
            pass

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """What is constant elsewhere has this world's values."""
        before = replay.MAX_OUTSTANDING, scheduler._LONG
        replay.MAX_OUTSTANDING, scheduler._LONG = self.outstanding, self.long_run
        try:
            yield
        finally:
            replay.MAX_OUTSTANDING, scheduler._LONG = before

    def step(self, until_ms: int | None = None) -> bool:
        """One thing happens; False if nothing is left to do, or nothing before `until_ms`."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SimulationError(f"no rest after {MAX_STEPS} steps; queued: {self.store.messages()[:5]}")
        idle = [worker for worker in self.workers if worker.alive and not worker.busy]
        while True:
            due = self._due(idle)
            if due:
                (due[0] if len(due) == 1 else self.rng.choice(due))()
                return True
            ahead = [self._heap[0][0]] if self._heap else []
            queued = self.store.next_due_ms() if idle else None
            if queued is not None:
                ahead.append(queued)
            if not ahead or (until_ms is not None and min(ahead) > until_ms):
                return False
            self.now_ms = max(self.now_ms, min(ahead))

    def _due(self, idle: list[Worker]) -> list[Callable[[], object]]:
        due: list[Callable[[], object]] = [lambda w=w: self._from_inbox(w) for w in idle if w.inbox]  # type: ignore[misc]
        if self._heap and self._heap[0][0] <= self.now_ms:
            due.append(self._pop)
        if idle:
            queued = self.store.next_due_ms()
            if queued is not None and queued <= self.now_ms:
                due.append(lambda: self._from_queue(idle[0] if len(idle) == 1 else self.rng.choice(idle)))
        return due

    def _pop(self) -> None:
        heapq.heappop(self._heap)[2]()

    def _from_inbox(self, worker: Worker) -> None:
        taken = worker.inbox[:8]
        del worker.inbox[:8]
        worker.handle(taken)

    def _from_queue(self, worker: Worker) -> None:
        rng = self.rng
        start = rng.randrange(8) if self.shuffled else 0
        received = self.store.queue.receive_from(
            start, now_ms=self.now_ms, limit=rng.choice((1, 1, 3, 10)), visibility_ms=LEASE_MS
        )
        if start and len(received) > 1:
            self.faults.counts["reorder"] += 1
        deliveries: list[Delivery] = []
        for delivery in received:
            fault = self.faults.delivery()
            deliveries.extend((delivery,) if fault is None else self._disturbed(delivery, fault, worker))
        if deliveries:
            worker.handle(deliveries)

    def _disturbed(self, delivery: Delivery, fault: str, worker: Worker) -> tuple[Delivery, ...]:
        match fault:
            case "duplicate":
                return (delivery, delivery)
            case "delay":
                self.store.release(delivery.receipt, due_ms=self.now_ms + self.rng.choice((1_000, 30_000)))
                return ()
            case "drop until redelivery":
                return ()
            case "lease expires":
                self.store.queue.expire(delivery, self.now_ms)
                return (delivery,)
            case "receive count":
                return (self.store.queue.count_again(delivery, 5),)
            case _:
                worker.restart()
                return (delivery,)

    def _sweep(self) -> None:
        for record in self.store.records():
            turns = self.store.load_turns(record.key)
            if not record.closed and len(turns) == 1:
                self.store.send([Outgoing(Wake(run=record.key, turn=1))])


def enlist(name: str, program: Node) -> None:
    """Make a program known, and those of its children."""
    PROGRAMS[name] = program
    PROGRAMS.update(child_programs(name, program))


def _never() -> bool:
    return False


class _Listener(logging.Handler):
    """A turn that could not be planned, other than by a refusal of the store, is a bug of ours."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, StorageError):
            self._heard.append(f"logged: {record.getMessage()}: {error!r}")


@contextmanager
def _errors_of(heard: list[str]) -> Iterator[None]:
    logger = logging.getLogger("durably")
    listener = _Listener(heard)
    propagate, level = logger.propagate, logger.level
    logger.addHandler(listener)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
        logger.setLevel(level)
