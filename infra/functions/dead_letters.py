from durably.aws import dead_letters_handler

handler = dead_letters_handler()
