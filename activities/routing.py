"""What routing a packet needs from the world: a service that knows routes, and one that transmits over them.

Both are reached over HTTP, at the address in the environment variable ROUTING_SERVICE_URL.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from activities.services import ask_service
from durably import Callback, RetryPolicy, activity, attempt_info, callback_activity

SERVICE_URL = "ROUTING_SERVICE_URL"


class PacketStatus(StrEnum):
    """How far a packet has come."""

    ROUTING = "ROUTING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class Packet(BaseModel):
    """A data packet. In JSON its contents are base64 (the URL-safe alphabet)."""

    model_config = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    id: str = Field(min_length=1)
    source: str
    destination: str
    contents: bytes
    failed_route_providers: list[str] = Field(default_factory=list[str])
    current_route_provider: str | None = None
    status: PacketStatus = PacketStatus.ROUTING


class Route(BaseModel):
    """What the routing service answers."""

    route: str


class Submission(BaseModel):
    """What the transmit service is asked to do; `packet.current_route_provider` says over which route."""

    packet: Packet
    callback_url: str


class Delivery(BaseModel):
    """What the transmit service sends to the callback URL, once it knows."""

    delivered: bool


@activity(timeout=timedelta(seconds=10), retry=RetryPolicy(max_attempts=3))
def get_route(packet_id: str, failed: list[str]) -> str:
    """The next route provider for a packet that those in `failed` did not deliver.

    Raises:
        OSError: the routing service was not reached or is in trouble; another attempt may succeed.
        NonRetryableError: no provider is left.
    """
    query = urlencode({"packet": packet_id, "failed": ",".join(failed), "attempt": attempt_info().attempt})
    return Route.model_validate_json(ask_service(SERVICE_URL, f"/routes/next?{query}")).route


@callback_activity(timeout=timedelta(seconds=10))
def transmit(callback: Callback[Delivery], packet: Packet) -> None:
    """Hand a packet over to its current route provider; the acknowledgement arrives at `callback.url`, or never."""
    submission = Submission(packet=packet, callback_url=callback.url)
    ask_service(SERVICE_URL, "/transmissions", submission.model_dump_json())
