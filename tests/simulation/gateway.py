"""Requests through API Gateway: to the functions behind the management routes and behind the callbacks' addresses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from durably.aws import Surroundings, api_handler, callbacks_handler
from durably.client import Client
from durably.core.channels import Signal, Update
from durably.core.errors import (
    ClientError,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionNotFoundError,
    ResultTimeoutError,
    StorageError,
    UpdateFailedError,
    UpdateRejectedError,
)
from durably.core.failures import Failure
from durably.handles import Handle
from durably.runtime.callback_bodies import STATUS
from durably.runtime.callbacks import CallbackAnswer, Verdict
from durably.runtime.runtime import Runtime
from tests.aws.payloads import LambdaContext, answer_body, http_event
from tests.simulation import activities
from tests.simulation.conversing import HELLO
from tests.simulation.faults import Process
from tests.simulation.interpret import interpret
from tests.simulation.outside import REFUSED, Outsiders, Start, client_of

if TYPE_CHECKING:
    from tests.simulation.aws import AwsWorld

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
_ERRORS: dict[int, type[ClientError]] = {
    404: ExecutionNotFoundError,
    409: ExecutionExistsError,
    410: ExecutionClosedError,
}
_JSON = "application/json"
_VERDICTS: dict[int, Verdict] = {status: verdict for verdict, status in STATUS.items()}


class Gateway:
    """One execution environment of each function, which handles one request at a time; a second one is turned away.

    Args:
        world: in which they run.
        process: who asks, and what dies with the functions.
        surroundings: of the functions.
    """

    def __init__(self, world: AwsWorld, process: Process, surroundings: Surroundings) -> None:
        self._world = world
        self._process = process
        asked = [each for each in activities.ACTIVITIES if each.name.startswith("ask")]
        self._functions: dict[str, Callable[..., dict[str, Any]]] = {
            "executions": api_handler(interpret, surroundings=surroundings),
            "callbacks": callbacks_handler(*asked, surroundings=surroundings),
        }
        self._busy = False

    def request(self, method: str, *path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer.

        Raises:
            StorageError: nobody had time for it, or it is to be repeated.
        """
        if self._busy:
            raise StorageError("429: too many requests")
        self._busy = True
        self._world.faults.counts[f"http: {path[0]}"] += 1
        event = http_event(method, f"/{'/'.join(quote(part, safe='') for part in path)}", json.dumps(body), _JSON)
        try:
            with self._world.wire.used_by(self._process):
                answer = self._functions[path[0]](event, LambdaContext())
        finally:
            self._busy = False
        if answer["statusCode"] == 503:
            raise StorageError(answer["body"])
        return answer["statusCode"], answer_body(answer)


