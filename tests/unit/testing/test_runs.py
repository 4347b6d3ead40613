"""Executions that go on in another run: continue-as-new, retry, reset, fork, and suspension between."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

import pytest

from durably import ExecutionFailedError
from durably.codec.exports import decode_export
from durably.core.errors import NonDeterminismError
from durably.testing import Environment, WaitsForEverError, assert_in_order, outline
from tests.unit.testing import programs
from tests.unit.testing.programs import (
    GO,
    Order,
    approve,
    approved,
    collect,
    drifting,
    drifting_on,
    price,
    relay,
    sleepy,
    two_steps,
)


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


@pytest.fixture
def failed(env: Environment) -> Environment:
    env.mock(price).side_effect([ValueError("no scales"), 3, 6])
    with pytest.raises(ExecutionFailedError):
        env.start("e", two_steps).result()
    return env


def test_an_execution_goes_on_in_the_next_run(env: Environment) -> None:
    handle = env.start("e", relay, [])
    for number in (1, 2, 3):
        env.signal(handle, GO, number)
    assert handle.result() == [1, 2, 3]
    assert handle.describe().run == 3
    assert outline(env.history()) == ["ExecutionStarted relay", "SignalReceived go", "ExecutionCompleted"]
    assert [run["run"] for run in json.loads(env.export())["runs"]] == [1, 2, 3]


def test_continuing_is_safe_to_replay_with_signals_on_the_way(env: Environment) -> None:
    for hour in (1, 2, 3):
        env.after(timedelta(hours=hour), partial(env.signal, "execution-1", GO, hour))
    assert env.assert_replay_safe(relay, []) == [1, 2, 3]


def test_signals_that_arrive_together_are_applied_one_by_one(env: Environment) -> None:
    def burst() -> None:
        for number in (1, 2, 3, 4):
            env.client.signal(env.latest.execution_id, GO, number)

    env.after(timedelta(hours=1), burst)
    assert env.assert_replay_safe(collect, 4) == [1, 2, 3, 4]


def test_a_run_that_is_over_is_replayed_to_its_end() -> None:
    programs.times_asked.clear()
    with Environment() as env, pytest.raises(NonDeterminismError, match=r'"x".*\n.*"xx"'):
        env.run(drifting, 1)


def test_a_failed_execution_is_retried_from_its_last_good_point(failed: Environment) -> None:
    assert failed.client.retry("e") == 2
    assert failed.latest.result() == 9
    assert outline(failed.history()) == [
        "ExecutionStarted two_steps",
        "ActivityScheduled price",
        "ActivityCompleted price",
        "ActivityScheduled price",
        "ActivityCompleted price",
        "ExecutionCompleted",
    ]
    history = decode_export(failed.export())
    assert history.runs[1].turns[0].kind == "applied"


def test_a_prefix_is_replayed_as_any_turn_is() -> None:
    programs.times_asked.clear()
    with Environment(replay_every_turn=False) as env:
        env.mock(price).side_effect([1, *[ValueError("no scales")] * 4, 5])
        with pytest.raises(ExecutionFailedError):
            env.start("e", drifting_on).result()
        env.client.retry("e")
        with pytest.raises(NonDeterminismError, match=r'"x".*\n.*"xx"'):
            env.settle()


def test_a_reset_goes_back_and_the_past_is_gone(env: Environment) -> None:
    env.mock(price).returns(1, 2, 20)
    handle = env.start("e", two_steps)
    assert handle.result() == 3
    second = outline(env.history()).index("ActivityCompleted price") + 1
    env.client.reset("e", second)
    assert handle.result() == 21
    fork = env.client.fork("e", "f", to_event=1)
    env.mock(price).returns(7)
    assert fork.result() == 14


def test_a_callback_of_a_run_that_is_over_is_not_open(env: Environment) -> None:
    env.mock(approve)
    env.start("e", approved, Order("tea"))
    env.client.reset("e", 1)
    assert env.callbacks == []
    env.settle()
    assert len(env.callbacks) == 1
    env.callback(approve).complete(False)
    assert env.latest.result() == "refused"


def test_a_suspended_execution_says_that_it_is(env: Environment) -> None:
    handle = env.start("e", sleepy, 1)
    env.client.suspend("e")
    env.advance(timedelta(days=3))
    assert handle.describe().status == "suspended"
    with pytest.raises(WaitsForEverError, match=r"suspended: it goes on after env.client.resume\('e'\)"):
        handle.result()
    env.client.resume("e")
    assert handle.result() == "2030-01-02T00:00:00+00:00"  # when the timer was due, and kept
    assert_in_order(env.history(), "ExecutionSuspended", "TimerFired", "ExecutionCompleted", "ExecutionResumed")
