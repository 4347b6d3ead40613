"""Signals, queries, updates and cancellation in the environment, and time-outs of those who wait for an answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from durably import Context, ExecutionCancelledError, Signal, UpdateRejectedError, orchestrator
from durably.core.errors import QueryError, ResultTimeoutError, TurnTimeoutError
from durably.testing import Environment, WaitsForEverError, assert_in_order, outline
from tests.unit.testing.programs import ADD, GO, SEEN, Order, archive, collect, endless, patient, sleepy


@pytest.fixture
def env(durably_env: Environment) -> Environment:
    return durably_env


def test_a_signal_is_received_before_the_next_line_of_the_test(env: Environment) -> None:
    handle = env.start("e", collect, 2)
    env.signal(handle, GO, 1)
    assert env.query(handle, SEEN) == [1]
    env.signal("e", GO, 2)
    assert handle.describe().status == "completed"
    assert handle.result() == [1, 2]
    assert env.query("e", SEEN) == [1, 2]


def test_signals_arrive_while_time_passes(env: Environment) -> None:
    for day in (1, 2):
        env.after(timedelta(days=day), partial(env.signal, "execution-1", GO, day))
    assert env.run(collect, 2) == [1, 2]
    assert env.now == datetime(2030, 1, 3, tzinfo=UTC)
    assert outline(env.history()) == [
        "ExecutionStarted collect",
        "SignalReceived go",
        "SignalReceived go",
        "ExecutionCompleted",
    ]


def test_a_signal_starts_what_it_does_not_find(env: Environment) -> None:
    handle = env.signal_with_start("e", GO, 1, collect, 2)
    assert env.query(handle, SEEN) == [1]
    assert env.signal_with_start("e", GO, 2, collect, 2).result() == [1, 2]


def test_an_update_is_answered_in_virtual_time(env: Environment) -> None:
    handle = env.start("e", collect, 1)
    env.signal("e", GO, 4)
    handle = env.start("f", collect, 2)
    env.signal("f", GO, 4)
    assert env.update(handle, ADD, 3) == 7
    assert env.now == datetime(2030, 1, 1, 0, 1, tzinfo=UTC)
    before = env.history()
    with pytest.raises(UpdateRejectedError, match="a number to add is positive"):
        env.update("f", ADD, -1)
    assert env.history() == before


def test_a_query_whose_handler_does_not_end_is_refused() -> None:
    @orchestrator
    async def stuck(ctx: Context) -> None:
        def answer() -> list[int]:
            while True:
                pass

        ctx.on_query(SEEN, answer)
        await ctx.receive(GO)

    with Environment(turn_seconds=0.2) as env:
        env.start("e", stuck)
        with pytest.raises(QueryError, match="query 'seen' ran longer than a turn may take"):
            env.query("e", SEEN)
        with pytest.raises(QueryError, match="query 'seen' ran longer than a turn may take"):
            env.client.query_by_name("e", "seen")


def test_an_answer_that_needs_no_time_can_be_had_on_the_way(env: Environment) -> None:
    answers: list[str] = []

    def refused() -> None:
        with pytest.raises(UpdateRejectedError):
            env.update("e", ADD, -1)
        env.signal("e", GO, 5)
        answers.append(str(env.query("e", SEEN)))

    handle = env.start("e", collect, 1)
    env.after(timedelta(hours=1), refused)
    assert handle.result() == [5]
    assert answers == ["[5]"]


def test_a_cancelled_execution_cleans_up(env: Environment) -> None:
    archived = env.mock(archive)
    handle = env.start("e", patient)
    env.cancel(handle, "enough")
    archived.assert_not_called()
    with pytest.raises(ExecutionCancelledError, match="enough"):
        handle.result()
    archived.assert_called_once_with(Order("rubbish"))
    assert env.now == datetime(2030, 1, 1, 1, tzinfo=UTC)


def test_a_cancellation_on_the_way(env: Environment) -> None:
    env.after(timedelta(days=1), lambda: env.cancel(env.latest))
    with pytest.raises(ExecutionCancelledError, match="cancelled by the test"):
        env.run(patient)
    assert_in_order(env.history(), "ExecutionCancelRequested", "TimerFired", "ActivityCompleted", "ExecutionCancelled")


def test_waiting_for_a_result_ends_in_virtual_time(env: Environment) -> None:
    began = time.monotonic()
    handle = env.start("e", sleepy, 2)
    with pytest.raises(ResultTimeoutError, match="did not close within 86400 s"):
        handle.result(timeout=86_400)
    assert env.now == datetime(2030, 1, 2, tzinfo=UTC)
    with pytest.raises(ResultTimeoutError):
        handle.result(timeout=0)
    assert handle.result(timeout=86_400) == "2030-01-03T00:00:00+00:00"
    assert time.monotonic() - began < 5


def test_waiting_for_what_nothing_brings_ends_too_if_it_has_an_end(env: Environment) -> None:
    handle = env.start("e", collect, 1)
    with pytest.raises(ResultTimeoutError):
        handle.result(timeout=5)
    with pytest.raises(ResultTimeoutError, match="did not reply within 30 s"):
        handle.update(ADD, 1, timeout=30)
    assert handle.update(ADD, 1, timeout=90) == 1
    assert env.now == datetime(2030, 1, 1, 0, 1, 35, tzinfo=UTC)


def test_an_execution_that_waits_for_a_signal_says_so(env: Environment) -> None:
    handle = env.start("e", collect, 1)
    with pytest.raises(WaitsForEverError, match=r"e \(collect\).*\n    for the signal 'go'. Send it, env.signal\('e',"):
        handle.result()
    env.signal("e", Signal[int]("gogo"), 1)
    with pytest.raises(
        WaitsForEverError, match=r"'go'.*\n    the signal 'gogo' was sent to it, and it has not received"
    ):
        handle.result()
    env.signal("e", GO, 1)
    assert handle.result() == [1]


def test_a_turn_that_never_ends_ends_the_test() -> None:
    with Environment(turn_seconds=0.2) as env, pytest.raises(TurnTimeoutError, match="ran longer than a turn may take"):
        env.run(endless)
