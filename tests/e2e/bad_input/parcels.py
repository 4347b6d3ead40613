"""What the tests of bad input run, and how they look at what is stored."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from durably import (
    Activity,
    ActivityError,
    Callback,
    Context,
    Orchestrator,
    RetryPolicy,
    activity,
    callback_activity,
    orchestrator,
)
from durably.embedded import Embedded

SRC = Path(__file__).parents[3] / "src"
ONCE = RetryPolicy(max_attempts=1)
MEGABYTE = 1024 * 1024
SOON_S = 10.0

urls: dict[str, str] = {}


@dataclass
class Parcel:
    weight: int
    label: str = ""


@activity(retry=ONCE)
def double(number: int) -> int:
    return 2 * number


@activity(retry=ONCE)
def unserialisable() -> Any:
    return threading.Lock()


@activity(retry=ONCE)
def wrong_type() -> int:
    return "seven"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@activity(retry=ONCE)
def huge() -> str:
    return "x" * (10 * MEGABYTE)


@callback_activity
def weigh(callback: Callback[Parcel], key: str) -> None:
    urls[key] = callback.url


@callback_activity(timeout=timedelta(milliseconds=100))
def weigh_soon(callback: Callback[Parcel], key: str) -> None:
    urls[key] = callback.url


@orchestrator
async def doubled(ctx: Context, number: int) -> int:
    return await double(number)


@orchestrator
async def weighed(ctx: Context, key: str) -> int:
    return (await weigh(key)).weight


@orchestrator
async def weighed_late(ctx: Context, key: str) -> str:
    try:
        await weigh_soon(key)
    except ActivityError as error:
        await weigh(f"{key} again")
        return error.failure.message
    return "in time"


@orchestrator
async def told(ctx: Context, which: str) -> str:
    try:
        await {"unserialisable": unserialisable, "wrong type": wrong_type, "huge": huge}[which]()
    except ActivityError as error:
        return str(error.failure)
    return "nothing was wrong"


@orchestrator
async def returns_nonsense(ctx: Context) -> int:
    return "seven"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@orchestrator
async def unregistered(ctx: Context) -> None:
    pass


ORCHESTRATORS: list[Orchestrator[..., Any]] = [doubled, weighed, weighed_late, told, returns_nonsense]
ACTIVITIES: list[Activity[..., Any]] = [double, unserialisable, wrong_type, huge, weigh, weigh_soon]


def embedded(path: Path, **options: Any) -> Embedded:
    return Embedded(path, orchestrators=ORCHESTRATORS, activities=ACTIVITIES, synchronous="OFF", **options)


def url_of(key: str) -> str:
    eventually(lambda: key in urls)
    return urls[key]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def everything(runtime: Embedded) -> list[Any]:
    """All that is stored, as its reader sees it."""
    client = runtime.client
    return [(record, client.history(record.execution_id)) for record in client.list()]


def post(
    url: str, body: bytes | str = b"", *, headers: dict[str, str] | None = None, length: int | None = -1
) -> tuple[int, str]:
    """Status and message. `length` is what Content-Length says, -1 for the truth, None for none."""
    parts = urlsplit(url)
    raw = body.encode() if isinstance(body, str) else body
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=SOON_S)
    try:
        connection.putrequest("POST", parts.path)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            connection.putheader(name, value)
        if length is not None:
            connection.putheader("Content-Length", str(len(raw) if length == -1 else length))
        connection.endheaders()
        connection.send(raw)
        if length is None:
            assert connection.sock is not None
            connection.sock.shutdown(1)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["message"]
    finally:
        connection.close()
