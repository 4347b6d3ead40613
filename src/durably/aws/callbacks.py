"""The function behind `POST /callbacks/{token}`, also with `/failure` and `/heartbeat`: results from outside (P7).

The routes carry no authorisation: the token is one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

from durably.api.activity import Activity
from durably.aws.requests import answer, body_of, refusal_of, routed
from durably.aws.surroundings import Surroundings, prepare_in_lambda
from durably.core.errors import StorageError
from durably.runtime.callback_bodies import STATUS, beat_with_body, complete_with_body, fail_with_body
from durably.runtime.callbacks import CallbackAnswer
from durably.runtime.runtime import Runtime

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

_logger = logging.getLogger("durably.callbacks_handler")


def callbacks_handler(*activities: Activity[..., Any], surroundings: Surroundings | None = None) -> CallbacksHandler:
    """The handler of the function that takes callbacks.

    Args:
        activities: callback activities whose results are checked at the door; of others, when they are read.
        surroundings: instead of those that the environment describes.
    """
    return CallbacksHandler(activities, surroundings)


class CallbacksHandler:
    """Answers 200 (also for the same payload again), 400, 401, 409 (another payload), 410 (too late), 413, 415, 503."""

    def __init__(self, activities: Sequence[Activity[..., Any]], surroundings: Surroundings | None) -> None:
        self.activities = tuple(activities)
        self._given = surroundings
        self._app = APIGatewayHttpResolver()
        self._app.post("/callbacks/<token>")(self._complete)
        self._app.post("/callbacks/<token>/failure")(self._fail)
        self._app.post("/callbacks/<token>/heartbeat")(self._beat)
        prepare_in_lambda(lambda: self._runtime)

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Handle a request."""
        return self._app.resolve(routed(event), context)

    @cached_property
    def _runtime(self) -> Runtime:
        surroundings = self._given or Surroundings.from_environment()
        return surroundings.runtime(surroundings.registry(activities=self.activities))

    def _complete(self, token: str) -> Response[str]:
        return self._settle(token, complete_with_body)

    def _fail(self, token: str) -> Response[str]:
        return self._settle(token, fail_with_body)

    def _beat(self, token: str) -> Response[str]:
        return self._settle(token, beat_with_body)

    def _settle(self, token: str, settle: Callable[[Runtime, str, bytes], CallbackAnswer]) -> Response[str]:
        event = self._app.current_event
        refusal = refusal_of(event, limit=self._runtime.limits.payload_bytes)
        if refusal is not None:
            return refusal
        try:
            settled = settle(self._runtime, token, body_of(event))
        except StorageError as error:
            _logger.warning("the store refused a callback: %s", error)
            return answer(503, {"message": "The result could not be stored. Repeat the request later."})
        return answer(STATUS[settled.verdict], settled.body)
