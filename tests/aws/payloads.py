"""What a function is given: the time, chance, a Lambda context, and payloads in the shape that AWS gives them."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import md5
from random import Random
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

REGION, ACCOUNT = "eu-central-1", "123456789012"
START_MS = 1_800_000_000_000
EVENTS, DELAY, ACTIVITIES = "events.fifo", "delay", "activities"
SOURCES = {"events-dead.fifo": EVENTS, "activities-dead": ACTIVITIES, "delay-dead": DELAY}


class ManualClock:
    """The time of everything: of the handlers, and of moto's queues."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)

    def utcnow(self) -> datetime:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.ms)).replace(tzinfo=None)


class SeededEntropy:
    """The same every time, so that a test that fails fails again."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def ulid(self, now_ms: int) -> str:
        return f"{now_ms:013d}{self._random.getrandbits(52):013X}"

    def nonce(self) -> str:
        return f"{self._random.getrandbits(96):024x}"

    def seed(self) -> int:
        return self._random.getrandbits(63)

    def draw(self) -> float:
        return self._random.random()


class LambdaContext:
    """What Lambda hands over beside the event."""

    function_name = "function"
    memory_limit_in_mb = 512
    invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:function"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def __init__(self, remaining_ms: Callable[[], int] = lambda: 10_000) -> None:
        self._remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._remaining_ms()


def answer_body(answer: dict[str, Any]) -> dict[str, Any]:
    """The JSON that a handler answered with."""
    raw = base64.b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer["body"].encode()
    headers = {name.lower(): value for name, value in answer.get("headers", {}).items()}
    value: dict[str, Any] = json.loads(gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw)
    return value


def record_of(queue: str, message: dict[str, Any]) -> dict[str, Any]:
    """A received message as Lambda shows it (AWS docs, "Using Lambda with Amazon SQS")."""
    attributes: dict[str, Any] = dict(message["Attributes"])
    if queue in SOURCES:  # moto leaves it out
        attributes["DeadLetterQueueSourceArn"] = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{SOURCES[queue]}"
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": attributes,
        "messageAttributes": {
            name: {
                "stringValue": value.get("StringValue"),
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": md5(message["Body"].encode(), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}",
        "awsRegion": REGION,
    }


_ROUTES = (
    "POST /callbacks/{token}/failure",
    "POST /callbacks/{token}/heartbeat",
    "POST /callbacks/{token}",
    "GET /executions/{execution_id}/result",
    "GET /executions/{execution_id}/history",
    "POST /executions/{execution_id}/signals/{name}",
    "PUT /executions/{execution_id}/signals/{name}",
    "POST /executions/{execution_id}/updates/{name}",
    "GET /executions/{execution_id}/queries/{name}",
    "POST /executions/{execution_id}/cancel",
    "POST /executions/{execution_id}/suspend",
    "POST /executions/{execution_id}/resume",
    "POST /executions/{execution_id}/terminate",
    "POST /executions/{execution_id}/retry",
    "POST /executions/{execution_id}/reset",
    "POST /executions/{execution_id}/forks",
    "POST /executions/{execution_id}/activities/{activity}/complete",
    "POST /executions/{execution_id}/activities/{activity}/fail",
    "POST /executions/{execution_id}/activities/{activity}/heartbeat",
    "GET /openapi.json",
    "GET /executions/{execution_id}",
    "POST /executions",
    "GET /executions",
)


def http_event(
    method: str,
    path: str,
    body: str | bytes | None,
    content_type: str | None,
    *,
    encoded: bool = False,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """A request as API Gateway's HTTP APIs hand it over, payload format 2.0; `encoded` as for binary bodies."""
    parts = urlsplit(path)
    sent = {"host": "api.example.com", "user-agent": "curl/8.5.0", **(headers or {})}
    if content_type is not None:
        sent["content-type"] = content_type
    route, parameters = "$default", dict[str, str]()
    for each in _ROUTES:
        verb, _, template = each.partition(" ")
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template), parts.path)
        if verb == method and found is not None:
            route, parameters = each, {name: unquote(value) for name, value in found.groupdict().items()}
            break
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": unquote(parts.path),
        "rawQueryString": parts.query,
        "headers": sent,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "api",
            "domainName": "api.example.com",
            "domainPrefix": "api",
            "http": {
                "method": method,
                "path": unquote(parts.path),
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": route,
            "stage": "$default",
            "time": "21/Nov/2026:08:00:00 +0000",
            "timeEpoch": START_MS,
        },
        "isBase64Encoded": encoded or isinstance(body, bytes),
    }
    if parts.query:
        event["queryStringParameters"] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parameters:
        event["pathParameters"] = parameters
    if body is not None:
        raw = body if isinstance(body, bytes) else body.encode()
        event["body"] = base64.b64encode(raw).decode() if event["isBase64Encoded"] else raw.decode()
    return event