class HttpClient(Client):
    """The client of somebody who has nothing but HTTP: what the simulation asks of a client, as requests."""

    def __init__(self, runtime: Runtime, gateway: Gateway) -> None:
        super().__init__(runtime.backend, runtime.registry, runtime.clock, runtime.entropy)
        self._gateway = gateway

    def signal(self, execution_id: str, signal: Signal[T], payload: T, /, *, request_id: str | None = None) -> None:
        text = self.registry.codec.value(signal.payload_type).encode(payload)
        self._ask("POST", execution_id, "signals", signal.name, payload=json.loads(text), request_id=request_id)

    def update(
        self,
        execution_id: str,
        update: Update[A, R],
        payload: A,
        /,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> R:
        path = ("executions", execution_id, "updates", update.name)
        body = {"payload": payload, "request_id": request_id, "timeout": timeout}
        status, answer = self._gateway.request("POST", *path, body=body)
        if status == 202:
            raise ResultTimeoutError(answer["message"])
        if answer.get("outcome") in {"rejected", "failed"}:
            refusal = UpdateRejectedError if answer["outcome"] == "rejected" else UpdateFailedError
            raise refusal(execution_id, _failure(answer["failure"]))
        result: R = _kept(status, answer)["result"]
        return result

    def cancel(self, execution_id: str, reason: str = "cancelled by an operator") -> None:
        self._ask("POST", execution_id, "cancel", reason=reason)

    def suspend(
        self, execution_id: str, reason: str = "suspended by an operator", *, request_id: str | None = None
    ) -> None:
        self._ask("POST", execution_id, "suspend", reason=reason, request_id=request_id)

    def resume(
        self, execution_id: str, reason: str = "resumed by an operator", *, request_id: str | None = None
    ) -> None:
        self._ask("POST", execution_id, "resume", reason=reason, request_id=request_id)

    def terminate(self, execution_id: str, reason: str = "terminated by an operator") -> None:
        self._ask("POST", execution_id, "terminate", reason=reason)

    def retry(self, execution_id: str, reason: str = "retried by an operator", *, request_id: str | None = None) -> int:
        return int(self._ask("POST", execution_id, "retry", reason=reason, request_id=request_id)["run"])

    def reset(
        self,
        execution_id: str,
        to_event: int,
        reason: str = "reset by an operator",
        *,
        input_: str | None = None,
        request_id: str | None = None,
    ) -> int:
        input_given = None if input_ is None else json.loads(input_)
        body = {"reason": reason, "to_event": to_event, "input": input_given, "request_id": request_id}
        return int(self._ask("POST", execution_id, "reset", **body)["run"])

    def fork(
        self,
        execution_id: str,
        new_id: str,
        /,
        *,
        to_event: int = 1,
        input_: str | None = None,
        request_id: str | None = None,
    ) -> Handle[Any]:
        assert input_ is None
        path = (execution_id, "forks")
        self._ask("POST", *path, execution_id=new_id, to_event=to_event, request_id=request_id)
        return self.handle(new_id)

    def _ask(self, method: str, *path: str, **body: Any) -> dict[str, Any]:
        status, answer = self._gateway.request(method, "executions", *path, body=body)
        return _kept(status, answer)


class HttpOutsiders(Outsiders):
    """Clients and callback senders of whom every second one has nothing but HTTP."""

    world: AwsWorld

    def made_clients(self) -> list[Client]:
        direct, other = self.runtimes
        self.gateway = Gateway(self.world, self, self.world.surroundings(other.clock))
        return [client_of(direct), HttpClient(other, self.gateway)]

    def _started(self, runtime: Runtime, start: Start) -> bool:
        if runtime is self.runtimes[0]:
            return super()._started(runtime, start)
        body: dict[str, Any] = {
            "orchestrator": "interpret",
            "input": {"program": start.program, "done": "[]"},
            "id_reuse": start.id_reuse,
            "request_id": start.request_id,
        }
        if start.greeted:
            body["payload"] = activities.answer(0)
            answer = self.gateway.request("PUT", "executions", start.execution_id, "signals", HELLO.name, body=body)
        else:
            body["execution_id"] = start.execution_id
            answer = self.gateway.request("POST", "executions", body=body)
        started = _kept(*answer)
        return any(
            record.gen == started["gen"] and record.request_id == start.request_id
            for record in self.world.store.records()
        )

    def _completed(self, runtime: Runtime, token: str, value: str) -> CallbackAnswer:
        if runtime is self.runtimes[0]:
            return super()._completed(runtime, token, value)
        return self._called_back(token, body=json.loads(value))

    def _failed(self, runtime: Runtime, token: str) -> CallbackAnswer:
        if runtime is self.runtimes[0]:
            return super()._failed(runtime, token)
        return self._called_back(token, "failure", body={"type": REFUSED.type, "message": REFUSED.message})

    def _beaten(self, runtime: Runtime, token: str, details: str) -> CallbackAnswer:
        if runtime is self.runtimes[0]:
            return super()._beaten(runtime, token, details)
        return self._called_back(token, "heartbeat", body=json.loads(details))

    def _called_back(self, *path: str, body: Any) -> CallbackAnswer:
        status, answer = self.gateway.request("POST", "callbacks", *path, body=body)
        return CallbackAnswer(_VERDICTS[status], str(answer.get("message", "")), answer.get("cancelled"))


def _kept(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that was not refused."""
    if status >= 300:
        raise _ERRORS.get(status, ClientError)(str(answer["message"]))
    return answer


def _failure(view: dict[str, Any]) -> Failure:
    """The failure, as far as anybody asks what it is."""
    return Failure(type=view["type"], message=view["message"])
