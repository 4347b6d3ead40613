"""Exceptions as data and back: type, message, causes, members and stack survive the way through a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from durably.core.context import Context
from durably.core.errors import ActivityError, NonRetryableError, PayloadError, RemoteError
from durably.core.events import ExecutionFailed
from durably.core.failures import Failure, failure_of
from tests.unit.core.conftest import Start
from tests.unit.core.harness import ask


class PaymentError(Exception):
    class Declined(OSError):
        """A nested class has a dotted name."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raised(raiser: Callable[[], Any]) -> Exception:
    try:
        raiser()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def divide() -> float:
    return 1 / 0


def deliver() -> None:
    try:
        divide()
    except ZeroDivisionError as error:
        raise PaymentError("not paid") from error


# --- to a failure ---------------------------------------------------------------------------------------------


def test_type_message_and_bases_are_named_in_full() -> None:
    failure = failure_of(PaymentError.Declined("card"))
    assert failure.type == "tests.unit.core.test_failures.PaymentError.Declined"
    assert failure.message == "card"
    assert failure.bases == ("builtins.OSError",)
    assert failure.stack is None
    assert str(failure) == "tests.unit.core.test_failures.PaymentError.Declined: card"


def test_a_builtin_goes_by_its_bare_name_and_no_message_by_nothing() -> None:
    assert str(failure_of(ValueError("no"))) == "ValueError: no"
    assert str(failure_of(ValueError())) == "ValueError"


def test_the_stack_ends_where_it_was_raised() -> None:
    stack = failure_of(raised(deliver)).stack
    assert stack is not None
    assert stack.rstrip().splitlines()[-1].strip() == 'raise PaymentError("not paid") from error'
    assert "in deliver" in stack
    assert "test_failures.py" in stack


def test_causes_are_a_chain() -> None:
    cause = failure_of(raised(deliver)).cause
    assert cause is not None
    assert (cause.type, cause.message) == ("builtins.ZeroDivisionError", "division by zero")
    assert "return 1 / 0" in (cause.stack or "")
    assert cause.cause is None


def test_what_was_being_handled_is_a_cause_unless_it_was_hidden() -> None:
    def handling(*, hidden: bool) -> None:
        try:
            divide()
        except ZeroDivisionError:
            if hidden:
                raise KeyError("k") from None
            raise KeyError("k")  # noqa: B904  # the implicit context is what is tested

    shown, hidden = (
        failure_of(raised(lambda: handling(hidden=False))),
        failure_of(raised(lambda: handling(hidden=True))),
    )
    assert shown.cause is not None
    assert shown.cause.type == "builtins.ZeroDivisionError"
    assert hidden.cause is None


def test_a_chain_without_end_is_cut() -> None:
    error: BaseException = ValueError("0")
    for number in range(1, 100):
        error, cause = ValueError(str(number)), error
        error.__cause__ = cause
    failure: Failure | None = failure_of(error)
    depth = 0
    while failure is not None:
        failure, depth = failure.cause, depth + 1
    assert depth == 21


def test_the_members_of_a_group_are_kept_with_their_causes() -> None:
    group = ExceptionGroup("two", [raised(deliver), ExceptionGroup("inner", [OSError("disk")])])
    failure = failure_of(group)
    assert failure.type == "builtins.ExceptionGroup"
    assert [member.message for member in failure.members] == ["not paid", "inner (1 sub-exception)"]
    assert failure.members[0].cause is not None
    assert failure.members[1].members[0].type == "builtins.OSError"


def test_an_error_that_cannot_say_what_it_is_does_no_harm() -> None:
    assert failure_of(Unprintable()).message == "<str() of the error raised RuntimeError>"


def test_what_no_store_takes_is_escaped_and_what_is_too_long_is_cut() -> None:
    assert failure_of(ValueError("\ud800")).message == "\\ud800"
    assert len(failure_of(ValueError("x" * 1_000_000)).message) == 10_000


def test_a_deep_stack_keeps_its_inner_end() -> None:
    def odd(depth: int) -> None:
        even(depth - 1)

    def even(depth: int) -> None:
        if not depth:
            raise PaymentError("bottom")
        odd(depth - 1)

    stack = failure_of(raised(lambda: even(400))).stack
    assert stack is not None
    assert len(stack) == 20_000
    assert 'raise PaymentError("bottom")' in stack


def test_steering_is_carried_along() -> None:
    assert failure_of(NonRetryableError("no")).non_retryable is True
    assert failure_of(PayloadError("bad", path="a.b")).non_retryable is True
    assert failure_of(ValueError("no")).non_retryable is None
    assert failure_of(ValueError("no")).retry_after_ms is None


