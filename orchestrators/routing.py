"""Packet routing: deliver a packet through one route provider after another, until one acknowledges in time."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field

from activities.routing import Packet, PacketStatus, get_route, transmit
from durably import ActivityError, Context, RetryPolicy, orchestrator


class RoutingRequest(BaseModel):
    """A packet, and how much patience it deserves."""

    model_config = ConfigDict(extra="forbid")

    packet: Packet
    get_route_max_attempts: int = Field(default=3, ge=1)
    get_route_retry_interval: timedelta = timedelta(seconds=1)
    transmit_max_attempts: int = Field(default=4, ge=1)
    transmit_deadline: timedelta = timedelta(seconds=10)


@orchestrator
async def route_packet(ctx: Context, request: RoutingRequest) -> Packet:
    """The packet, DELIVERED by its current route provider, or FAILED."""
    packet = request.packet
    next_route = get_route.options(
        retry=RetryPolicy(
            max_attempts=request.get_route_max_attempts, initial_interval=request.get_route_retry_interval
        )
    )
    send = transmit.options(timeout=request.transmit_deadline)

    while len(packet.failed_route_providers) < request.transmit_max_attempts:
        try:
            route = await next_route(packet.id, packet.failed_route_providers)
        except ActivityError as error:
            ctx.logger.warning("%s: gave up on finding a route: %s", packet.id, error.failure.message)
            break

        packet.current_route_provider = route
        try:
            delivery = await send(packet)
            if delivery.delivered:
                packet.status = PacketStatus.DELIVERED
                return packet
        except ActivityError as error:
            ctx.logger.warning("%s: %s did not deliver: %s", packet.id, route, error.failure.message)

        packet.failed_route_providers.append(route)
        packet.current_route_provider = None

    packet.status = PacketStatus.FAILED
    return packet
