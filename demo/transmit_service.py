"""The other side of the story, in a process of its own: it knows routes, transmits packets, acknowledges some.

GET  /routes/next?packet=ID&failed=RouteA,RouteB&attempt=1    200 {"route": ...}, 503 network error, 404 none left
POST /transmissions {"packet": {...}, "callback_url": ...}    202; the acknowledgement goes to callback_url
GET  /transmissions                                           how many were submitted and what became of them
"""

from __future__ import annotations

import argparse
import heapq
import json
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

from demo.console import say
from demo.fate import PROVIDERS, Fate, next_provider
from demo.processes import end_with_parent

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.1
GIVE_UP_AFTER_S = 30.0


@dataclass(frozen=True, slots=True, order=True)
class Acknowledgement:
    """An acknowledgement on its way; `due_at` and `submitted_at` are seconds of the monotonic clock."""

    due_at: float
    callback_url: str
    packet_id: str
    provider: str
    submitted_at: float
    tries: int = 0

    def again(self, now: float) -> Acknowledgement:
        """The same one, a little later, twice as late each time."""
        pause = min(FIRST_PAUSE_S * 2**self.tries, LONGEST_PAUSE_S)
        return replace(self, due_at=now + pause, tries=self.tries + 1)


class TransmitService:
    """Takes packets, and calls back when their time has come.

    Attributes:
        fate: what happens to whom.
        counts: submitted, never (nobody will call back), pending, accepted, late, lost.
    """

    def __init__(self, fate: Fate, *, quiet: bool = False) -> None:
        self.fate = fate
        self.counts = Counter({"submitted": 0, "never": 0, "pending": 0, "accepted": 0, "late": 0, "lost": 0})
        self._quiet = quiet
        self._known: set[str] = set()
        self._due: list[Acknowledgement] = []
        self._changed = threading.Condition()
        self._closed = False
        self._senders = ThreadPoolExecutor(8, thread_name_prefix="acknowledge")
        threading.Thread(target=self._send_when_due, name="when-due", daemon=True).start()

    def submit(self, packet_id: str, provider: str, callback_url: str) -> None:
        """Transmit a packet. The same submission again, after a crash of the other side, is the same transmission."""
        now = time.monotonic()
        delay = self.fate.acknowledged_after(packet_id, provider)
        with self._changed:
            if callback_url in self._known:
                self._tell(f"{packet_id}: {provider} was asked again, and has it already")
                return
            self._known.add(callback_url)
            self.counts["submitted"] += 1
            if delay is None:
                self.counts["never"] += 1
                self._tell(f"{packet_id}: {provider} transmits and will forget to acknowledge")
                return
            self.counts["pending"] += 1
            heapq.heappush(self._due, Acknowledgement(now + delay, callback_url, packet_id, provider, now))
            self._changed.notify()
        self._tell(f"{packet_id}: {provider} transmits and will acknowledge after {delay:.2f} s")

    def close(self) -> None:
        """Acknowledge nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._senders.shutdown(cancel_futures=True)

    def _send_when_due(self) -> None:
        with self._changed:
            while not self._closed:
                wait_s = self._due[0].due_at - time.monotonic() if self._due else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                else:
                    self._senders.submit(self._send, heapq.heappop(self._due))

    def _send(self, acknowledgement: Acknowledgement) -> None:
        name = f"{acknowledgement.packet_id}: {acknowledgement.provider}'s acknowledgement"
        status, answer = post_json(acknowledgement.callback_url, {"delivered": True})
        now = time.monotonic()
        age = now - acknowledgement.submitted_at
        if status is None or status >= 500:
            if age < GIVE_UP_AFTER_S:
                if acknowledgement.tries == 0:
                    self._tell(f"{name} did not get through, repeating it ({answer})")
                with self._changed:
                    heapq.heappush(self._due, acknowledgement.again(now))
                    self._changed.notify()
                return
            outcome = "lost"
            self._tell(f"{name} never got through ({answer})")
        elif status == 200:
            outcome = "accepted"
            repeated = f", at try {acknowledgement.tries + 1}" if acknowledgement.tries else ""
            self._tell(f"{name} arrived after {age:.2f} s{repeated}")
        elif status == 410:
            outcome = "late"
            self._tell(f"{name} came too late, after {age:.2f} s: 410")
        else:
            outcome = "lost"
            say("service", f"{name} was refused: {status} {answer}")
        with self._changed:
            self.counts["pending"] -= 1
            self.counts[outcome] += 1

    def _tell(self, text: str) -> None:
        if not self._quiet:
            say("service", text)

    def next_route(self, packet_id: str, failed: list[str], attempt: int) -> tuple[int, dict[str, str]]:
        """Status and body of the answer to `GET /routes/next`."""
        if self.fate.network_fails(packet_id, failed, attempt):
            self._tell(f"{packet_id}: network error while being asked for a route, attempt {attempt}")
            return 503, {"message": "IO error: network disconnect"}
        provider = next_provider(failed)
        if provider is None:
            return 404, {"message": "no route provider is left"}
        return 200, {"route": provider}


def post_json(url: str, value: object) -> tuple[int | None, str]:
    """Status (None: nobody answered) and body of the answer to a POST."""
    request = Request(url, data=json.dumps(value).encode(), headers={"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode(errors="replace")
    except URLError as error:
        return None, str(error.reason)
    except OSError as error:  # the connection broke before the answer was complete
        return None, str(error) or type(error).__name__


class ServiceServer(ThreadingHTTPServer):
    """The service behind HTTP."""

    daemon_threads = True
    request_queue_size = 128  # every packet of a run may arrive at once

    def __init__(self, address: tuple[str, int], service: TransmitService) -> None:
        super().__init__(address, Handler)
        self.service = service

    def server_close(self) -> None:
        """Close the socket and the service."""
        super().server_close()
        self.service.close()

    @property
    def url(self) -> str:
        """Base address, without a trailing slash."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"