# --- matching -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (ConnectionResetError, True),
        (ConnectionError, True),
        (OSError, True),
        ("OSError", True),
        ("builtins.OSError", True),
        ("ConnectionResetError", True),
        (ValueError, False),
        ("ResetError", False),
        ("socket.OSError", False),
        ("", False),
    ],
)
def test_a_failure_matches_its_class_and_its_bases(wanted: str | type[BaseException], matches: bool) -> None:
    failure = failure_of(ConnectionResetError("gone"))
    assert failure.matches(wanted) is matches
    assert ActivityError("send", failure).matches(wanted) is matches


def test_classes_of_the_same_name_in_other_modules_do_not_match() -> None:
    failure = Failure(type="shop.TimeoutError", message="")
    assert not failure.matches(TimeoutError)
    assert failure.matches("TimeoutError")


# --- and back ---------------------------------------------------------------------------------------------------


def test_an_activity_error_says_who_failed_how_often_and_with_what() -> None:
    error = ActivityError("pay", failure_of(raised(deliver)), attempt=3)
    assert (error.activity, error.attempt, error.type) == ("pay", 3, "tests.unit.core.test_failures.PaymentError")
    assert str(error) == "activity pay failed at attempt 3: tests.unit.core.test_failures.PaymentError: not paid"


def test_the_chain_of_causes_is_rebuilt() -> None:
    cause = ActivityError("pay", failure_of(raised(deliver))).__cause__
    assert isinstance(cause, RemoteError)
    assert cause.failure.message == "not paid"
    assert isinstance(cause.__cause__, RemoteError)
    assert str(cause.__cause__) == "ZeroDivisionError: division by zero"
    assert cause.__cause__.__cause__ is None


def test_a_group_comes_back_as_a_group_of_its_members() -> None:
    inner = ExceptionGroup("inner", [OSError("disk")])
    cause = ActivityError("pay", failure_of(ExceptionGroup("two", [ValueError("no"), inner]))).__cause__
    assert isinstance(cause, ExceptionGroup)
    first, second = cause.exceptions
    assert isinstance(first, RemoteError)
    assert first.failure.matches(ValueError)
    assert isinstance(second, ExceptionGroup)
    assert str(second.exceptions[0]) == "OSError: disk"


def test_a_failure_that_passed_through_an_orchestrator_is_the_cause_of_its_failure() -> None:
    original = failure_of(raised(deliver))
    failure = failure_of(ActivityError("pay", original, attempt=2))
    assert failure.type == "durably.core.errors.ActivityError"
    assert failure.cause == original


def test_a_remote_error_raised_again_is_what_it_was() -> None:
    original = failure_of(raised(deliver))
    remote = ActivityError("pay", original).__cause__
    assert remote is not None
    assert failure_of(remote) == original


# --- inside an orchestrator -----------------------------------------------------------------------------------------


def test_an_orchestrator_tells_failures_apart(start: Start) -> None:
    async def careful(ctx: Context) -> str:
        try:
            await ask(ctx, "pay")
        except ActivityError as error:
            if error.matches(PaymentError):
                return f"{error.type.rpartition('.')[2]}, {error.failure.cause}, {error.attempt}"
            raise
        return "paid"

    run = start(careful)
    assert run.failed(1, raised(deliver), attempt=3) == [
        'return "PaymentError, ZeroDivisionError: division by zero, 3"'
    ]


def test_an_error_that_nobody_catches_fails_the_execution_with_its_whole_chain(start: Start) -> None:
    async def careless(ctx: Context) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask(ctx, "pay"))

    run = start(careless)
    run.failed(1, raised(deliver))
    (event,) = run.turns[-1].outbound
    assert isinstance(event, ExecutionFailed)
    failure = event.failure
    assert failure.type == "builtins.ExceptionGroup"
    (member,) = failure.members
    assert member.type == "durably.core.errors.ActivityError"
    assert member.cause is not None
    assert member.cause.matches(PaymentError)
    assert member.cause.cause is not None
    assert member.cause.cause.matches(ArithmeticError)
    assert "in careless" in (failure.stack or "")


def test_a_large_group_is_told_by_its_first_members() -> None:
    failure = failure_of(ExceptionGroup("all of them", [OSError(number) for number in range(5_000)]))
    assert failure.message == "all of them (5000 sub-exceptions)"
    assert [member.message for member in failure.members] == [str(number) for number in range(100)]
