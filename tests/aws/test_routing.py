"""The packet-routing story through the real handlers: its services answer over HTTP, its callbacks come to the door."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from activities.routing import SERVICE_URL, get_route, transmit
from orchestrators.routing import route_packet
from tests.aws.driver import Cloud, deployed

PROVIDERS = ["RouteA", "RouteB", "RouteC", "RouteD"]


class Services(HTTPServer):
    """Routing and transmission. `broken` requests for a route fail first; `submitted` holds the callback addresses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.broken = 0
        self.submitted: list[tuple[str, str]] = []


class Answers(BaseHTTPRequestHandler):
    server: Services

    def do_GET(self) -> None:
        failed = parse_qs(urlsplit(self.path).query).get("failed", [""])[0].split(",")
        left = [provider for provider in PROVIDERS if provider not in failed]
        if self.server.broken:
            self.server.broken -= 1
            self._answer(503, {"message": "network disconnect"})
        else:
            self._answer(200, {"route": left[0]})

    def do_POST(self) -> None:
        submission = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.submitted.append((submission["packet"]["current_route_provider"], submission["callback_url"]))
        self._answer(202, {})

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    with Services() as services:
        thread = threading.Thread(target=services.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        monkeypatch.setenv(SERVICE_URL, f"http://127.0.0.1:{services.server_port}")
        yield services
        services.shutdown()
        thread.join()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with deployed([route_packet], [get_route, transmit]) as cloud:
        yield cloud


def start(cloud: Cloud) -> None:
    packet = {"id": "packet-1", "source": "+1", "destination": "+2", "contents": "SGVsbG8="}
    body = {"execution_id": "packet-1", "orchestrator": "route_packet", "input": {"request": {"packet": packet}}}
    assert cloud.http("api", "POST", "/executions", body)[0] == 201


def result(cloud: Cloud) -> dict[str, Any]:
    cloud.run(until=lambda: cloud.closed("packet-1"))
    status, answer = cloud.http("api", "GET", "/executions/packet-1/result")
    assert (status, answer["status"]) == (200, "completed")
    found: dict[str, Any] = answer["result"]
    return found


def test_the_second_route_delivers_after_network_errors_and_a_missed_deadline(cloud: Cloud, services: Services) -> None:
    services.broken = 2
    start(cloud)
    cloud.run(until=lambda: len(services.submitted) == 2)  # the first was never acknowledged
    late, url = services.submitted[0][1], services.submitted[1][1]

    assert cloud.call_back(late, {"delivered": True})[0] == 410
    assert cloud.call_back(url, {"delivered": "perhaps"})[0] == 400
    assert cloud.call_back(url, {"delivered": True})[0] == 200
    packet = result(cloud)
    assert (packet["status"], packet["failed_route_providers"], packet["current_route_provider"]) == (
        "DELIVERED",
        ["RouteA"],
        "RouteB",
    )


def test_a_packet_is_given_up_when_no_route_delivers(cloud: Cloud, services: Services) -> None:
    start(cloud)
    for n in range(4):
        cloud.run(until=lambda n=n: len(services.submitted) > n)  # type: ignore[misc]
        assert cloud.call_back(services.submitted[n][1], {"delivered": False})[0] == 200

    packet = result(cloud)
    assert (packet["status"], packet["failed_route_providers"]) == ("FAILED", PROVIDERS)


def test_a_packet_fails_when_no_route_can_be_found(cloud: Cloud, services: Services) -> None:
    services.broken = 3
    start(cloud)

    assert result(cloud)["status"] == "FAILED"
    assert services.submitted == []
