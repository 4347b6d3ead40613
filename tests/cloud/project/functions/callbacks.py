from activities.steps import forgotten

from durably.aws import callbacks_handler

handler = callbacks_handler(forgotten)
