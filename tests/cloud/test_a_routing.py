from __future__ import annotations

from typing import Any

from tests.cloud.stack import Stack, eventually, request
from tests.cloud.transmit import TransmitService


def packet(packet_id: str) -> dict[str, Any]:
    return {"id": packet_id, "source": "+1", "destination": "+2", "contents": "SGVsbG8="}


def submitted(service: TransmitService, packet_id: str, count: int = 1) -> str:
    def look() -> str | None:
        urls = service.callbacks.get(packet_id, [])
        return urls[count - 1] if len(urls) >= count else None

    found = eventually(look, what=f"submission {count} of {packet_id}")
    assert found is not None
    return found


def test_a_packet_is_delivered_once_its_callback_arrives(routing: Stack, transmit_service: TransmitService) -> None:
    routing.start("route_packet", "delivered", request={"packet": packet("delivered"), "transmit_deadline": "PT60S"})
    url = submitted(transmit_service, "delivered")
    assert url.startswith(f"{routing.url}/callbacks/")
    assert request("POST", url, {"delivered": True}, signed=False).status == 200
    result = routing.result("delivered")
    assert (result["status"], result["failed_route_providers"]) == ("DELIVERED", [])
    assert request("POST", url, {"delivered": True}, signed=False).status == 200
    assert request("POST", url, {"delivered": False}, signed=False).status in {409, 410}


def test_a_route_that_is_not_acknowledged_in_time_is_left_for_the_next(
    routing: Stack, transmit_service: TransmitService
) -> None:
    routing.start("route_packet", "second", request={"packet": packet("second"), "transmit_deadline": "PT4S"})
    first = submitted(transmit_service, "second")
    url = submitted(transmit_service, "second", 2)
    assert request("POST", first, {"delivered": True}, signed=False).status == 410
    assert request("POST", url, {"delivered": True}, signed=False).status == 200
    result = routing.result("second")
    assert (result["status"], len(result["failed_route_providers"])) == ("DELIVERED", 1)


def test_a_request_for_a_route_that_fails_is_repeated(routing: Stack, transmit_service: TransmitService) -> None:
    transmit_service.failures["unlucky"] = 2
    wanted = {"packet": packet("unlucky"), "get_route_retry_interval": "PT0.1S", "transmit_deadline": "PT60S"}
    routing.start("route_packet", "unlucky", request=wanted)
    assert request("POST", submitted(transmit_service, "unlucky"), {"delivered": True}, signed=False).status == 200
    assert routing.result("unlucky")["status"] == "DELIVERED"


def test_the_doors_are_closed_to_strangers(routing: Stack) -> None:
    body = {"orchestrator": "route_packet", "execution_id": "stranger", "input": {}}
    assert request("POST", f"{routing.url}/executions", body, signed=False).status == 403
    assert request("GET", f"{routing.url}/executions/stranger").status == 404
    assert request("POST", f"{routing.url}/callbacks/forged", {}, signed=False).status == 401
    assert request("GET", f"{routing.url}/elsewhere").status == 404
