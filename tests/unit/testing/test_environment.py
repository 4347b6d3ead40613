"""The environment: virtual time, real activities, and what ends a test at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from durably import Context, DefinitionError, ExecutionFailedError, activity, orchestrator
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ConfigurationError, NonDeterminismError, TurnLimitError
from durably.runtime.runtime import Limits
from durably.schedules import Cron, Schedules
from durably.testing import Environment, MockError, WaitsForEverError, assert_in_order, outline
from durably.testing.definitions import OpenRegistry
from tests.unit.testing import programs
from tests.unit.testing.programs import Order, archive, buy, polling, price, sleepy, stuck, weighed


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


def test_activities_without_a_mock_run_for_real(env: Environment) -> None:
    assert env.run(buy, Order("tea")) == "SHIPPED TEA"
    assert outline(env.history()) == [
        "ExecutionStarted buy",
        "ActivityScheduled price",
        "ActivityCompleted price",
        "ActivityScheduled archive",
        "ActivityCompleted archive",
        "ActivityScheduled ship",
        "ActivityCompleted ship",
        "ActivityScheduled stamp",
        "ActivityCompleted stamp",
        "ExecutionCompleted",
    ]


def test_a_year_of_sleep_takes_no_time(env: Environment) -> None:
    began = time.monotonic()
    assert env.run(sleepy, 365) == "2031-01-01T00:00:00+00:00"
    assert time.monotonic() - began < 5
    assert env.now == datetime(2031, 1, 1, tzinfo=UTC)


def test_the_first_instant_can_be_chosen() -> None:
    with Environment(start_at=datetime(2024, 2, 28, tzinfo=UTC)) as env:
        assert env.run(sleepy, 1) == "2024-02-29T00:00:00+00:00"


def test_an_instant_without_a_time_zone_is_none() -> None:
    with pytest.raises(ConfigurationError, match="names no time zone"):
        Environment(start_at=datetime(2024, 2, 28))  # noqa: DTZ001  # what is refused


def test_the_same_test_comes_out_the_same() -> None:
    @orchestrator
    async def draws(ctx: Context) -> list[Any]:
        return [str(ctx.uuid4()), ctx.random.random()]

    def drawn(seed: int = 0) -> tuple[Any, str]:
        with Environment(seed=seed) as env:
            return env.run(draws), env.export()

    assert drawn() == drawn()
    assert drawn()[0] != drawn(seed=1)[0]


def test_time_passes_as_far_as_it_is_told_to(env: Environment) -> None:
    env.start("early", sleepy, 1)
    env.start("late", sleepy, 3)
    env.advance(timedelta(days=2))

    assert env.client.describe("early").status == "completed"
    assert env.client.describe("late").status == "running"
    assert env.now == datetime(2030, 1, 3, tzinfo=UTC)
    assert env.client.handle("late", sleepy).result() == "2030-01-04T00:00:00+00:00"


def test_a_function_is_called_at_its_time_among_what_else_happens(env: Environment) -> None:
    seen: list[tuple[str, str]] = []
    handle = env.start("nap", sleepy, 2)
    for days in (1, 3):
        env.after(timedelta(days=days), lambda: seen.append((str(env.now.date()), handle.describe().status)))
    env.advance(timedelta(days=4))
    assert seen == [("2030-01-02", "running"), ("2030-01-04", "completed")]


def test_what_a_function_at_its_time_raises_ends_the_wait(env: Environment) -> None:
    def refuse() -> None:
        raise ValueError("at noon")

    env.after(timedelta(hours=12), refuse)
    with pytest.raises(ValueError, match="at noon"):
        env.run(sleepy, 1)


def test_a_failure_is_raised_with_what_failed(env: Environment) -> None:
    @orchestrator
    async def fails(ctx: Context) -> None:
        raise KeyError("gone")

    with pytest.raises(ExecutionFailedError, match="KeyError: 'gone'"):
        env.run(fails)
    assert outline(env.history())[-1] == "ExecutionFailed"


def test_an_execution_that_waits_for_ever_says_for_what(env: Environment) -> None:
    with pytest.raises(WaitsForEverError, match=r"execution-1 \(stuck\).*\n.*only its own code could bring"):
        env.run(stuck)
    env.start("order-1", programs.confirmed, Order("tea"))
    with pytest.raises(
        WaitsForEverError, match=r"for confirm, attempt 1, called at testing/programs.py:\d+: its callback is open"
    ):
        env.client.handle("order-1").result()


def test_an_execution_that_polls_for_ever_is_told_from_one_that_is_long() -> None:
    with Environment(max_turns=50) as env, pytest.raises(WaitsForEverError, match=r"polling has taken 50 turns"):
        env.run(polling)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda env: env.advance(5), "by a timedelta that is not negative, got 5"),
        (lambda env: env.advance(timedelta(days=-1)), "that is not negative"),
        (lambda env: env.latest, "Nothing was started yet"),
        (lambda env: env.mock(len), "<built-in function len> is no activity and no orchestrator"),
    ],
)
def test_what_the_environment_cannot_do_is_named(use: Callable[[Environment], object], said: str) -> None:
    with Environment() as env, pytest.raises((ConfigurationError, MockError), match=said):
        use(env)


@pytest.mark.parametrize("what", ["a result was waited for", "time was advanced"])
def test_nothing_can_be_waited_for_while_something_else_is_under_way(what: str, env: Environment) -> None:
    handle = env.start("nap", sleepy, 1)
    env.after(timedelta(hours=1), handle.result if "result" in what else lambda: env.advance(timedelta(hours=1)))
    with pytest.raises(WaitsForEverError, match=f"{what}.*Do it in the test itself"):
        env.advance(timedelta(days=1))


def test_a_turn_that_cannot_be_taken_ends_the_test() -> None:
    @orchestrator
    async def endless(ctx: Context) -> None:
        for _ in count():
            await asyncio.sleep(0)

    limits = Limits(steps_per_event=1_000)
    with Environment(limits=limits) as env, pytest.raises(TurnLimitError, match="1000"):
        env.run(endless)


def test_an_environment_may_refuse_to_run_activities() -> None:
    with (
        Environment(run_activities=False) as env,
        pytest.raises(MockError, match=r"'price', which has no mock.*env.mock\(price\).returns"),
    ):
        env.run(buy, Order("tea"))


def test_a_contract_without_an_implementation_ends_the_test_although_the_code_would_catch_it(env: Environment) -> None:
    with pytest.raises(MockError, match=r"'weigh' is a contract without an implementation.*@weigh.implement"):
        env.run(weighed, Order("tea"))


def test_a_contract_can_be_mocked(env: Environment) -> None:
    env.mock(programs.weigh).returns(2.5)
    assert env.run(weighed, Order("tea")) == 2.5


def test_an_activity_that_nothing_names_ends_the_test(env: Environment) -> None:
    with pytest.raises(MockError, match=r"'count_letters', which is neither mocked nor found.*env.mock\('count"):
        env.run(programs.elsewhere, "Ada")


def test_activities_are_found_where_the_orchestrator_can_reach_them(env: Environment) -> None:
    @activity
    def inner(number: int) -> int:
        return number + 1

    async def helper(number: int) -> int:
        return await inner(number) + await price("abc")

    @orchestrator
    async def outer(ctx: Context) -> int:
        return await helper(1)

    assert env.run(outer) == 5


def test_an_orchestrator_that_another_one_names_is_found() -> None:
    @orchestrator
    async def child(ctx: Context) -> None: ...

    @orchestrator
    async def parent(ctx: Context) -> str:
        return child.name

    registry = OpenRegistry([parent], [], codec=PydanticCodec())
    found = registry.program("child")
    assert found is not None
    assert found.name == "child"
    assert registry.program("grandchild") is None


def test_another_orchestrator_of_the_same_name_is_refused_and_the_first_one_stays(env: Environment) -> None:
    assert env.run(sleepy, 0)
    with pytest.raises(DefinitionError, match="share the persisted name 'sleepy'"):
        env.run(orchestrator(name="sleepy")(stuck.fn))
    assert env.run(sleepy, 0)


def test_two_activities_of_a_name_are_not_guessed_between(env: Environment) -> None:
    def one_of_them(result: str) -> Any:
        @activity(name="ambiguous")
        def named() -> str:
            return result

        return named

    left, right = one_of_them("left"), one_of_them("right")

    @orchestrator
    async def both(ctx: Context) -> list[str]:
        return [await left(), await right()]

    with pytest.raises(DefinitionError, match=r"several definitions named 'ambiguous'"):
        env.run(both)
    with Environment(activities=[left]) as given:
        assert given.run(both) == ["left", "left"]


def test_non_determinism_fails_where_it_is(env: Environment) -> None:
    with pytest.raises(NonDeterminismError, match=r'history recorded .*"tea \d".*\n.*now asks for .*"tea \d"'):
        env.run(programs.remembers, "tea")


def test_the_replay_of_every_turn_can_be_turned_off() -> None:
    with Environment(replay_every_turn=False) as env:
        assert env.run(programs.remembers, "coffee") > 0


def test_the_orchestrator_logs_once_although_it_is_replayed(env: Environment, caplog: pytest.LogCaptureFixture) -> None:
    @orchestrator
    async def talks(ctx: Context) -> None:
        ctx.logger.info("before")
        await asyncio.sleep(1)
        ctx.logger.info("after")

    with caplog.at_level(logging.INFO, "durably.orchestrator.talks"):
        env.run(talks)
    assert [record.message for record in caplog.records if record.name.endswith("talks")] == ["before", "after"]


def test_nothing_that_the_test_holds_is_shared_with_the_orchestrator(env: Environment) -> None:
    order = Order("tea")
    archived = env.mock(archive)
    env.run(buy, order)
    assert order.notes == []
    assert archived.calls[0].arguments == {"order": Order("tea", ["costs 3"])}


async def _in_a_loop(env: Environment) -> None:
    env.run(buy, Order("tea"))


def test_an_asyncio_loop_around_an_asynchronous_activity_is_refused_with_the_remedy(env: Environment) -> None:
    with pytest.raises(ConfigurationError, match="Make the test a plain `def`"):
        asyncio.run(_in_a_loop(env))


def test_a_thousand_at_once_are_no_trouble() -> None:
    @orchestrator
    async def many(ctx: Context) -> int:
        return sum(await asyncio.gather(*(price("x" * (n % 7)) for n in range(1_000))))

    with Environment() as env:
        assert env.run(many) == sum(n % 7 for n in range(1_000))


def test_schedules_start_executions_in_virtual_time() -> None:
    with Environment(orchestrators=[sleepy], run_activities=False) as env:
        Schedules(env.client).create("nightly", Cron("30 2 * * *"), sleepy, days=0)
        env.advance(timedelta(days=3))
        started = sorted(record.execution_id for record in env.client.list(orchestrator="sleepy"))
        assert started == [f"nightly/2030-01-0{day}T02:30:00Z" for day in (1, 2, 3)]
        assert env.client.handle(started[2], sleepy).result() == "2030-01-03T02:30:00+00:00"


def test_lines_in_order_are_found_and_missed(env: Environment) -> None:
    env.run(buy, Order("tea"))
    assert_in_order(env.history(), "ExecutionStarted", "ActivityCompleted archive", "ExecutionCompleted")
    with pytest.raises(AssertionError, match="no 'ActivityCompleted price' after 'ActivityScheduled ship'"):
        assert_in_order(env.history(), "ActivityScheduled ship", "ActivityCompleted price")
