from activities.routing import transmit
from durably.aws import callbacks_handler

handler = callbacks_handler(transmit)
