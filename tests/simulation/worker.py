"""A process that takes turns and runs attempts, as `durably.embedded` (or a Lambda function) does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from durably.api.attempt import current_attempt
from durably.core.errors import ContendedError, StorageError
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery, Errand
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
from durably.runtime.runtime import Runtime
from durably.runtime.turn import TurnTaker
from tests.simulation.faults import Crash

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
        self.world.let_others_go_on()
        if self._doomed:
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
            self._again([delivery])

    def _open(self, delivery: Delivery) -> None:
        opened = open_attempt(self.runtime, delivery)
        if isinstance(opened, Attempt):
            self._run(opened, delivery)
        elif opened is not None:
            self._answer(opened)

    def _run(self, attempt: Attempt, delivery: Delivery) -> None:
        runtime = self.runtime
        self.world.ran(attempt)
        outer = current_attempt.set(attempt.info)
        ending: Ending
        try:
            value = attempt.call()
            if attempt.is_async:
                value = _drive(value)
        except Exception as error:
            ending = partial(attempt_raised, runtime, attempt, error)
        else:
            ending = partial(attempt_returned, runtime, attempt, value)
        finally:
            current_attempt.reset(outer)
        duration_ms = self.world.duration_ms(attempt.task)
        if attempt.timeout_ms is not None and duration_ms >= attempt.timeout_ms:
            ending, duration_ms = partial(attempt_timed_out, runtime, attempt), attempt.timeout_ms
        if duration_ms:
            self._later(duration_ms, partial(self._end_later, ending, delivery))
        else:
            self._end(ending)

    def _end(self, ending: Ending) -> None:
        answer = ending()
        if answer is not None:
            self._answer(answer)

    def _end_later(self, ending: Ending, delivery: Delivery) -> None:
        """An activity's own thread reports, also while the one that takes turns is suspended."""
        try:
            self._guarded(delivery, partial(self._end, ending))
        except Crash:
            if self.busy:
                self._doomed = True
            else:
                self._die()

    def _answer(self, answer: Answer) -> None:
        if self.embedded:
            self.inbox.append(answer.delivery)
        else:
            settle_answer(self.runtime, answer)


def _drive(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("an activity of the simulation waits for something")
