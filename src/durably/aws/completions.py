"""The routes that complete callback activities without their token: IAM says who may."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

from durably.api.registry import Registry
from durably.aws.requests import answer, body_of, refusal_of
from durably.aws.surroundings import Surroundings
from durably.ports.tokens import TokenClaims
from durably.runtime.by_id import awaited_item, claims_of
from durably.runtime.callback_bodies import STATUS, failure_in, json_of
from durably.runtime.callbacks import CallbackAnswer, beat_attempt, complete_attempt, fail_attempt
from durably.runtime.runtime import Essentials


def add_completions(
    app: APIGatewayHttpResolver, surroundings: Callable[[], Surroundings], registry: Callable[[], Registry]
) -> None:
    """Serve `POST /executions/{execution_id}/activities/{activity}/complete`, `/fail` and `/heartbeat`.

    Bodies and answers are those of a callback's address. `activity` is a number in the history, or an idempotency key.
    """
    completions = _Completions(app, surroundings, registry)
    app.post("/executions/<execution_id>/activities/<activity>/complete")(completions.complete)
    app.post("/executions/<execution_id>/activities/<activity>/fail")(completions.fail)
    app.post("/executions/<execution_id>/activities/<activity>/heartbeat")(completions.beat)


class _Completions:
    def __init__(
        self, app: APIGatewayHttpResolver, surroundings: Callable[[], Surroundings], registry: Callable[[], Registry]
    ) -> None:
        self._app = app
        self._surroundings = surroundings
        self._registry = registry

    def complete(self, execution_id: str, activity: str) -> Response[str]:
        return self._settle(
            execution_id, activity, lambda on, claims, body: complete_attempt(on, claims, json_of(body) or "null")
        )

    def fail(self, execution_id: str, activity: str) -> Response[str]:
        return self._settle(execution_id, activity, lambda on, claims, body: fail_attempt(on, claims, failure_in(body)))

    def beat(self, execution_id: str, activity: str) -> Response[str]:
        return self._settle(execution_id, activity, lambda on, claims, body: beat_attempt(on, claims, json_of(body)))

    def _settle(
        self, execution_id: str, activity: str, settle: Callable[[Essentials, TokenClaims, bytes], CallbackAnswer]
    ) -> Response[str]:
        event, of = self._app.current_event, self._surroundings()
        refusal = refusal_of(event, limit=of.limits.payload_bytes)
        if refusal is not None:
            return refusal
        on = Essentials(
            backend=of.backend, registry=self._registry(), clock=of.clock, entropy=of.entropy, limits=of.limits
        )
        item = awaited_item(on, unquote(execution_id), unquote(activity))
        settled = settle(on, claims_of(item), body_of(event))
        return answer(STATUS[settled.verdict], settled.body)
