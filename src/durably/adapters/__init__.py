"""Implementations of the ports: stores, clocks, token signers."""
