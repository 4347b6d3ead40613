"""The memory backend under a seeded scheduler that does to messages, processes and clocks what a cloud does."""
