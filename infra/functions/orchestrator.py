from durably.aws import orchestrator_handler
from orchestrators.routing import route_packet

handler = orchestrator_handler(route_packet)
