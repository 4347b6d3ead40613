"""Protocols between the runtime and the world, and the data that crosses them."""
