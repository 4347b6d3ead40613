"""`assert_replay_safe`: what it finds that an ordinary run does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from durably import Context, ExecutionFailedError, orchestrator
from durably.core.errors import ConfigurationError, NonDeterminismError
from durably.testing import Environment, assert_in_order, assert_replay_safe
from tests.unit.testing import programs
from tests.unit.testing.programs import Order, approve, approved, buy, price, unordered


@pytest.fixture
def env() -> Iterator[Environment]:
    with Environment(hash_seeds=()) as env:
        yield env


def test_an_orchestrator_that_is_safe_returns_what_it_always_does() -> None:
    assert assert_replay_safe(buy, Order("tea")) == "SHIPPED TEA"


def test_an_orchestrator_is_checked_with_the_mocks_and_the_time_of_an_environment(env: Environment) -> None:
    env.mock(approve)
    env.after(timedelta(hours=30), lambda: env.callback(approve).complete(True))
    assert env.assert_replay_safe(approved, Order("tea")) == "approved"
    assert_in_order(env.history(), "ActivityScheduled approve", "ActivityCompleted approve")


def test_it_is_restarted_at_every_event(env: Environment) -> None:
    """Events that arrive together are applied one a turn, and what ran before is closed each time."""
    closed: list[int] = []

    @orchestrator
    async def gathers(ctx: Context) -> int:
        try:
            return sum(await asyncio.gather(*(price("x" * n) for n in range(5))))
        except GeneratorExit:
            closed.append(1)
            raise
        finally:
            closed.append(0)

    assert env.assert_replay_safe(gathers) == 10
    assert [entry.turn for entry in env.history() if entry.event.kind == "ActivityCompleted"] == [3] * 5
    assert env.client.describe("execution-1").turns == 7
    assert len(closed) > 7


def test_an_execution_that_fails_is_replayed_before_its_error_is_raised(env: Environment) -> None:
    @orchestrator
    async def fails(ctx: Context, *, safely: bool) -> None:
        if not safely:
            names.append(await price(f"tea {len(names)}"))
        raise ValueError("as planned")

    names: list[int] = []
    with pytest.raises(ExecutionFailedError, match="as planned"):
        env.assert_replay_safe(fails, safely=True)
    with pytest.raises(NonDeterminismError):
        env.assert_replay_safe(fails, safely=False)


def test_state_that_outlives_a_replay_is_found(env: Environment) -> None:
    with pytest.raises(NonDeterminismError, match="the code now asks for price"):
        env.assert_replay_safe(programs.remembers, "tea")


def test_the_order_of_a_set_is_found_in_another_process() -> None:
    names = [f"name-{number}" for number in range(12)]
    with Environment() as env:
        env.run(unordered, names)  # an ordinary test does not see it
        with pytest.raises(NonDeterminismError, match=r"under PYTHONHASHSEED=\d(.|\n)*the code now asks for price"):
            env.assert_replay_safe(unordered, names)


def test_the_order_of_addresses_is_found() -> None:
    with Environment() as env, pytest.raises(NonDeterminismError, match="the code now asks for price"):
        env.assert_replay_safe(programs.by_address, [f"name-{number}" for number in range(40)])


def test_an_orchestrator_that_no_other_process_can_import_says_so() -> None:
    @orchestrator
    async def local(ctx: Context) -> None: ...

    with pytest.raises(ConfigurationError, match=r"cannot import it.*hash_seeds=\(\)"):
        assert_replay_safe(local)
