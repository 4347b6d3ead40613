"""The packet-routing story as its users would test it: with the test kit, activities mocked, in virtual time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activities.routing import Delivery, Packet, PacketStatus, get_route, transmit
from durably.testing import Environment, assert_in_order
from orchestrators.routing import RoutingRequest, route_packet

PACKET = Packet(id="packet-1", source="+017771110000", destination="+016660002222", contents=b"Hello")


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


def test_multiple_transmit_ok(env: Environment) -> None:
    """`MultipleTransmit_ok`, the example of the article that told this story of Temporal first, in Go."""

    def transmit_mock(packet: Packet) -> Delivery:
        if packet.current_route_provider == "goodRoute":
            return Delivery(delivered=True)
        raise TimeoutError("activity timed out")

    env.mock(get_route).returns("badRoute", "goodRoute")
    env.mock(transmit, transmit_mock)
    request = RoutingRequest(packet=PACKET, get_route_max_attempts=1, transmit_max_attempts=2)
    packet = env.run(route_packet, request)
    assert packet.failed_route_providers == ["badRoute"]
    assert packet.current_route_provider == "goodRoute"
    assert packet.status is PacketStatus.DELIVERED


def test_multiple_transmit_fail(env: Environment) -> None:
    env.mock(get_route).side_effect(lambda packet_id, failed: f"Route{len(failed)}")
    env.mock(transmit).returns(Delivery(delivered=False))
    packet = env.run(route_packet, RoutingRequest(packet=PACKET, transmit_max_attempts=2))
    assert packet.failed_route_providers == ["Route0", "Route1"]
    assert packet.status is PacketStatus.FAILED


def test_what_the_articles_test_cannot_see_either(env: Environment) -> None:
    """That the search for a route is retried, and that a late acknowledgement changes nothing."""
    routes = env.mock(get_route).side_effect([ConnectionError("network disconnect"), "RouteA", "RouteB"])
    env.mock(transmit).leaves_open()
    env.after(timedelta(seconds=15), lambda: env.callback(transmit).complete(Delivery(delivered=True)))
    packet = env.assert_replay_safe(route_packet, RoutingRequest(packet=PACKET))
    assert packet.current_route_provider == "RouteB"
    assert [call.attempt for call in routes.calls] == [1, 2, 1]
    assert_in_order(
        env.history(), "ActivityFailed transmit", "ActivityCompleted get_route", "ActivityCompleted transmit"
    )
