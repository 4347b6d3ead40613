"""The machine's clock and randomness. Nothing else in durably may ask for either."""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode
from random import Random, SystemRandom

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# two characters at a time: ten bits, so that a ULID is 13 look-ups
_PAIRS = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)
_MAX_ULID_MS = 2**48 - 1
_random = SystemRandom()
# Nonces are unique, not secret: the kernel is asked once, not at each turn (18 us between busy threads).
_nonces = Random()
os.register_at_fork(after_in_child=_nonces.seed)


class SystemClock:
    """The wall clock of this machine."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000


class SystemEntropy:
    """The operating system's randomness, safe across fork and threads."""

    def ulid(self, now_ms: int) -> str:
        """A ULID (48 bits of time, 80 random bits, Crockford base32); not monotonic within a millisecond."""
        stamp = min(max(now_ms, 0), _MAX_ULID_MS)
        number = stamp << 80 | int.from_bytes(os.urandom(10), "big")
        return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])

    def nonce(self) -> str:
        """16 URL-safe characters, 96 random bits."""
        return urlsafe_b64encode(_nonces.getrandbits(96).to_bytes(12, "big")).decode()

    def seed(self) -> int:
        """63 random bits."""
        return int.from_bytes(os.urandom(8), "big") >> 1

    def draw(self) -> float:
        """A number from [0, 1)."""
        return _random.random()
