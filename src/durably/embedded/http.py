"""The callback door over HTTP, on the standard library's server: POST a result, get a true answer (P7)."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from durably.core.errors import StorageError
from durably.core.failures import Failure
from durably.runtime.callbacks import CallbackAnswer, Verdict, complete_callback, fail_callback
from durably.runtime.runtime import Runtime

_logger = logging.getLogger("durably.http")

STATUS: dict[Verdict, int] = {
    "accepted": 200,
    "invalid": 400,
    "unauthorised": 401,
    "conflict": 409,
    "gone": 410,
    "too large": 413,
}
_SOCKET_TIMEOUT_S = 10.0
_DISCARD_BYTES = 64 * 1024 * 1024
_STOP_POLL_S = 0.05


class CallbackServer:
    """Serves `POST /callbacks/{token}`, `POST /callbacks/{token}/failure` and `GET /health`.

    Args:
        address: host and port; port 0 takes a free one.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._server = _Server(address, _Handler)
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
        """Stop serving and close the socket."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    runtime: Runtime
    poke: Callable[[], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "durably"
    timeout = _SOCKET_TIMEOUT_S

    @property
    def _durably(self) -> _Server:
        return cast(_Server, self.server)

    def do_GET(self) -> None:  # the standard library's name
        if self.path == "/health":
            self._answer(200, "ok")
        else:
            self._answer(404, "There is nothing here. Callbacks are posted to /callbacks/{token}.")

    def do_POST(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/callbacks/")
        if path == self.path.partition("?")[0]:
            self.close_connection = True
            self._answer(404, "There is nothing here. Callbacks are posted to /callbacks/{token}.")
            return
        body = self._body()
        if body is None:
            return
        runtime = self._durably.runtime
        token, slash, action = path.partition("/")
        try:
            if not slash:
                answer = _complete(runtime, token, body)
            elif action == "failure":
                answer = _fail(runtime, token, body)
            else:
                self._answer(404, f"A callback has no action {action!r}; there are none and /failure.")
                return
        except StorageError as error:
            _logger.warning("the store refused a callback: %s", error)
            self._answer(503, "The result could not be stored. Repeat the request later.")
            return
        if answer.verdict == "accepted":
            self._durably.poke()
        self._answer(STATUS[answer.verdict], answer.message)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ARG002  # the base class's signature
        """To the log, without the token."""
        _logger.debug("%s %s", self.command, args[1] if len(args) > 1 else "")

    def _body(self) -> bytes | None:
        """The request's body, or None after having answered why not."""
        runtime = self._durably.runtime
        kind = self.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        length = self.headers.get("Content-Length")
        refusal: tuple[int, str] | None = None
        if kind != "application/json":
            refusal = (415, f"Content-Type is {kind}; a callback's body is application/json.")
        elif length is None or not length.isdecimal():
            refusal = (411, "Content-Length is missing or not a number; a callback's body is not chunked.")
        elif int(length) > runtime.limits.payload_bytes:
            refusal = (413, f"The body has {length} bytes, more than {runtime.limits.payload_bytes}.")
        if refusal is not None or length is None:
            self.close_connection = True
            self._answer(*(refusal or (411, "")))
            self._discard(int(length) if length is not None and length.isdecimal() else _DISCARD_BYTES)
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # half of a number is a number, too
            self.close_connection = True
            self._answer(400, f"The body ended after {len(body)} of {length} bytes.")
            return None
        return body

    def _discard(self, unread: int) -> None:
        """Read what is still being sent: closing the socket before would take the answer away from the sender."""
        left = min(unread, _DISCARD_BYTES)
        while left > 0:
            piece = self.rfile.read1(min(left, 65536))
            if not piece:
                return
            left -= len(piece)

    def _answer(self, status: int, message: str) -> None:
        body = json.dumps({"message": message}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _complete(runtime: Runtime, token: str, body: bytes) -> CallbackAnswer:
    try:
        value = json.loads(body, parse_constant=_refuse_constant) if body.strip() else None
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        return CallbackAnswer("invalid", f"The body is not JSON that can be stored: {error}.")
    return complete_callback(runtime, token, text)


def _fail(runtime: Runtime, token: str, body: bytes) -> CallbackAnswer:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        return CallbackAnswer("invalid", f"The body is not JSON: {error}.")
    if not isinstance(value, dict):
        return CallbackAnswer("invalid", 'The body must be an object: {"type": "...", "message": "..."}.')
    fields = cast("dict[str, Any]", value)
    unknown = sorted(set(fields) - {"type", "message", "non_retryable"})
    if unknown:
        return CallbackAnswer("invalid", f"Unknown field {unknown[0]!r}; there are type, message and non_retryable.")
    kind, message = fields.get("type", "CallbackFailed"), fields.get("message", "")
    final = fields.get("non_retryable", False)
    for name, given, wanted in (("type", kind, str), ("message", message, str), ("non_retryable", final, bool)):
        if not isinstance(given, wanted):
            return CallbackAnswer("invalid", f"{name} must be a {wanted.__name__}, got {type(given).__name__}.")
    return fail_callback(runtime, token, Failure(type=kind, message=message, non_retryable=True if final else None))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
