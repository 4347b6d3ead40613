"""The function that takes turns: everything for an execution arrives here, through the FIFO queue of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from durably.api.activity import Activity
from durably.api.orchestrator import Orchestrator
from durably.aws.attempts import run_task
from durably.aws.batch import Batch, Response, seconds_left
from durably.aws.limits import TimeLimit
from durably.aws.local import LocalTasks, is_local
from durably.aws.logs import log_keys
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.core.errors import ContendedError, StorageError, TurnTimeoutError
from durably.ports.messages import ActivityTask, Delivery, EventMessage, Message, Wake
from durably.runtime.attempt import attempt_lost
from durably.runtime.runtime import Runtime
from durably.runtime.turn import TurnTaker

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_logger = logging.getLogger("durably.orchestrator_handler")
_RESERVE_S = 1.5
_LEAST_S = 0.3  # what a turn gets, however long its neighbours take


def orchestrator_handler(
    *orchestrators: Orchestrator[..., Any],
    local: Sequence[Activity[..., Any]] = (),
    turn_seconds: float = 5.0,
    surroundings: Surroundings | None = None,
) -> OrchestratorHandler:
    """The handler of the function that takes turns.

    Args:
        orchestrators: declared with `@orchestrator`.
        local: activities declared with `local=True`, which run beside the turn that schedules them.
        turn_seconds: wall-clock budget of one turn; never more than half of the time that is left, less what the other
            executions of its batch need at least.
        surroundings: instead of those that the environment describes.
    """
    return OrchestratorHandler(orchestrators, local, turn_seconds, surroundings)


class OrchestratorHandler:
    """Takes one turn for each execution that a batch of events belongs to.

    An execution whose turn cannot be taken gets its messages back after a pause; the others go on. Executions stay live
    between invocations, so that a warm turn reads nothing.
    """

    def __init__(
        self,
        orchestrators: Sequence[Orchestrator[..., Any]],
        local: Sequence[Activity[..., Any]],
        turn_seconds: float,
        surroundings: Surroundings | None,
    ) -> None:
        self.orchestrators = tuple(orchestrators)
        self.activities = tuple(local)
        self._turn_seconds = turn_seconds
        self._given = surroundings
        self._context: LambdaContext | None = None
        self._neighbours = 0
        prepare_in_lambda(lambda: self._turns)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> Response:
        """Handle an invocation; the answer names the messages that are not dealt with."""
        self._context = context
        batch = Batch(event, self._surroundings)
        groups: dict[str, list[Delivery]] = {}
        for delivery in batch.deliveries():
            if isinstance(delivery.message, EventMessage | Wake) or is_local(delivery.message):
                groups.setdefault(delivery.message.run.execution_id, []).append(delivery)
            else:
                batch.redirect(delivery)
        self._handle_groups(groups, batch)
        return batch.response()

    # --- what lives as long as the process ----------------------------------------------------------------------

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _local(self) -> LocalTasks:
        return LocalTasks(self._surroundings.backend, self._surroundings.clock)

    @cached_property
    def _runtime(self) -> Runtime:
        registry = self._surroundings.registry(self.orchestrators, self.activities)
        return self._surroundings.runtime(registry, backend=self._local.backend, budget=self._budget)

    @cached_property
    def _turns(self) -> TurnTaker:
        return TurnTaker(self._runtime)

    # --- turns ----------------------------------------------------------------------------------------------------

    def _handle_groups(self, groups: dict[str, list[Delivery]], batch: Batch) -> None:
        """Take the turns of new messages together; then, one by one, those of messages that came before.

        Among these may be one that ends the process: it takes nobody with it who is done by then. The others cannot
        know it, so each delivery tries them in another order. Local activities come last.
        """
        self._local.clear()
        self._neighbours = len(groups) - 1
        draw = self._surroundings.entropy.draw
        order = {id_: (_suspicion(group), draw()) for id_, group in groups.items()}
        tried = {id_: group for id_, group in groups.items() if order[id_][0] == 1}
        taken = self._take_together(tried)
        done: list[Delivery] = []
        local: list[str] = []
        for id_ in sorted(groups, key=lambda id_: order[id_]):
            deliveries = groups[id_]
            if id_ not in tried:
                batch.delete_finished(done)
            elif id_ not in taken:
                deliveries = groups[id_] = _again(deliveries)
            if id_ not in taken and self._seconds_left() <= _RESERVE_S:
                batch.fail(deliveries, pause_s=0)
            elif id_ not in taken and not self._handled(id_, partial(self._take, id_, _events(deliveries))):
                batch.fail(deliveries)
            elif self._local.has(id_) or _tasks(deliveries):
                local.append(id_)
            else:
                done += deliveries
        for id_ in local:
            if id_ not in tried:
                batch.delete_finished(done)
            if self._handled(id_, partial(self._finish, id_, groups[id_], batch)):
                done += groups[id_]
            else:
                batch.fail(groups[id_])

    def _take_together(self, groups: Mapping[str, list[Delivery]]) -> frozenset[str]:
        """The executions whose turn is taken; nothing is known of the others."""
        if self._seconds_left() <= _RESERVE_S:
            return frozenset()
        events = {id_: _events(group) for id_, group in groups.items()}
        try:
            returned = self._turns.take({id_: group for id_, group in events.items() if group}).returned
        except Exception as error:
            _logger.warning("not all of %d turns could be stored: %s; these are taken one by one", len(groups), error)
            done = self._surroundings.backend.acknowledged
            return frozenset(id_ for id_, group in events.items() if done.issuperset(each.receipt for each in group))
        return frozenset(groups) - frozenset(returned)

    def _handled(self, execution_id: str, step: Callable[[], bool]) -> bool:
        """Whether a step of an execution was done; if not, its messages are to return."""
        with log_keys(execution_id=execution_id):
            try:
                return step()
            except (StorageError, ContendedError) as error:
                _logger.warning("could not handle %s: %s; its messages return", execution_id, error)
            except Exception:
                _logger.exception("could not handle %s; its messages return", execution_id)
        return False

    def _take(self, execution_id: str, deliveries: Sequence[Delivery]) -> bool:
        return not deliveries or not self._turns.take({execution_id: deliveries}).returned

    def _finish(self, execution_id: str, deliveries: list[Delivery], batch: Batch) -> bool:
        """Run the local activities that an execution's turn scheduled, or that came by themselves."""
        if any(delivery.receives >= self._runtime.limits.deliveries_before_stall for delivery in deliveries):
            return self._lose_local(execution_id, _tasks(deliveries), batch)
        return self._run_local(execution_id, _tasks(deliveries), batch)

    def _run_local(self, execution_id: str, received: list[Delivery], batch: Batch) -> bool:
        """Run local activities, round by round, as long as turns schedule more.

        Those for which no time is left go through the queue, or stay on it.
        """
        waiting = [*received, *self._local.take(execution_id)]
        while waiting:
            answers: list[Delivery] = []
            late: list[Delivery] = []
            for delivery in waiting:
                seconds = self._seconds_left() - _RESERVE_S
                if seconds <= 0:
                    late.append(delivery)
                    continue
                answer = run_task(self._runtime, delivery, seconds=seconds)
                if answer is not None:
                    answers.append(answer.delivery)
            if not self._take(execution_id, answers):
                return False
            waiting = self._local.take(execution_id)
            if late:
                batch.fail([delivery for delivery in late if delivery.receipt], pause_s=0)
                self._local.hand_over([*late, *waiting])
                return True
        return True

    def _lose_local(self, execution_id: str, received: list[Delivery], batch: Batch) -> bool:
        """Run none of an execution's local activities, one of which may have ended the process again and again.

        A task that came so often by itself is a lost attempt. The others get a message, and so a count, of their own.
        """
        limit = self._runtime.limits.deliveries_before_stall
        answers: list[Delivery] = []
        for delivery in received:
            if delivery.receives < limit:
                batch.fail([delivery], pause_s=0)
            elif answer := attempt_lost(self._runtime, delivery):
                # a turn that ends the process in its turn is to be noticed, too
                answers.append(replace(answer.delivery, receives=delivery.receives - limit + 1))
        if not self._take(execution_id, answers):
            return False
        self._local.hand_over(self._local.take(execution_id))
        return True

    def _seconds_left(self) -> float:
        assert self._context is not None
        return seconds_left(self._context)

    def _budget(self) -> TimeLimit:
        free = self._seconds_left() - _RESERVE_S
        share = max(_LEAST_S, (free - _LEAST_S * self._neighbours) / 2)
        return TimeLimit(min(self._turn_seconds, share), TurnTimeoutError)


def _suspicion(deliveries: Iterable[Delivery]) -> int:
    """1 for messages that arrive for the first time, more for those with which a process may have died before.

    A local activity's task has a message of its own if it failed, or if it may have ended a process.
    """
    return max(max(delivery.receives, 2 if _repeats(delivery.message) else 1) for delivery in deliveries)


def _repeats(message: Message) -> bool:
    return isinstance(message, ActivityTask) or (isinstance(message, Wake) and message.tries > 0)


def _again(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Messages for which a turn may have been stored just now, so that it is dispatched again."""
    return [
        delivery
        if isinstance(delivery.message, ActivityTask)
        else replace(delivery, receives=max(2, delivery.receives))
        for delivery in deliveries
    ]


def _events(deliveries: Iterable[Delivery]) -> list[Delivery]:
    return [delivery for delivery in deliveries if not isinstance(delivery.message, ActivityTask)]


def _tasks(deliveries: Iterable[Delivery]) -> list[Delivery]:
    return [delivery for delivery in deliveries if isinstance(delivery.message, ActivityTask)]
