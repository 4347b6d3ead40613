from durably.aws import sweeper_handler

handler = sweeper_handler()
