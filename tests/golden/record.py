"""`python -m tests.golden.record [NAME ...]` records golden histories, all of them or those named, as they run today.

A golden history is what executions in production look like: record one when a story gets a new path, and keep those
that are there. One that no longer replays means that running executions would stall after an upgrade.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from activities.routing import Delivery, get_route, transmit
from durably import Orchestrator
from durably.testing import Environment
from orchestrators.routing import RoutingRequest, route_packet

HERE = Path(__file__).parent
EVENTS = HERE.parents[1] / "events"
ORCHESTRATORS: list[Orchestrator[..., Any]] = [route_packet]


def packet_routing_ok(env: Environment) -> None:
    """A network error, then a route that delivers."""
    env.mock(get_route).side_effect([ConnectionError("network disconnect"), "RouteA"])
    env.mock(transmit).returns(Delivery(delivered=True))
    env.start("packet-ok", route_packet, _request()).result()


def packet_routing_no_route(env: Environment) -> None:
    """The first provider does not deliver, and no other is found."""
    env.mock(get_route).side_effect(["RouteA", *[ConnectionError("network disconnect")] * 3])
    env.mock(transmit).returns(Delivery(delivered=False))
    env.start("packet-no-route", route_packet, _request()).result()


def packet_routing_timeout(env: Environment) -> None:
    """The first provider never acknowledges, the second one does."""
    env.mock(get_route).returns("RouteA", "RouteB")
    env.mock(transmit).leaves_open()
    env.after(timedelta(seconds=12), lambda: env.callback(transmit).complete(Delivery(delivered=True)))
    env.start("packet-timeout", route_packet, _request()).result()


def packet_routing_waiting(env: Environment) -> None:
    """Still on its way: what a running execution looks like while the code under it is replaced."""
    env.mock(get_route).returns("RouteA")
    env.start("packet-waiting", route_packet, _request())


PATHS: dict[str, Callable[[Environment], None]] = {
    path.__name__: path
    for path in (packet_routing_ok, packet_routing_no_route, packet_routing_timeout, packet_routing_waiting)
}


def recorded(name: str) -> str:
    """The history of a path, without what is true of this machine only."""
    with Environment(run_activities=False) as env:
        env.mock(transmit)
        PATHS[name](env)
        document = json.loads(env.export())
    _strip_stacks(document)
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def file_of(name: str) -> Path:
    """Where the history of a path is kept."""
    return HERE / f"{name}.json"


def _request() -> RoutingRequest:
    return RoutingRequest.model_validate_json((EVENTS / "packet_routing.json").read_bytes())


def _strip_stacks(value: Any) -> None:
    if isinstance(value, dict):
        value.pop("stack", None)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _strip_stacks(item)


def main(names: list[str]) -> None:
    for name in names or PATHS:
        file_of(name).write_text(recorded(name), encoding="utf-8")
        print(file_of(name).relative_to(Path.cwd()))


if __name__ == "__main__":
    main(sys.argv[1:])
