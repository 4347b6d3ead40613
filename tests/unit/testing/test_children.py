"""Children in the environment: run for real where nobody mocks them, and answered for where somebody does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from durably import ActivityError, ChildError, Context, ExecutionFailedError, PayloadError, orchestrator
from durably.core.errors import NonDeterminismError
from durably.testing import Environment, MockError, WaitsForEverError, assert_in_order, outline
from tests.unit.testing.programs import GO, collect, family, guardian, measured, price, stuck


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


@pytest.fixture
def here() -> Iterator[Environment]:
    with Environment(hash_seeds=()) as env:
        yield env


def test_a_child_without_a_mock_runs_for_real(env: Environment) -> None:
    assert env.run(family, ["a", "tea"]) == [1, 3]
    assert outline(env.history("execution-1/1.2")) == [
        "ExecutionStarted measured",
        "ActivityScheduled price",
        "ActivityCompleted price",
        "ExecutionCompleted",
    ]


def test_a_child_is_replaced_by_a_value(env: Environment) -> None:
    mock = env.mock(measured).returns(9)
    pricing = env.mock(price)
    assert env.run(family, ["a", "b"]) == [9, 9]
    assert [call.arguments for call in mock.calls] == [{"name": "a", "factor": 1}, {"name": "b", "factor": 1}]
    assert [call.execution_id for call in mock.calls] == ["execution-1/1.1", "execution-1/1.2"]
    mock.assert_called_with("b")
    pricing.assert_not_called()
    assert [record.execution_id for record in env.client.list()] == ["execution-1"]


def test_a_child_is_replaced_by_a_function_or_one_answer_a_call(env: Environment) -> None:
    env.mock(measured, lambda name, factor=1: 100 * factor + len(name))
    assert env.run(family, ["tea"]) == [103]
    env.mock(measured).returns(1, 2)
    with pytest.raises(MockError, match="measured has 2 answers and was called once more"):
        env.run(family, ["a", "b", "c"])


def test_an_asynchronous_function_may_answer_for_a_child(env: Environment) -> None:
    async def answer(name: str, factor: int = 1) -> int:
        return len(name) + 10

    env.mock(measured, answer)
    assert env.run(family, ["tea"]) == [13]


def test_a_child_is_replaced_by_an_error(env: Environment) -> None:
    env.mock(measured).raises(ValueError("no scales"))
    with pytest.raises(ExecutionFailedError, match="no scales") as failed:
        env.run(family, ["a"])
    assert failed.value.failure.type.endswith("ChildError")
    cause = failed.value.failure.cause
    assert cause is not None
    assert cause.type.endswith("ValueError")


def test_a_value_that_the_child_could_not_return_is_refused_where_it_is_given(env: Environment) -> None:
    with pytest.raises(PayloadError):
        env.mock(measured).returns("nine")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_mocked_child_may_be_started_and_talked_to(env: Environment) -> None:
    env.mock(collect).returns([1, 2])
    assert env.run(guardian) == "execution-1/1.1 got [1, 2]"
    assert_in_order(env.history(), "ChildScheduled", "ChildStarted", "SignalSent", "SignalDelivered")
    assert_in_order(env.history(), "ChildStarted", "ChildCompleted")


def test_a_mocked_child_takes_its_time(env: Environment) -> None:
    env.mock(collect).takes(timedelta(hours=5)).returns([])
    assert env.run(guardian) == "execution-1/1.1 got []"
    assert env.now == datetime(2030, 1, 1, 5, tzinfo=UTC)
    env.mock(collect).takes(timedelta(hours=25))
    assert env.run(guardian) == "late"
    env.advance(timedelta(days=2))
    assert env.latest.describe().status == "completed"


def test_a_real_child_is_talked_to_by_the_test_too(env: Environment) -> None:
    @orchestrator
    async def parent(ctx: Context) -> list[int]:
        return await collect(2)

    handle = env.start("p", parent)
    env.signal("p/1.1", GO, 1)
    with pytest.raises(WaitsForEverError) as waits:
        handle.result()
    assert "for its child p/1.1 (collect), called at testing/test_children.py:" in str(waits.value)
    assert "p/1.1 (collect), started 2030-01-01 00:00:00+00:00\n    for the signal 'go'" in str(waits.value)
    env.signal("p/1.1", GO, 2)
    assert handle.result() == [1, 2]


def test_a_child_of_a_run_that_is_over_makes_room_for_its_successor(env: Environment) -> None:
    @orchestrator
    async def parent(ctx: Context) -> list[int]:
        return await collect(2)

    handle = env.start("p", parent)
    env.signal("p/1.1", GO, 1)
    env.client.reset("p", 1)
    env.advance(timedelta(seconds=5))
    env.signal("p/1.1", GO, 10)
    env.signal("p/1.1", GO, 20)
    assert handle.result() == [10, 20]
    assert env.now == datetime(2030, 1, 1, 0, 0, 5, tzinfo=UTC)


def test_an_orchestrator_that_is_mocked_runs_where_the_test_starts_it(env: Environment) -> None:
    env.mock(measured).returns(9)
    assert env.run(measured, "tea") == 3


def test_a_child_that_nobody_can_find_ends_the_test(env: Environment) -> None:
    found = {"child": stuck}

    @orchestrator
    async def dynamic(ctx: Context) -> None:
        child = orchestrator(name="made_here")(found["child"].fn)
        await child()

    with pytest.raises(MockError, match=r"asked for the child 'made_here', which is neither mocked nor found"):
        env.run(dynamic)


def test_children_are_thrown_out_of_memory_and_replayed_too(here: Environment) -> None:
    assert here.assert_replay_safe(family, ["a", "tea", "milk"]) == [1, 3, 4]
    assert here.client.describe("execution-1/1.3").turns == 3


def test_a_child_that_replays_in_another_order_elsewhere_is_found() -> None:
    with Environment() as env, pytest.raises(NonDeterminismError, match=r"under PYTHONHASHSEED=.*unordered_family"):
        env.assert_replay_safe(unordered_family)


def test_a_safe_family_is_safe_elsewhere(env: Environment) -> None:
    env.after(timedelta(hours=1), lambda: env.signal("execution-1/1.1", GO, 1))
    assert env.assert_replay_safe(guardian) == "execution-1/1.1 got [7]"


def test_a_child_that_fails_for_real_fails_its_parent(env: Environment) -> None:
    @orchestrator
    async def careful(ctx: Context) -> str:
        try:
            await measured("tea")
        except ChildError as error:
            return f"{error.matches(ActivityError)} {error.execution_id}"
        return ""

    env.mock(price).raises(ValueError("no scales"))
    assert env.run(careful) == "True execution-1/1.1"


@orchestrator
async def unordered_family(ctx: Context) -> list[int]:
    return await family([f"name-{number}" for number in range(3)]) + await unordered_child()


@orchestrator
async def unordered_child(ctx: Context) -> list[int]:
    return [await price(name) for name in {f"name-{number}" for number in range(12)}]
