from activities.routing import get_route, transmit
from durably.aws import activity_handler

handler = activity_handler(get_route, transmit)
