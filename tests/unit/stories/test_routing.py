"""The packet-routing story piece by piece: the orchestrator by hand, the activities against a real service."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from activities.routing import SERVICE_URL, Delivery, Packet, PacketStatus, get_route, transmit
from demo.fate import IN_TIME, LATE, PROVIDERS, Fate, next_provider
from demo.transmit_service import ServiceServer, TransmitService
from durably import AttemptInfo, Callback, NonRetryableError
from durably.api.attempt import current_attempt
from durably.codec.payloads import PydanticCodec
from durably.core.commands import CompleteExecution, ScheduleActivity
from durably.core.events import ActivityCompleted, ActivityFailed, ExecutionStarted, InboundEvent
from durably.core.execution import Execution
from durably.core.failures import failure_of
from durably.core.keys import RunKey
from durably.core.options import ActivityOptions
from orchestrators.routing import RoutingRequest, route_packet

EVENT = Path(__file__).parents[3] / "events/packet_routing.json"
CODEC = PydanticCodec("always")
PACKET = Packet(id="packet-1", source="+017771110000", destination="+016660002222", contents=b"Hello")
ARGUMENTS = {
    "get_route": get_route.arguments_shape(CODEC),
    "transmit": transmit.arguments_shape(CODEC),
}
TOO_LATE = TimeoutError("no acknowledgement")

# --- the orchestrator ------------------------------------------------------------------------------------


class Story:
    """One execution of `route_packet`, told what its activities answer.

    Attributes:
        asked: names and arguments of the activities asked for so far.
        options: of the one asked for last.
        packet: what came out, None until then.
    """

    def __init__(self, **request: Any) -> None:
        program = route_packet.program(CODEC)
        self._execution = Execution(RunKey("packet-1", "01HF", 1), program, CODEC)
        self._seq = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.options = ActivityOptions()
        self.packet: Packet | None = None
        wanted = RoutingRequest(packet=PACKET.model_copy(deep=True), **request)
        arguments = route_packet.arguments_shape(CODEC).encode((wanted,), {})
        self._apply(ExecutionStarted(orchestrator="route_packet", input=arguments, seed=7, python="3.11", at_ms=1))

    def route(self, answer: str | Exception) -> None:
        """`get_route` answers."""
        self._answer("get_route", answer if isinstance(answer, Exception) else CODEC.value(str).encode(answer))

    def acknowledge(self, answer: Exception | None = None, *, delivered: bool = True) -> None:
        """`transmit` ends."""
        self._answer("transmit", answer or CODEC.value(Delivery).encode(Delivery(delivered=delivered)))

    def close(self) -> None:
        self._execution.close()

    def _answer(self, name: str, answer: str | Exception) -> None:
        assert self.asked[-1][0] == name
        if isinstance(answer, str):
            self._apply(ActivityCompleted(seq=self._seq, result=answer, at_ms=1))
        else:
            self._apply(ActivityFailed(seq=self._seq, failure=failure_of(answer), attempt=1, at_ms=1))

    def _apply(self, event: InboundEvent) -> None:
        (command,) = self._execution.apply(event)
        match command:
            case ScheduleActivity():
                self._seq = command.seq
                self.options = command.options or ActivityOptions()
                self.asked.append((command.name, ARGUMENTS[command.name].decode(command.input)[1]))
            case CompleteExecution():
                self.packet = CODEC.result(route_packet.fn).decode(command.result)
            case _:
                raise AssertionError(f"the orchestrator asked for {command}")


@pytest.fixture
def start() -> Iterator[Callable[..., Story]]:
    with ExitStack() as stories:
        yield lambda **request: stories.enter_context(closing(Story(**request)))


def test_a_packet_is_delivered_by_the_first_route_that_acknowledges(start: Callable[..., Story]) -> None:
    story = start()
    story.route("RouteA")
    story.acknowledge()

    assert story.packet == PACKET.model_copy(
        update={"current_route_provider": "RouteA", "status": PacketStatus.DELIVERED}
    )


@pytest.mark.parametrize("bad", [{"answer": TOO_LATE}, {"delivered": False}], ids=["late or missing", "not delivered"])
def test_the_next_route_is_tried_when_one_does_not_deliver(bad: dict[str, Any], start: Callable[..., Story]) -> None:
    story = start(get_route_max_attempts=1, transmit_max_attempts=2)
    story.route("bad route")
    story.acknowledge(**bad)
    story.route("good route")
    story.acknowledge()

    assert story.packet is not None
    assert story.packet.failed_route_providers == ["bad route"]
    assert story.packet.current_route_provider == "good route"
    assert story.packet.status is PacketStatus.DELIVERED


def test_each_search_for_a_route_knows_the_packet_and_the_routes_that_failed(start: Callable[..., Story]) -> None:
    story = start()
    for route in ("RouteA", "RouteB"):
        story.route(route)
        story.acknowledge(TOO_LATE)

    searches = [arguments for name, arguments in story.asked if name == "get_route"]
    assert searches == [
        {"packet_id": "packet-1", "failed": failed} for failed in ([], ["RouteA"], ["RouteA", "RouteB"])
    ]


def test_a_packet_travels_with_the_route_that_it_is_to_take(start: Callable[..., Story]) -> None:
    story = start()
    story.route("RouteA")
    story.acknowledge(TOO_LATE)
    story.route("RouteB")

    sent = [arguments["packet"] for name, arguments in story.asked if name == "transmit"]
    assert [packet.current_route_provider for packet in sent] == ["RouteA", "RouteB"]
    assert sent[1].failed_route_providers == ["RouteA"]


def test_a_packet_has_failed_when_four_routes_have(start: Callable[..., Story]) -> None:
    story = start()
    for route in PROVIDERS[:4]:
        story.route(route)
        story.acknowledge(TOO_LATE)

    assert story.packet is not None
    assert story.packet.status is PacketStatus.FAILED
    assert story.packet.failed_route_providers == ["RouteA", "RouteB", "RouteC", "RouteD"]
    assert story.packet.current_route_provider is None
    assert Counter(name for name, _ in story.asked) == {"get_route": 4, "transmit": 4}


def test_a_packet_has_failed_when_no_route_can_be_found(start: Callable[..., Story]) -> None:
    story = start()
    story.route("RouteA")
    story.acknowledge(TOO_LATE)
    story.route(ConnectionError("network disconnect"))

    assert story.packet is not None
    assert story.packet.status is PacketStatus.FAILED
    assert story.packet.failed_route_providers == ["RouteA"]


def test_the_request_says_how_patient_to_be(start: Callable[..., Story]) -> None:
    story = start(
        get_route_max_attempts=5,
        get_route_retry_interval=timedelta(milliseconds=100),
        transmit_deadline=timedelta(seconds=2),
    )
    assert story.options.retry is not None
    assert story.options.retry.max_attempts == 5
    assert story.options.retry.initial_interval == timedelta(milliseconds=100)

    story.route("RouteA")
    assert story.options.start_to_close_ms == 2_000
    assert story.options.mode == "callback"


def test_the_event_asks_for_the_patience_of_the_story() -> None:
    request = RoutingRequest.model_validate_json(EVENT.read_bytes())
    assert request == RoutingRequest(packet=PACKET.model_copy(update={"id": request.packet.id}))


# --- the activities, against a real service ------------------------------------------------------------------


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Fate], TransmitService]]:
    """Starts a service with a fate of its own, where the activities find it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ExitStack() as servers:

        def start(fate: Fate) -> TransmitService:
            service = TransmitService(fate, quiet=True)
            server = ServiceServer(("127.0.0.1", 0), service)
            servers.enter_context(serving(server))
            monkeypatch.setenv(SERVICE_URL, server.url)
            return service

        yield start


