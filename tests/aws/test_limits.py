"""Wall-clock limits: interrupt what never yields, leave no timer behind."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from durably.aws.limits import TimeLimit, TimeLimitError


def loop_for_ever() -> None:
    while True:
        pass


def swallow(times: int) -> None:
    while True:
        try:
            time.sleep(10)
        except TimeLimitError:
            times -= 1
            if not times:
                raise


def test_an_endless_loop_is_interrupted() -> None:
    limit = TimeLimit(0.05)
    with pytest.raises(TimeLimitError), limit:
        loop_for_ever()
    assert limit.exceeded
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_block_that_swallows_the_interrupt_is_interrupted_again() -> None:
    with pytest.raises(TimeLimitError), TimeLimit(0.02):
        swallow(3)


def test_a_block_within_its_limit_leaves_nothing_behind() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with TimeLimit(5) as limit:
        pass
    assert not limit.exceeded
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_smallest_limit_rings_in_the_block_or_not_at_all() -> None:
    for _ in range(300):
        with pytest.raises(TimeLimitError), TimeLimit(0):
            time.sleep(1)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_an_overrun_is_noticed_afterwards() -> None:
    found: list[bool] = []

    def work() -> None:
        with TimeLimit(0.01) as limit:
            time.sleep(0.05)
        found.append(limit.exceeded)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]
