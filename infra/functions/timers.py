from durably.aws import timers_handler

handler = timers_handler()
