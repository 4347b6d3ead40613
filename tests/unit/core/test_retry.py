"""Retry policies: whether there is another attempt, and when."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.core.errors import DefinitionError, NonRetryableError, RetryAfterError
from durably.core.failures import Failure, failure_of
from durably.core.retry import RetryPolicy

FAILURE = failure_of(ConnectionRefusedError("no"))
STEADY = RetryPolicy(jitter=False)
NEARLY_ONE = math.nextafter(1, 0)


def caps(policy: RetryPolicy, attempts: int) -> list[float]:
    return [policy.delay_ms(attempt, 0.5) / 1000 for attempt in range(1, attempts + 1)]


def test_by_default_the_cap_doubles_from_one_second_up_to_a_hundred() -> None:
    assert caps(STEADY, 9) == [1, 2, 4, 8, 16, 32, 64, 100, 100]


def test_the_interval_grows_by_the_coefficient_up_to_the_maximum() -> None:
    policy = RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        coefficient=1.5,
        maximum_interval=timedelta(milliseconds=500),
        jitter=False,
    )
    assert caps(policy, 5) == [0.2, 0.3, 0.45, 0.5, 0.5]


def test_a_coefficient_of_one_is_a_steady_interval() -> None:
    assert caps(RetryPolicy(coefficient=1, jitter=False), 4) == [1, 1, 1, 1]


def test_no_interval_at_all_retries_at_once() -> None:
    assert caps(RetryPolicy(initial_interval=timedelta(0)), 3) == [0, 0, 0]


@pytest.mark.parametrize("attempt", [1_000, 10_000, 10**9])
def test_the_cap_holds_however_often_it_was_tried(attempt: int) -> None:
    assert STEADY.delay_ms(attempt, 0) == 100_000
    assert RetryPolicy(coefficient=1e300, jitter=False).delay_ms(attempt, 0) == 100_000


def test_full_jitter_draws_from_nothing_up_to_the_cap() -> None:
    policy = RetryPolicy()
    assert [policy.delay_ms(3, draw) for draw in (0, 0.25, 0.5, NEARLY_ONE)] == [4_000, 3_000, 2_000, 0]


@given(
    attempt=st.integers(1, 10_000),
    draw=st.floats(0, NEARLY_ONE),
    initial=st.integers(0, 10**9),
    longer=st.none() | st.integers(0, 10**9),
    coefficient=st.floats(1, 1e6),
)
def test_a_delay_is_never_negative_nor_longer_than_its_cap(
    attempt: int, draw: float, initial: int, longer: int | None, coefficient: float
) -> None:
    maximum = None if longer is None else timedelta(milliseconds=initial + longer)
    interval = timedelta(milliseconds=initial)
    drawn = RetryPolicy(initial_interval=interval, coefficient=coefficient, maximum_interval=maximum)
    steady = RetryPolicy(initial_interval=interval, coefficient=coefficient, maximum_interval=maximum, jitter=False)
    cap = steady.delay_ms(attempt, draw)
    assert initial <= cap <= (100 * initial if longer is None else initial + longer)
    assert 0 <= drawn.delay_ms(attempt, draw) <= cap
    assert drawn.delay_ms(attempt, 0) == cap


@pytest.mark.parametrize(("attempt", "allowed"), [(1, True), (2, True), (3, False), (4, False)])
def test_attempts_are_counted_with_the_first(attempt: int, allowed: bool) -> None:
    assert RetryPolicy(max_attempts=3).allows(FAILURE, attempt) is allowed


def test_zero_attempts_mean_no_bound() -> None:
    assert RetryPolicy(max_attempts=0).allows(FAILURE, 10**9)


@pytest.mark.parametrize(
    ("named", "allowed"),
    [
        (ConnectionRefusedError, False),
        (ConnectionError, False),
        (OSError, False),
        ("OSError", False),
        ("builtins.OSError", False),
        ("ConnectionRefusedError", False),
        (ValueError, True),
        ("app.OSError", True),
        ("Refused", True),
    ],
)
def test_a_type_that_is_not_to_be_retried_covers_its_subclasses(named: str | type[Exception], allowed: bool) -> None:
    policy = RetryPolicy(non_retryable=[KeyError, named])
    assert policy.allows(FAILURE, 1) is allowed


@pytest.mark.parametrize("named", [Exception, BaseException, "Exception", "builtins.Exception"])
def test_every_error_is_an_exception(named: str | type[BaseException]) -> None:
    assert FAILURE.matches(named)
    assert not RetryPolicy(non_retryable=[named]).allows(FAILURE, 1)


def test_types_of_other_code_bases_are_named() -> None:
    failure = Failure(type="shop.errors.CardDeclined", message="", bases=("shop.errors.PaymentError",))
    assert not RetryPolicy(non_retryable=["PaymentError"]).allows(failure, 1)
    assert not RetryPolicy(non_retryable=["shop.errors.CardDeclined"]).allows(failure, 1)
    assert RetryPolicy(non_retryable=["shop.CardDeclined"]).allows(failure, 1)


def test_an_activity_may_say_that_it_must_not_be_tried_again() -> None:
    assert not RetryPolicy(max_attempts=0).allows(failure_of(NonRetryableError("card declined")), 1)


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.5, 1_500), (0, 0), (-3, 0), (0.0004, 0)])
def test_an_activity_may_ask_for_its_next_delay(seconds: float, milliseconds: int) -> None:
    failure = failure_of(RetryAfterError("busy", seconds=seconds))
    assert failure.retry_after_ms == milliseconds
    assert RetryPolicy(max_attempts=2).allows(failure, 1)
    assert not RetryPolicy(max_attempts=2).allows(failure, 2)


def test_policies_that_mean_the_same_are_equal() -> None:
    assert RetryPolicy(non_retryable=[ValueError]) == RetryPolicy(non_retryable=("builtins.ValueError",))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"initial_interval": timedelta(seconds=-1)}, "initial_interval must not be negative"),
        ({"initial_interval": 5}, "initial_interval must be a timedelta, got 5"),
        ({"maximum_interval": 5.0}, "maximum_interval must be a timedelta, got 5.0"),
        ({"non_retryable": [ValueError, 3]}, "non_retryable takes types and names, got 3"),
        ({"coefficient": 0.5}, "coefficient must be at least 1"),
        ({"coefficient": math.nan}, "coefficient must be at least 1"),
        ({"coefficient": math.inf}, "coefficient must be"),
        ({"non_retryable": "ValueError"}, "non_retryable must be"),
        ({"maximum_interval": timedelta(milliseconds=1)}, "must not be shorter than initial_interval"),
        ({"max_attempts": -1}, "max_attempts must be 0"),
        ({"initial_interval": timedelta.max}, "initial_interval is at most 36500 days"),
        ({"maximum_interval": timedelta.max}, "maximum_interval is at most 36500 days"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        RetryPolicy(**wrong)