class Handler(BaseHTTPRequestHandler):
    """Requests in, calls of the service out."""

    server: ServiceServer

    def do_GET(self) -> None:  # the standard library's name
        """Answer /routes/next and /transmissions."""
        url = urlsplit(self.path)
        if url.path == "/transmissions":
            self._answer(200, dict(self.server.service.counts))
            return
        if url.path != "/routes/next":
            self._answer(404, {"message": f"nothing is at {url.path}"})
            return
        query = parse_qs(url.query, keep_blank_values=True)
        try:
            packet_id, failed, attempt = query["packet"][0], query["failed"][0], int(query["attempt"][0])
        except (KeyError, ValueError) as error:
            self._answer(400, {"message": f"packet, failed and attempt (a number) must be given: {error!r}"})
            return
        self._answer(*self.server.service.next_route(packet_id, failed.split(",") if failed else [], attempt))

    def do_POST(self) -> None:
        """Answer /transmissions."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/transmissions":
            self._answer(404, {"message": f"nothing is at {self.path}"})
            return
        try:
            submission = json.loads(body)
            packet, callback_url = submission["packet"], submission["callback_url"]
            packet_id, provider = packet["id"], packet["current_route_provider"]
            if provider not in PROVIDERS:
                raise ValueError(f"current_route_provider is {provider!r}")
        except (ValueError, KeyError, TypeError) as error:
            self._answer(
                400,
                {"message": f"packet (with a known current_route_provider) and callback_url must be given: {error!r}"},
            )
            return
        self.server.service.submit(packet_id, provider, callback_url)
        self._answer(202, {"message": "submitted"})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the service says what matters."""

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def arguments_of(fate: Fate, *, quiet: bool) -> list[str]:
    """The command line that gives a service this fate."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asdict(fate).items()]
    return [*options, "--quiet"] if quiet else options


def main() -> None:
    """Serve until told to end. The first line of standard output is the service's URL."""
    parser = argparse.ArgumentParser(description="The routing and transmit services of the demo.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="do not tell each packet's fate")
    for field, kind in (("seed", int), ("error-chance", float), ("callback-chance", float)):
        parser.add_argument(f"--{field}", type=kind, required=True)
    for field in ("max-delay", "deadline"):
        parser.add_argument(f"--{field}", type=float, required=True, metavar="SECONDS")
    options = vars(parser.parse_args())
    port, quiet = options.pop("port"), options.pop("quiet")
    server = ServiceServer(("127.0.0.1", port), TransmitService(Fate(**options), quiet=quiet))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    end_with_parent()
    print(server.url, flush=True)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    main()
