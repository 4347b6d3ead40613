"""The machine's clock and randomness."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from durably.adapters.system import SystemClock, SystemEntropy

ENTROPY = SystemEntropy()


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1))
def test_ulids_sort_by_time(one: int, other: int) -> None:
    first, second = ENTROPY.ulid(one), ENTROPY.ulid(other)
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", first)
    if one != other:
        assert (first < second) == (one < other)


def test_a_ulid_begins_with_the_time_as_the_specification_writes_it() -> None:
    assert ENTROPY.ulid(1469918176385).startswith("01ARYZ6S41")
    assert ENTROPY.ulid(2**48 - 1).startswith("7ZZZZZZZZZ")


def test_nobody_draws_the_same_twice() -> None:
    assert len({ENTROPY.ulid(0) for _ in range(1000)}) == 1000
    assert len({ENTROPY.nonce() for _ in range(1000)}) == 1000


def test_seeds_and_draws_stay_in_their_range() -> None:
    assert all(0 <= ENTROPY.seed() < 2**63 for _ in range(100))
    assert all(0 <= ENTROPY.draw() < 1 for _ in range(100))


def test_the_clock_is_the_wall_clock() -> None:
    assert abs(SystemClock().now_ms() - time.time() * 1000) < 1000
