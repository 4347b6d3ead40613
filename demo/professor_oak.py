"""Professor Oak's server, in a process of its own. GET /hello answers 200 with a greeting."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from demo.console import say
from demo.processes import end_with_parent

GREETING = "Hello there! My name is Oak. People call me the Pokemon Professor!"


class Handler(BaseHTTPRequestHandler):
    """Says hello."""

    def do_GET(self) -> None:  # the standard library's name
        """Answer /hello."""
        known = self.path == "/hello"
        body = (GREETING if known else f"nothing is at {self.path}").encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        say("oak", f"was asked for {self.path}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line about each request is enough."""


def main() -> None:
    """Serve until told to end. The first line of standard output is the server's URL."""
    parser = argparse.ArgumentParser(description="The server of the greetings story.")
    parser.add_argument("--socket", type=int, required=True, metavar="FD", help="inherited, bound to an address")
    options = parser.parse_args()
    with socket.socket(fileno=options.socket) as bound:
        address = bound.getsockname()[:2]
        server = HTTPServer(address, Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = bound
        server.server_activate()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        end_with_parent()
        print(f"http://{address[0]}:{address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
