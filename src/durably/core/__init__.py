"""The pure, deterministic engine: no I/O, no clock, no randomness, no pydantic. See ARCHITECTURE.md."""
