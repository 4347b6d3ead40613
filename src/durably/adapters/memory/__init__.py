"""A backend in memory: for unit tests and simulation."""

from durably.adapters.memory.backend import MemoryBackend

__all__ = ["MemoryBackend"]
