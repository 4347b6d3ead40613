"""The callback door over HTTP, on the standard library's server: POST a result, get a true answer (P7)."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from durably.core.errors import StorageError
from durably.runtime.callback_bodies import STATUS, beat_with_body, complete_with_body, fail_with_body
from durably.runtime.runtime import Runtime

_logger = logging.getLogger("durably.http")

_SILENCE_S = 10.0
_BODY_S = 30.0
_CONNECTIONS = 256
_DISCARD_BYTES = 64 * 1024 * 1024
_DIGITS = 18
_STOP_POLL_S = 0.05
_STOP_S = 5.0
_ELSEWHERE = "There is nothing here. Callbacks are posted to /callbacks/{token}."


class CallbackServer:
    """Serves `POST /callbacks/{token}`, the same with `/failure` and `/heartbeat`, and `GET /health`.

    Args:
        address: host and port; port 0 takes a free one.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._server = _Server(address)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_POLL_S,), name="durably-http", daemon=True
        )

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self, runtime: Runtime, poke: Callable[[], None]) -> None:
        """Begin to serve. `poke` is called after each accepted callback."""
        self._server.runtime = runtime
        self._server.poke = poke
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, and wait for the callbacks that are being stored to be answered."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.wait_until_answered(_STOP_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    runtime: Runtime
    poke: Callable[[], None]

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self._changed = threading.Condition()
        self._connections = 0
        self._answering = 0

    @contextmanager
    def answering(self) -> Generator[None]:
        """Within, a callback is being handled, which `wait_until_answered` waits for."""
        with self._changed:
            self._answering += 1
        try:
            yield
        finally:
            with self._changed:
                self._answering -= 1
                self._changed.notify_all()

    def wait_until_answered(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._answering, seconds)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = self._connections >= _CONNECTIONS
            self._connections += not full
        if full:  # the sender repeats it: whoever holds the others open must not take the memory, too
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._connections -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the base class's signature
        """To the log; a client that went away is no news."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            _logger.debug("a client went away: %s", error)
        else:
            _logger.error("a request could not be handled", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "durably"
    timeout = _SILENCE_S

    @property
    def _durably(self) -> _Server:
        return cast(_Server, self.server)

    def do_GET(self) -> None:  # the standard library's name
        if self.path == "/health":
            self._answer(200, "ok")
        elif self.path.startswith("/callbacks/"):
            self.send_error(405)
        else:
            self._answer(404, _ELSEWHERE)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        if not path.startswith("/callbacks/"):
            self.close_connection = True
            self._answer(404, _ELSEWHERE)
            return
        body = self._body()
        if body is not None:
            with self._durably.answering():
                self._answer_with(*self._handle(path.removeprefix("/callbacks/"), body))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the standard library refuses is refused in our form, too."""
        self.close_connection = True
        self.request_version = self.protocol_version  # of a malformed request: unknown, and answered without a head
        if code in (405, 501):
            self._answer(405, f"{self.command} is not for callbacks; they are posted to /callbacks/{{token}}.")
        else:
            self._answer(code, f"{message or HTTPStatus(code).phrase}.")

    def _handle(self, path: str, body: bytes) -> tuple[int, Mapping[str, object]]:
        """Status and body."""
        runtime = self._durably.runtime
        token, slash, action = path.partition("/")
        try:
            if not slash:
                answer = complete_with_body(runtime, token, body)
            elif action == "failure":
                answer = fail_with_body(runtime, token, body)
            elif action == "heartbeat":
                answer = beat_with_body(runtime, token, body)
            else:
                return 404, _said(f"A callback has no action {action!r}; there are none, /failure and /heartbeat.")
        except StorageError as error:
            _logger.warning("the store refused a callback: %s", error)
            return 503, _said("The result could not be stored. Repeat the request later.")
        except Exception:
            _logger.exception("a callback could not be handled")
            return 500, _said("The callback could not be handled; the log of the runtime says why. Repeat it later.")
        if answer.verdict == "accepted" and action != "heartbeat":
            self._durably.poke()
        return STATUS[answer.verdict], answer.body

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ARG002  # the base class's signature
        """To the log, without the token."""
        _logger.debug("%s %s", self.command, args[1] if len(args) > 1 else "")

    def _body(self) -> bytes | None:
        """The request's body, or None after having answered why not."""
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) <= _DIGITS else None
        refusal = self._refusal(length, size)
        if refusal is not None or size is None:
            self.close_connection = True
            self._answer(*(refusal or (411, "")))
            self._discard(_DISCARD_BYTES if size is None else size)
            return None
        body = bytearray()
        deadline = time.monotonic() + _BODY_S
        try:
            while len(body) < size and (piece := self.rfile.read1(size - len(body))):
                body += piece
                if time.monotonic() > deadline:
                    raise TimeoutError
        except TimeoutError:
            self.close_connection = True
            self._answer(408, f"Only {len(body)} of {size} bytes of the body arrived in time. Repeat the request.")
            return None
        if len(body) < size:  # half of a number is a number, too
            self.close_connection = True
            self._answer(400, f"The body ended after {len(body)} of {size} bytes.")
            return None
        return bytes(body)

    def _refusal(self, length: str, size: int | None) -> tuple[int, str] | None:
        """Status and message for a request whose body is not worth reading."""
        limit = self._durably.runtime.limits.payload_bytes
        kind = self.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if kind != "application/json":
            return 415, f"Content-Type is {kind}; a callback's body is application/json."
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            return 411, "Content-Length is missing or not a number; a callback's body is not chunked."
        if size is None or size > limit:
            return 413, f"The body has {length[:_DIGITS]} bytes, more than {limit}."
        return None

    def _discard(self, unread: int) -> None:
        """Read what is still being sent: closing the socket before would take the answer away from the sender."""
        left = min(unread, _DISCARD_BYTES)
        deadline = time.monotonic() + _BODY_S
        with suppress(OSError):
            while left > 0 and time.monotonic() < deadline and (piece := self.rfile.read1(min(left, 65536))):
                left -= len(piece)

    def _answer(self, status: int, message: str) -> None:
        self._answer_with(status, _said(message))

    def _answer_with(self, status: int, value: Mapping[str, object]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 405:
            self.send_header("Allow", "POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _said(message: str) -> dict[str, object]:
    return {"message": message}
