"""Callback activities in the environment: answered by a mock, completed by hand, or late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durably import ExecutionFailedError, PayloadError
from durably.testing import CallbackRefusedError, Environment, WaitsForEverError, outline
from tests.unit.testing.programs import Order, approve, approved, confirm, confirmed

TEA = Order("tea")


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


def test_a_mock_answers_in_the_place_of_whoever_would_call_back(env: Environment) -> None:
    mock = env.mock(approve, lambda order: order.item == "tea")
    assert env.run(approved, TEA) == "approved"
    assert env.run(approved, Order("gold")) == "refused"
    assert [call.arguments["order"].item for call in mock.calls] == ["tea", "gold"]


def test_an_open_callback_is_completed_by_hand(env: Environment) -> None:
    handle = env.start("order-1", approved, TEA)
    env.advance(timedelta(hours=3))
    callback = env.callback(approve)
    assert (callback.execution_id, callback.attempt, callback.arguments) == ("order-1", 1, {"order": TEA})
    callback.complete(False)
    assert handle.describe().status == "completed"
    assert handle.result() == "refused"
    assert env.now == datetime(2030, 1, 1, 3, tzinfo=UTC)


def test_a_callback_that_nobody_completes_is_retried_and_then_late(env: Environment) -> None:
    mock = env.mock(approve)
    assert env.run(approved, TEA).startswith("nobody answered: no callback arrived for attempt 2")
    assert [call.attempt for call in mock.calls] == [1, 2]
    assert timedelta(days=2) < env.now - datetime(2030, 1, 1, tzinfo=UTC) <= timedelta(days=2, hours=1)


def test_a_callback_that_failed_is_retried_as_the_policy_says(env: Environment) -> None:
    env.mock(approve).leaves_open()
    handle = env.start("order-1", approved, TEA)
    env.callback(approve).fail("the approver is ill")
    env.advance(timedelta(hours=1))
    assert env.callback(approve).attempt == 2
    env.callback(approve).fail(PermissionError("no"))
    assert handle.result() == "nobody answered: no"


def test_a_mock_that_raises_fails_the_submission(env: Environment) -> None:
    env.mock(confirm).raises(ConnectionError("unreachable"))
    with pytest.raises(ExecutionFailedError, match="unreachable"):
        env.run(confirmed, TEA)


def test_a_callback_is_completed_at_its_time(env: Environment) -> None:
    env.after(timedelta(hours=30), lambda: env.callback(confirm).complete("thursday"))
    assert env.run(confirmed, TEA) == "thursday"
    assert env.now == datetime(2030, 1, 2, 6, tzinfo=UTC)


def test_a_callback_that_comes_too_late_is_refused(env: Environment) -> None:
    env.start("order-1", approved, TEA)
    callback = env.callback(approve)
    env.advance(timedelta(days=1))
    with pytest.raises(CallbackRefusedError, match=r"approve \(attempt 1, execution order-1\) was refused as gone"):
        callback.complete(True)


def test_a_callback_that_is_repeated_with_another_value_is_refused(env: Environment) -> None:
    env.start("order-1", approved, TEA)
    callback = env.callback(approve)
    callback.complete(True)
    callback.complete(True)
    with pytest.raises(CallbackRefusedError, match="refused as conflict"):
        callback.complete(False)


def test_a_value_that_does_not_fit_is_refused_where_it_is_given(env: Environment) -> None:
    env.start("order-1", approved, TEA)
    with pytest.raises(PayloadError):
        env.callback(approve).complete("yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert len(env.callbacks) == 1


def test_open_callbacks_are_listed_oldest_first_and_told_apart(env: Environment) -> None:
    for number in (1, 2):
        env.start(f"order-{number}", approved, TEA)
    env.start("order-3", confirmed, TEA)
    assert [(one.activity, one.execution_id) for one in env.callbacks] == [
        ("approve", "order-1"),
        ("approve", "order-2"),
        ("confirm", "order-3"),
    ]
    env.callback(approve, "order-2").complete(True)
    assert [one.execution_id for one in env.callbacks] == ["order-1", "order-3"]
    env.client.terminate("order-1")
    env.settle()
    assert [one.execution_id for one in env.callbacks] == ["order-3"]
    assert outline(env.history("order-1"))[-1] == "ExecutionTerminated"


def test_a_callback_that_is_not_open_is_asked_for_in_vain(env: Environment) -> None:
    env.start("order-3", confirmed, TEA)
    with pytest.raises(WaitsForEverError, match=r"No callback of approve is open .* open are: confirm of order-3"):
        env.callback(approve)
