from durably.aws import sweeper_handler
from orchestrators.routing import route_packet

handler = sweeper_handler(route_packet)
