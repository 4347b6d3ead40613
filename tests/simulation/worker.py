"""A process that takes turns and runs attempts, as `durably.embedded` (or a Lambda function) does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from durably.api.attempt import current_attempt
from durably.core.errors import ActivityCancelledError, ContendedError, StorageError
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery, Errand, HeartbeatCheck
from durably.runtime.attempt import (
    Answer,
    Attempt,
    attempt_raised,
    attempt_returned,
    attempt_timed_out,
    open_attempt,
    settle_answer,
)
from durably.runtime.callbacks import callback_deadline
from durably.runtime.errands import run_errand
from durably.runtime.heartbeats import check_heartbeat
from durably.runtime.runtime import Runtime
from durably.runtime.turn import TurnTaker
from tests.simulation.faults import Crash
from tests.simulation.store import LEASE_MS

if TYPE_CHECKING:
    from tests.simulation.world import World

Ending = Callable[[], Answer | None]
_RETRY_MS = 1_000


class SkewedClock:
    """The world's clock as one process reads it."""

    def __init__(self, world: World, offset_ms: int) -> None:
        self._world = world
        self._offset_ms = offset_ms

    def now_ms(self) -> int:
        return self._world.now_ms + self._offset_ms


class Worker:
    """One process.

    Attributes:
        embedded: keeps what it sends to itself, takes answers into its turns and tries again after an error; else
            it works as a Lambda function does, which leaves all that to the queue.
        alive: False between a crash and the restart.
        busy: True while a turn is being taken; a suspended worker is busy.
        life: counts the restarts.
    """

    def __init__(self, world: World, offset_ms: int, *, embedded: bool, taker: Callable[[Runtime], TurnTaker]) -> None:
        self.world = world
        self.embedded = embedded
        self.alive = True
        self.busy = False
        self.life = 0
        self.inbox: list[Delivery] = []
        self.runtime = world.runtime_for(self, offset_ms)
        self._taker = taker
        self._turns = taker(self.runtime)
        self._doomed = False

    def suspend(self) -> None:
        life = self.life
        self.world.let_others_go_on()
        if self._doomed or not self.alive or self.life != life:
            raise Crash("while it was suspended")

    def restart(self) -> None:
        """A fresh process: nothing in memory survives."""
        self.inbox.clear()
        self._turns.clear()
        self._turns = self._taker(self.runtime)
        self.life += 1
        self.alive = True

    def close(self) -> None:
        """The collector must not find what is live: it would run its clean-up code within another execution."""
        self._turns.clear()

    def handle(self, deliveries: list[Delivery]) -> None:
        """Do with messages what a process does, unless it dies of it."""
        self.busy = True
        try:
            groups: dict[str, list[Delivery]] = {}
            for delivery in deliveries:
                message = delivery.message
                if isinstance(message, ActivityTask):
                    self._guarded(delivery, partial(self._open, delivery))
                elif isinstance(message, CallbackDeadline):
                    self._guarded(delivery, partial(callback_deadline, self.runtime, delivery))
                elif isinstance(message, HeartbeatCheck):
                    self._guarded(delivery, partial(check_heartbeat, self.runtime, delivery))
                elif isinstance(message, Errand):
                    self._guarded(delivery, partial(run_errand, self.runtime, delivery))
                else:
                    groups.setdefault(message.run.execution_id, []).append(delivery)
            if groups:
                self._take(groups)
        except (Crash, KeyboardInterrupt):
            self._die()
        finally:
            self.busy = False

    # --- inside ------------------------------------------------------------------------------------------------

    def _die(self) -> None:
        self.alive = False
        self._doomed = False
        self.world.restart_later(self)

    def _take(self, groups: dict[str, list[Delivery]]) -> None:
        keep = self.embedded and self.world.rng.randrange(4) > 0
        try:
            taken = self._turns.take(groups, keep=keep)
        except StorageError:
            for deliveries in groups.values():
                self._again(deliveries)
            return
        self.inbox.extend(taken.kept)
        for execution_id in taken.returned:
            self._again(groups[execution_id])

    def _again(self, deliveries: list[Delivery]) -> None:
        if self.embedded:
            self._later(_RETRY_MS, lambda: self.inbox.extend(deliveries))

    def _later(self, delay_ms: int, action: Callable[[], object]) -> None:
        life = self.life
        self.world.at(delay_ms, lambda: action() if self.alive and self.life == life else None)

    def _guarded(self, delivery: Delivery, action: Callable[[], object]) -> None:
        try:
            action()
        except (StorageError, ContendedError):
            self._again([delivery.once_more])

    def _open(self, delivery: Delivery) -> None:
        opened = open_attempt(self.runtime, delivery)
        if isinstance(opened, Attempt):
            self._run(opened, delivery)
        elif opened is not None:
            self._answer(opened)

    def _run(self, attempt: Attempt, delivery: Delivery) -> None:
        self.world.ran(attempt)
        ending: Ending
        try:
            with _current(attempt):
                value = attempt.call()
        except (Exception, ActivityCancelledError) as error:
            ending = partial(attempt_raised, self.runtime, attempt, error)
        else:
            if attempt.is_async:
                self._go_on(attempt, delivery, value)
                return
            ending = partial(attempt_returned, self.runtime, attempt, value)
        self._over(attempt, delivery, ending)

    def _go_on(self, attempt: Attempt, delivery: Delivery, coroutine: Any) -> None:
        """Run an asynchronous activity until it ends or pauses."""
        ending: Ending
        try:
            with _current(attempt):
                pause_ms = coroutine.send(None)
        except StopIteration as stop:
            ending = partial(attempt_returned, self.runtime, attempt, stop.value)
        except (Exception, ActivityCancelledError) as error:
            ending = partial(attempt_raised, self.runtime, attempt, error)
        else:
            self.world.store.queue.extend(delivery, self.world.now_ms + pause_ms + LEASE_MS)
            self._later(pause_ms, partial(self._beside, delivery, partial(self._go_on, attempt, delivery, coroutine)))
            return
        self._over(attempt, delivery, ending)

    def _over(self, attempt: Attempt, delivery: Delivery, ending: Ending) -> None:
        """The function has ended; that takes its time."""
        duration_ms = self.world.duration_ms(attempt.task)
        if attempt.timeout_ms is not None and duration_ms >= attempt.timeout_ms:
            ending, duration_ms = partial(attempt_timed_out, self.runtime, attempt), attempt.timeout_ms
        if duration_ms:
            self._later(duration_ms, partial(self._beside, delivery, partial(self._end, ending)))
        else:
            self._end(ending)

    def _end(self, ending: Ending) -> None:
        answer = ending()
        if answer is not None:
            self._answer(answer)

    def _beside(self, delivery: Delivery, action: Callable[[], None]) -> None:
        """What an activity's own thread does, also while the one that takes turns is suspended."""
        life = self.life
        try:
            self._guarded(delivery, action)
        except Crash:
            if self.life != life or not self.alive:
                return
            if self.busy:
                self._doomed = True
            else:
                self._die()

    def _answer(self, answer: Answer) -> None:
        if self.embedded:
            self.inbox.append(answer.delivery)
        else:
            settle_answer(self.runtime, answer)


@contextmanager
def _current(attempt: Attempt) -> Iterator[None]:
    outer = current_attempt.set(attempt.info)
    try:
        yield
    finally:
        current_attempt.reset(outer)
