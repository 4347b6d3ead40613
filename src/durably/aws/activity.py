"""The function that runs activities: one queue, one function, as many as it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from durably.api.activity import Activity
from durably.aws.attempts import persistently, run_task
from durably.aws.batch import Batch, Response, seconds_left
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.ports.messages import ActivityTask, Delivery
from durably.runtime.attempt import settle_answer
from durably.runtime.runtime import Runtime

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_RESERVE_S = 1.0


def activity_handler(*activities: Activity[..., Any], surroundings: Surroundings | None = None) -> ActivityHandler:
    """The handler of a function that runs activities.

    Args:
        activities: declared with `@activity` or `@callback_activity`, sync or async.
        surroundings: instead of those that the environment describes.
    """
    return ActivityHandler(activities, surroundings)


class ActivityHandler:
    """Runs each task of a batch, one after the other, each within its time. How often a task came never counts."""

    def __init__(self, activities: Sequence[Activity[..., Any]], surroundings: Surroundings | None) -> None:
        self.activities = tuple(activities)
        self._given = surroundings
        prepare_in_lambda(lambda: self._runtime)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> Response:
        """Handle an invocation; the answer names the messages that are not dealt with."""
        batch = Batch(event, self._surroundings)
        return batch.process(lambda delivery: self._handle(delivery, batch, context), context)

    @cached_property
    def _surroundings(self) -> Surroundings:
        return self._given or Surroundings.from_environment()

    @cached_property
    def _runtime(self) -> Runtime:
        return self._surroundings.runtime(self._surroundings.registry(activities=self.activities))

    def _handle(self, delivery: Delivery, batch: Batch, context: LambdaContext) -> None:
        if not isinstance(delivery.message, ActivityTask):
            batch.redirect(delivery)
            return
        seconds = seconds_left(context) - _RESERVE_S
        if seconds <= 0:
            batch.fail([delivery], pause_s=0)
            return
        settle = partial(persistently, seconds_left=partial(seconds_left, context), sleep=self._surroundings.sleep)
        answer = run_task(self._runtime, delivery, seconds=seconds, settle=settle)
        if answer is not None:
            settle(partial(settle_answer, self._runtime, answer))
