"""The callback door: what is no callback is refused in one form, and nobody who comes slowly holds it shut."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest

from durably.core.errors import StorageError, TokenError
from durably.embedded import http
from durably.embedded.http import CallbackServer
from durably.ports.tokens import TokenSigner
from durably.runtime.runtime import Limits, Runtime
from tests.unit.embedded.waiting import eventually

SOON_S = 10.0


@pytest.fixture
def runtime() -> Mock:
    """One to which no token is good."""
    runtime = Mock(spec=Runtime)
    runtime.limits = Limits(payload_bytes=1000)
    runtime.signer = Mock(spec=TokenSigner)
    runtime.signer.verify.side_effect = TokenError("unknown")
    return runtime


@contextmanager
def serving(runtime: Runtime) -> Generator[CallbackServer]:
    server = CallbackServer(("127.0.0.1", 0))
    server.start(runtime, lambda: None)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(runtime: Mock) -> Iterator[CallbackServer]:
    with serving(runtime) as running:
        yield running


def connect(server: CallbackServer) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOON_S)


def rest(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def answer(server: CallbackServer, request: str) -> tuple[int, str, str]:
    """Status, head and message of the answer to a raw request whose sender then sends no more."""
    with connect(server) as connection:
        connection.sendall(request.encode())
        connection.shutdown(socket.SHUT_WR)
        head, _, body = rest(connection).decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, json.loads(body)["message"] if body else ""


def post(**headers: str) -> str:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return "".join(["POST /callbacks/token HTTP/1.1\r\nHost: x\r\n", *lines, "\r\n"])


def test_it_says_that_it_is_well(server: CallbackServer) -> None:
    assert answer(server, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")[::2] == (200, "ok")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_refused_and_the_right_one_named(server: CallbackServer, method: str) -> None:
    status, head, message = answer(server, f"{method} /callbacks/token HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 405
    assert "\r\nAllow: POST\r\n" in head
    assert message == f"{method} is not for callbacks; they are posted to /callbacks/{{token}}."


def test_a_head_request_is_answered_without_a_body(server: CallbackServer) -> None:
    status, _, message = answer(server, "HEAD /callbacks/token HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, message) == (405, "")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("nonsense\r\n\r\n", 400),
        ("POST /callbacks/token HTTP/one\r\n\r\n", 400),
        (f"POST /callbacks/{'x' * 70_000} HTTP/1.1\r\n\r\n", 414),
        (post(Content_Length="0", X=f"{'x' * 70_000}"), 431),
        (post(), 411),
        (post(Content_Length="many"), 411),
        (post(Content_Length="-1"), 411),
        (post(Content_Length="2", Transfer_Encoding="chunked"), 411),
        (post(Content_Length="1001"), 413),
        (post(Content_Length="9" * 5_000), 413),
        (post(Content_Length="2", Content_Type="application/x-www-form-urlencoded"), 415),
        (post(Content_Length="2") + "{", 400),
        (post(Content_Length="2", Content_Type="application/json; charset=utf-8") + "{}", 401),
        (post(Content_Length="2") + "{}", 401),
    ],
    ids=lambda value: value if isinstance(value, int) else value[:40].splitlines()[0],
)
def test_a_request_that_is_wrong_is_answered_in_json_with_its_status(
    server: CallbackServer, request_: str, status: int
) -> None:
    got, head, message = answer(server, request_)
    assert got == status
    assert "\r\nContent-Type: application/json\r\n" in head
    assert message.endswith(".")


def test_a_body_that_comes_too_slowly_is_given_up(server: CallbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_BODY_S", 0.2)
    ended = threading.Event()
    with connect(server) as connection:
        connection.sendall(post(Content_Length="1000").encode())

        def drip() -> None:
            while not ended.wait(0.02):
                connection.sendall(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        head = connection.recv(65536)
        ended.set()
        dripping.join()
    assert head.startswith(b"HTTP/1.1 408 ")


def test_more_connections_than_it_takes_are_closed_and_taken_again_later(
    server: CallbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_CONNECTIONS", 3)
    held = [connect(server) for _ in range(3)]
    for connection in held:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    with connect(server) as another:
        assert another.recv(65536) == b""
    for connection in held:
        connection.close()

    def taken() -> bool:
        try:
            return answer(server, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
        except (OSError, IndexError):
            return False

    eventually(taken)


@pytest.mark.parametrize(("error", "status"), [(StorageError("full"), 503), (RuntimeError("a bug"), 500)])
def test_what_goes_wrong_inside_is_said_to_be_repeatable(
    runtime: Mock, server: CallbackServer, error: Exception, status: int
) -> None:
    runtime.signer.verify.side_effect = error
    got, _, message = answer(server, post(Content_Length="2") + "{}")
    assert got == status
    assert "Repeat" in message
    runtime.signer.verify.side_effect = TokenError("unknown")
    assert answer(server, post(Content_Length="2") + "{}")[0] == 401


def test_stopping_waits_for_the_callback_that_is_being_stored(runtime: Mock) -> None:
    entered, release = threading.Event(), threading.Event()

    def verify(token: str) -> None:
        entered.set()
        assert release.wait(SOON_S)
        raise TokenError(token)

    runtime.signer.verify.side_effect = verify
    with serving(runtime) as server, connect(server) as connection:
        connection.sendall((post(Content_Length="2") + "{}").encode())
        assert entered.wait(SOON_S)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        release.set()
        stopping.join(SOON_S)
        assert not stopping.is_alive()
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
