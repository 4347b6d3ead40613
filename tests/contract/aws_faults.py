"""Trouble between boto and moto: answers that get lost, requests that do, services that refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import botocore_stubber

REFUSED = "refused_as_planned"


@dataclass
class Fault:
    """What befalls the next `times` HTTP requests of an operation."""

    operation: str
    kind: Literal["answer lost", "request lost", "refused"]
    times: int = 1
    code: str = "ThrottlingException"
    status: int = 400


class Died(BaseException):
    """The process ended here."""


@dataclass
class Faults:
    """Faults by their order; an operation without one works.

    Attributes:
        requests: how many were made since `die_at` was set.
        die_at: ends the process before (`False`) or after (`True`) the request with this number, from 1.
    """

    planned: list[Fault] = field(default_factory=list[Fault])
    requests: int = 0
    die_at: tuple[int, bool] | None = None

    def reset(self) -> None:
        self.planned.clear()
        self.requests, self.die_at = 0, None

    def plan(self, operation: str, kind: Any, times: int = 1, **more: Any) -> None:
        self.planned.append(Fault(operation, kind, times, **more))

    def observe(self, client: Any) -> None:
        client.meta.events.register_first("before-send", self._strike)

    def _strike(self, event_name: str, request: Any, **more: Any) -> Any:
        self.requests += 1
        if self.die_at is not None and self.requests == self.die_at[0]:
            if self.die_at[1]:
                botocore_stubber(event_name, request, **more)
            raise Died
        operation = event_name.rpartition(".")[2]
        fault = next((each for each in self.planned if each.operation == operation and each.times), None)
        if fault is None:
            return None
        fault.times -= 1
        if fault.kind == "request lost":
            raise EndpointConnectionError(endpoint_url=request.url)
        if fault.kind == "answer lost":
            botocore_stubber(event_name, request, **more)
            raise ReadTimeoutError(endpoint_url=request.url)
        setattr(request, REFUSED, True)  # botocore asks every handler, moto too
        body = json.dumps({"__type": fault.code, "message": "as planned"}).encode()
        return AWSResponse(request.url, fault.status, HTTPHeaders(), MockRawResponse(body))