@pytest.fixture(autouse=True)
def attempt() -> Iterator[None]:
    info = AttemptInfo(execution_id="packet-1", activity="get_route", attempt=1, idempotency_key="01HF.1.1")
    token = current_attempt.set(info)
    yield
    current_attempt.reset(token)


class Doorbell(HTTPServer):
    """Stands in for durably's callback server: notes what is posted to it."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Door)
        self.rung: Queue[tuple[str, bytes]] = Queue()
        self.callback: Callback[Delivery] = Callback(
            url=f"http://127.0.0.1:{self.server_port}/callbacks/token",
            token="token",
            expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        )


class _Door(BaseHTTPRequestHandler):
    server: Doorbell

    def do_POST(self) -> None:
        self.server.rung.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None: ...


SURE = Fate(seed=1, error_chance=0, callback_chance=1, max_delay=0)


def test_get_route_finds_the_first_route_that_has_not_failed(serve: Callable[[Fate], TransmitService]) -> None:
    serve(SURE)
    assert [get_route.fn("packet-1", list(PROVIDERS[:n])) for n in range(5)] == list(PROVIDERS)


def test_get_route_meets_a_network_error_that_is_worth_another_attempt(
    serve: Callable[[Fate], TransmitService],
) -> None:
    serve(Fate(seed=1, error_chance=1))
    with pytest.raises(ConnectionError, match=r"503 .*network disconnect"):
        get_route.fn("packet-1", [])


def test_get_route_knows_when_no_route_is_left(serve: Callable[[Fate], TransmitService]) -> None:
    serve(SURE)
    with pytest.raises(NonRetryableError, match=r"404 .*no route provider is left"):
        get_route.fn("packet-1", list(PROVIDERS))


def test_an_activity_without_an_address_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVICE_URL, raising=False)
    with pytest.raises(NonRetryableError, match=SERVICE_URL):
        get_route.fn("packet-1", [])


def test_a_service_that_cannot_be_reached_is_worth_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as unused:
        monkeypatch.setenv(SERVICE_URL, f"http://127.0.0.1:{unused.server_port}")
    with pytest.raises(OSError, match="refused"):
        get_route.fn("packet-1", [])


def test_what_is_transmitted_is_acknowledged_at_the_callback_url(serve: Callable[[Fate], TransmitService]) -> None:
    service, door = serve(SURE), Doorbell()
    with serving(door):
        transmit.fn(door.callback, PACKET.model_copy(update={"current_route_provider": "RouteA"}))
        path, body = door.rung.get(timeout=10)

    assert path == "/callbacks/token"
    assert Delivery.model_validate_json(body) == Delivery(delivered=True)
    assert service.counts["submitted"] == 1


def test_a_submission_that_is_repeated_is_one_transmission(serve: Callable[[Fate], TransmitService]) -> None:
    service, door = serve(Fate(seed=1, callback_chance=0)), Doorbell()
    door.server_close()
    for _ in range(2):
        transmit.fn(door.callback, PACKET.model_copy(update={"current_route_provider": "RouteA"}))

    assert service.counts["submitted"] == service.counts["never"] == 1


def test_an_acknowledgement_is_repeated_until_somebody_listens(serve: Callable[[Fate], TransmitService]) -> None:
    serve(SURE)
    nobody = Doorbell()
    nobody.server_close()
    transmit.fn(nobody.callback, PACKET.model_copy(update={"current_route_provider": "RouteA"}))

    somebody = Doorbell(nobody.server_port)
    with serving(somebody):
        assert somebody.rung.get(timeout=10)[0] == "/callbacks/token"


def test_a_packet_without_a_route_is_refused_for_good(serve: Callable[[Fate], TransmitService]) -> None:
    serve(SURE)
    door = Doorbell()
    door.server_close()
    with pytest.raises(NonRetryableError, match=r"400 .*current_route_provider"):
        transmit.fn(door.callback, PACKET)


# --- fate ----------------------------------------------------------------------------------------------------

PACKETS = [f"packet-{n:04}" for n in range(1, 401)]


def test_fate_asks_neither_order_nor_clock() -> None:
    forward = [SURE.acknowledged_after(*which) for which in product(PACKETS, PROVIDERS)]
    backward = [SURE.acknowledged_after(*which) for which in reversed(list(product(PACKETS, PROVIDERS)))]
    assert forward == backward[::-1]


def test_no_acknowledgement_comes_near_its_deadline() -> None:
    fate = Fate(seed=1, callback_chance=1)
    delays = [fate.acknowledged_after(*which) or 0.0 for which in product(PACKETS, PROVIDERS)]
    assert not [delay for delay in delays if IN_TIME * fate.deadline < delay < LATE * fate.deadline]
    assert max(delays) <= fate.max_delay


def test_chances_are_what_they_are_said_to_be() -> None:
    fate = Fate(seed=1)
    delays = [fate.acknowledged_after(*which) for which in product(PACKETS, PROVIDERS)]
    known = [delay for delay in delays if delay is not None]
    errors = [fate.network_fails(packet, (), attempt) for packet, attempt in product(PACKETS, (1, 2, 3))]
    assert len(known) / len(delays) == pytest.approx(0.9, abs=0.03)
    assert sum(delay < fate.deadline for delay in known) / len(known) == pytest.approx(2 / 3, abs=0.04)
    assert sum(errors) / len(errors) == pytest.approx(0.1, abs=0.03)


def test_providers_are_tried_in_their_order() -> None:
    assert next_provider(["RouteA", "RouteC"]) == "RouteB"
    assert next_provider(PROVIDERS) is None
