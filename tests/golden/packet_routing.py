"""Paths of the packet-routing story."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from activities.routing import Delivery, get_route, transmit
from durably.testing import Environment
from orchestrators.routing import RoutingRequest, route_packet

ORCHESTRATORS = (route_packet,)
EVENT = Path(__file__).parents[2] / "events/packet_routing.json"


def ok(env: Environment) -> None:
    """A network error, then a route that delivers."""
    env.mock(get_route).side_effect([ConnectionError("network disconnect"), "RouteA"])
    env.mock(transmit).returns(Delivery(delivered=True))
    env.start("packet-ok", route_packet, _request()).result()


def no_route(env: Environment) -> None:
    """The first provider does not deliver, and no other is found."""
    env.mock(get_route).side_effect(["RouteA", *[ConnectionError("network disconnect")] * 3])
    env.mock(transmit).returns(Delivery(delivered=False))
    env.start("packet-no-route", route_packet, _request()).result()


def timeout(env: Environment) -> None:
    """The first provider never acknowledges, the second one does."""
    env.mock(get_route).returns("RouteA", "RouteB")
    env.mock(transmit)
    env.after(timedelta(seconds=12), lambda: env.callback(transmit).complete(Delivery(delivered=True)))
    env.start("packet-timeout", route_packet, _request()).result()


def waiting(env: Environment) -> None:
    """Still on its way: what a running execution looks like while the code under it is replaced."""
    env.mock(get_route).returns("RouteA")
    env.mock(transmit)
    env.start("packet-waiting", route_packet, _request())


def _request() -> RoutingRequest:
    return RoutingRequest.model_validate_json(EVENT.read_bytes())


PATHS = (ok, no_route, timeout, waiting)
