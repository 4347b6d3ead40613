from durably.aws import api_handler
from orchestrators.routing import route_packet

handler = api_handler(route_packet)
