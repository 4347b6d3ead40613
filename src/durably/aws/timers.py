"""The function that forwards what waited in the delay queue: due messages to where they belong, early ones back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from durably.aws.batch import Batch, Response
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.ports.messages import CallbackDeadline, Delivery, Errand, HeartbeatCheck, Outgoing
from durably.runtime.callbacks import callback_deadline
from durably.runtime.errands import run_errand
from durably.runtime.heartbeats import check_heartbeat
from durably.runtime.runtime import Runtime

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


def timers_handler(*, surroundings: Surroundings | None = None) -> TimersHandler:
    """The handler of the function that serves the delay queue.

    Args:
        surroundings: instead of those that the environment describes.
    """
    return TimersHandler(surroundings)


class TimersHandler:
    """Forwards each message of a batch, or puts it back for the rest of its delay. Deadlines and errands end here."""

    def __init__(self, surroundings: Surroundings | None) -> None:
        self._given = surroundings
        prepare_in_lambda(lambda: self._runtime)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> Response:
        """Handle an invocation; the answer names the messages that are not dealt with."""
        batch = Batch(event, self._surroundings)
        return batch.process_delayed(self._handle, context)

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _runtime(self) -> Runtime:
        return self._surroundings.runtime(self._surroundings.registry())

    def _handle(self, delivery: Delivery, due_ms: int) -> None:
        backend, message = self._runtime.backend, delivery.message
        if isinstance(message, Errand):
            run_errand(self._runtime, delivery)
            return
        if due_ms <= self._runtime.clock.now_ms():
            if isinstance(message, CallbackDeadline):
                callback_deadline(self._runtime, delivery)
                return
            if isinstance(message, HeartbeatCheck):
                check_heartbeat(self._runtime, delivery)
                return
        backend.send([Outgoing(message, due_ms)])
        backend.acknowledge([delivery.receipt])
