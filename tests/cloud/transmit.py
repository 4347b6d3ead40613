"""The other side of the routing story, in this process: tests decide what it does with whom."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from demo.fate import next_provider


class TransmitService:
    """Knows routes, and remembers whom to call back.

    Attributes:
        callbacks: addresses submitted, by packet, in order.
        failures: how many requests for a route fail first, by packet.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.callbacks: dict[str, list[str]] = {}
        self.failures: dict[str, int] = {}
        self._server = _Server((host, 0), _Handler)
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Its address."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: TransmitService


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        packet, failed = query["packet"][0], query["failed"][0]
        if self.server.service.failures.get(packet, 0) > 0:
            self.server.service.failures[packet] -= 1
            self._answer(503, {"message": "network error"})
            return
        provider = next_provider(failed.split(",") if failed else [])
        self._answer(404 if provider is None else 200, {"route": provider})

    def do_POST(self) -> None:
        submission = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.service.callbacks.setdefault(submission["packet"]["id"], []).append(submission["callback_url"])
        self._answer(202, {})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
