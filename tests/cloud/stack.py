"""A deployed stack as its users and operators see it: over HTTP, and through AWS's own APIs."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.cloud.deployment import Deployment
from tests.cloud.emulator import REGION, Emulator

PATIENCE_S = 90.0
CLOSED = {"completed", "failed", "terminated"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: Any


def request(method: str, url: str, body: object = None, *, signed: bool = True) -> Answer:
    """One request to an API of the emulator, whose host name only it resolves. What is not bytes is sent as JSON."""
    address = urlsplit(url)
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    prepared = AWSRequest(method, url, {"Host": address.netloc, "Content-Type": "application/json"}, data)
    if signed:
        SigV4Auth(Credentials("test", "test"), "execute-api", REGION).add_auth(prepared)
    connection = HTTPConnection("127.0.0.1", address.port, timeout=30)
    try:
        path = address.path + (f"?{address.query}" if address.query else "")
        connection.request(method, path, data, dict(prepared.headers.items()))
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    try:
        return Answer(response.status, json.loads(text))
    except ValueError:
        return Answer(response.status, text)


def eventually(look: Callable[[], T], *, within: float = PATIENCE_S, what: str = "it to happen") -> T:
    """The first true value of `look`."""
    deadline = time.monotonic() + within
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within:g} s for {what}")
        time.sleep(0.2)


class Stack:
    """A stack that is up."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.emulator: Emulator = deployment.emulator
        self.outputs = deployment.outputs
        self.url = self.outputs["ApiUrl"]
        self.client = deployment.client

    def start(self, orchestrator: str, execution_id: str, **input_: object) -> None:
        """Start an execution; it must be accepted."""
        body = {"orchestrator": orchestrator, "execution_id": execution_id, "input": input_}
        answer = request("POST", f"{self.url}/executions", body)
        assert answer.status in {200, 201}, answer

    def terminate(self, execution_id: str) -> None:
        """End an execution, whatever its code does."""
        answer = request("POST", f"{self.url}/executions/{execution_id}/terminate", {"reason": "enough"})
        assert answer.status in {200, 202}, answer
        assert self.closed(execution_id)["status"] == "terminated"

    def show(self, execution_id: str) -> dict[str, Any]:
        """What the API tells about an execution."""
        answer = request("GET", f"{self.url}/executions/{execution_id}")
        assert answer.status == 200, answer
        shown: dict[str, Any] = answer.body
        return shown

    def history(self, execution_id: str) -> list[dict[str, Any]]:
        """All its events."""
        events: list[dict[str, Any]] = []
        after = None
        while True:
            query = "" if after is None else f"?after={after}"
            answer = request("GET", f"{self.url}/executions/{execution_id}/history{query}")
            assert answer.status == 200, answer
            events += answer.body["events"]
            after = answer.body.get("after")
            if after is None:
                return events

    def closed(self, execution_id: str, *, within: float = PATIENCE_S) -> dict[str, Any]:
        """Status, result and failure of an execution once it has ended."""

        def look() -> dict[str, Any] | None:
            answer = request("GET", f"{self.url}/executions/{execution_id}/result")
            return answer.body if answer.status == 200 and answer.body["status"] in CLOSED else None

        try:
            found = eventually(look, within=within, what=f"the end of {execution_id}")
        except TimeoutError as error:
            told = "\n".join(self.logs()[-40:])
            raise TimeoutError(f"{error}: {self.show(execution_id)}\n{told}") from None
        assert found is not None
        return found

    def result(self, execution_id: str, *, within: float = PATIENCE_S) -> Any:
        """Its result; it must have completed."""
        closed = self.closed(execution_id, within=within)
        assert closed["status"] == "completed", closed
        return closed["result"]

    def stalled(self, execution_id: str, *, within: float = PATIENCE_S) -> dict[str, Any]:
        """What the API tells about it once it is stalled."""

        def look() -> dict[str, Any] | None:
            shown = self.show(execution_id)
            return shown if shown["status"] == "stalled" else None

        found = eventually(look, within=within, what=f"{execution_id} to stall")
        assert found is not None
        return found

    def function(self, resource: str) -> str:
        """The name of a Lambda function, by its logical id."""
        names = [each["FunctionName"] for each in self.client("lambda").list_functions()["Functions"]]
        name: str = next(name for name in names if re.fullmatch(rf"{self.deployment.stack}-{resource}-\w+", name))
        return name

    def queue(self, resource: str) -> str:
        """The URL of a queue, by the logical id of its stack."""
        listed = self.client("sqs").list_queues(QueueNamePrefix=f"{self.deployment.stack}-{resource}-")["QueueUrls"]
        urls = [url for url in listed if "-Queue-" in url]
        assert len(urls) == 1, urls
        url: str = urls[0]
        return url

    def waiting(self, resource: str, state: str = "") -> int:
        """How many messages a queue holds that may be received, or are "Delayed" or "NotVisible"."""
        name = f"ApproximateNumberOfMessages{state}"
        found = self.client("sqs").get_queue_attributes(QueueUrl=self.queue(resource), AttributeNames=[name])
        return int(found["Attributes"][name])

    def kill(self, resource: str) -> int:
        """kill -9 every process that runs this function; how many there were."""
        processes = self.emulator.functions(self.function(resource))
        for process in processes:
            os.kill(process, signal.SIGKILL)
        return len(processes)

    def logs(self) -> list[str]:
        """What the functions logged, in order."""
        return [text for _, text in sorted(self._log_events())]

    def _log_events(self) -> Iterator[tuple[int, str]]:
        logs, group = self.client("logs"), self.outputs["Logs"]
        for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]:
            events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
            yield from ((each["timestamp"], each["message"]) for each in events)
