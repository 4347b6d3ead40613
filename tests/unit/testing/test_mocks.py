"""Mocks: what they answer, what they remember, and that they stand where the activity would."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from durably import ActivityError, Context, ExecutionFailedError, PayloadError, RetryPolicy, activity, orchestrator
from durably.testing import Environment, MockError, outline
from tests.unit.testing.programs import Order, archive, buy, elsewhere, price, ship, stamp


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


def test_a_value_is_returned_each_time(env: Environment) -> None:
    mock = env.mock(ship).returns("sent")
    assert [env.run(buy, Order("tea")), env.run(buy, Order("milk"))] == ["SENT", "SENT"]
    assert [call.arguments["order"].item for call in mock.calls] == ["tea", "milk"]


def test_several_values_are_returned_in_turn_and_then_no_more(env: Environment) -> None:
    env.mock(ship).returns("first", "second")
    assert [env.run(buy, Order("tea")), env.run(buy, Order("tea"))] == ["FIRST", "SECOND"]
    with pytest.raises(MockError, match="ship has 2 answers and was called once more"):
        env.run(buy, Order("tea"))


def test_a_value_that_the_activity_could_not_return_is_refused_where_it_is_given(env: Environment) -> None:
    with pytest.raises(PayloadError):
        env.mock(ship).returns(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_error_is_retried_as_the_policy_says_and_time_passes_between(env: Environment) -> None:
    mock = env.mock(price).raises(ConnectionError("busy"))
    with pytest.raises(ExecutionFailedError, match=r"price failed at attempt 4: ConnectionError: busy"):
        env.run(buy, Order("tea"))
    assert [call.attempt for call in mock.calls] == [1, 2, 3, 4]
    assert [call.at.hour for call in mock.calls] == [0, 1, 3, 7]


def test_an_iterable_gives_values_and_errors_one_a_call(env: Environment) -> None:
    mock = env.mock(price).side_effect([ConnectionError("busy"), TimeoutError, 7])
    archived = env.mock(archive)
    env.run(buy, Order("tea"))
    assert len(mock.calls) == 3
    archived.assert_called_once_with(Order("tea", ["costs 7"]))


def test_a_function_answers_with_the_arguments_of_the_call(env: Environment) -> None:
    env.mock(price, lambda item, count=1: 100 * count)
    archived = env.mock(archive)
    env.run(buy, Order("tea"), 3)
    archived.assert_called_with(Order("tea", ["costs 300"]))


def test_an_asynchronous_function_answers_too(env: Environment) -> None:
    async def replacement(order: Order) -> str:
        await asyncio.sleep(0)
        return f"late {order.item}"

    env.mock(ship, replacement)
    assert env.run(buy, Order("tea")) == "LATE TEA"


def test_a_local_activity_is_mocked_like_any_other(env: Environment) -> None:
    env.mock(stamp).returns("stamped")
    assert env.run(buy, Order("tea")) == "stamped"


def test_an_activity_of_another_code_base_is_mocked_by_its_name(env: Environment) -> None:
    def count_letters(text: str) -> int:
        return len(text) + 1

    mock = env.mock("count_letters").side_effect(count_letters)
    assert env.run(elsewhere, "Ada") == 4
    mock.assert_called_once_with(text="Ada")


def test_a_mock_without_an_answer_returns_nothing_where_nothing_is_expected(env: Environment) -> None:
    assert env.mock(archive) is env.mock(archive)
    assert env.run(buy, Order("tea")) == "SHIPPED TEA"
    env.mock(ship)
    with pytest.raises(MockError, match=r"ship was called and does not know.*env.mock\(ship\).returns"):
        env.run(buy, Order("tea"))


def test_what_a_mock_is_asserted_to_have_been_called_with_is_compared_by_value(env: Environment) -> None:
    mock = env.mock(price).returns(1)
    mock.assert_not_called()
    with pytest.raises(AssertionError, match="price was not called"):
        mock.assert_called_with("tea")
    env.run(buy, Order("tea"), 2)
    mock.assert_called_once()
    with pytest.raises(AssertionError, match=r"price was called 1 times: .*'item': 'tea'"):
        mock.assert_not_called()
    mock.assert_called_with("tea", 2)
    mock.assert_called_with(item="tea", count=2)
    with pytest.raises(AssertionError, match=r"price was last called with .*'count': 2.* not with .*'count': 1"):
        mock.assert_called_with("tea")
    env.run(buy, Order("milk"), 2)
    with pytest.raises(AssertionError, match="price was called 2 times, not once"):
        mock.assert_called_once_with("milk", 2)


def test_a_mock_cannot_change_what_was_recorded_of_its_call(env: Environment) -> None:
    def spoils(order: Order) -> str:
        order.notes.clear()
        return "spoilt"

    mock = env.mock(ship, spoils)
    archived = env.mock(archive)
    env.run(buy, Order("tea"))
    assert mock.calls[0].arguments == {"order": Order("tea", ["costs 3"])} == archived.calls[0].arguments


def test_an_assertion_in_a_mock_is_the_tests_own(env: Environment) -> None:
    @orchestrator
    async def tolerant(ctx: Context) -> str:
        try:
            return await ship(Order("tea"))
        except ActivityError:
            return "swallowed"

    def checks(order: Order) -> str:
        assert order.item == "milk"
        return "sent"

    async def checks_later(order: Order) -> str:
        await asyncio.sleep(0)
        return checks(order)

    for replacement in (checks, checks_later):
        env.mock(ship).side_effect(replacement)
        with pytest.raises(AssertionError, match="milk"):
            env.run(tolerant)
    env.mock(ship).raises(AssertionError("in the activity"))
    assert env.run(tolerant) == "swallowed"


def test_a_mock_that_takes_time_lets_others_overtake_it(env: Environment) -> None:
    @orchestrator
    async def race(ctx: Context) -> tuple[str, str]:
        done, _ = await asyncio.wait(
            [asyncio.create_task(ship(Order("tea"))), asyncio.create_task(stamp("stamp"))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        return done.pop().result(), ctx.now().isoformat()

    env.mock(ship).takes(timedelta(minutes=5)).returns("shipped")
    env.mock(stamp).takes(timedelta(minutes=2)).returns("stamped")
    assert env.run(race) == ("stamped", "2030-01-01T00:02:00+00:00")


def test_a_mock_that_takes_too_long_times_out(env: Environment) -> None:
    mock = env.mock(price).takes(timedelta(minutes=2)).returns(3)
    with pytest.raises(ExecutionFailedError, match=r"did not end within 60 s \(start-to-close\)"):
        env.run(buy, Order("tea"))
    assert mock.calls[1].at == datetime(2030, 1, 1, 1, 1, tzinfo=UTC)
    assert "ActivityFailed price" in outline(env.history())


def test_a_mock_is_silent_where_heartbeats_are_expected(env: Environment) -> None:
    @activity(heartbeat_timeout=timedelta(minutes=1), retry=RetryPolicy(max_attempts=2, jitter=False))
    def slow() -> int:
        raise NotImplementedError

    @orchestrator
    async def patient(ctx: Context) -> int:
        return await slow()

    mock = env.mock(slow).takes(timedelta(minutes=5)).returns(3)
    with pytest.raises(ExecutionFailedError, match="attempt 2 of slow sent no heartbeat for 60 s"):
        env.run(patient)
    assert [call.at.minute for call in mock.calls] == [0, 1]
    mock.takes(timedelta(seconds=59))
    assert env.run(patient) == 3
