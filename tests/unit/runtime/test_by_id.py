"""Callbacks named by execution and activity instead of their token: what is meant, and nothing else, is completed."""

from __future__ import annotations

from typing import Any

import pytest

from durably import Callback, Context, RetryPolicy, attempt_info, callback_activity, orchestrator
from durably.core.errors import ActivityNotAwaitedError
from durably.runtime.callbacks import complete_callback
from tests.unit.runtime.harness import Process

HANDED: list[tuple[str, str]] = []


@callback_activity(retry=RetryPolicy(max_attempts=2, jitter=False))
def ask(callback: Callback[int], question: int) -> None:
    HANDED.append((attempt_info().idempotency_key, callback.token))


@orchestrator
async def survey(ctx: Context, question: int = 1) -> Any:
    answer = await ask(question)
    if question == 1:
        await ctx.continue_as_new(2)
    return answer


@pytest.fixture
def process() -> Process:
    HANDED.clear()
    return Process([survey, ask])


def test_a_key_of_an_earlier_run_completes_nothing_in_a_later_one(process: Process) -> None:
    process.client.start("e", survey)
    process.work()
    first = HANDED[0][0]
    process.client.complete_activity("e", first, 1)
    process.work()
    assert len(HANDED) == 2
    for repeated in (1, 5):
        with pytest.raises(ActivityNotAwaitedError):
            process.client.complete_activity("e", first, repeated)
    with pytest.raises(ActivityNotAwaitedError):
        process.client.heartbeat_activity("e", first)
    process.client.complete_activity("e", HANDED[1][0], 2)
    process.work()
    assert process.record().result == "2"


def test_a_key_outlives_a_reset_of_what_came_after_it(process: Process) -> None:
    process.client.start("e", survey, 3)
    process.work()
    process.client.reset("e", 2)
    process.work()
    process.client.complete_activity("e", HANDED[0][0], 7)
    process.work()
    assert process.record().result == "7"


def test_a_number_and_a_token_race_and_one_of_them_wins(process: Process) -> None:
    process.client.start("e", survey, 3)
    process.work()
    process.client.complete_activity("e", 1, 7)
    token = HANDED[0][1]
    assert [complete_callback(process.runtime, token, text).verdict for text in ("7", "8")] == ["accepted", "conflict"]
    with pytest.raises(ActivityNotAwaitedError, match="Another result was recorded"):
        process.client.complete_activity("e", 1, 8)
    process.work()
    assert process.record().result == "7"


def test_a_number_names_no_attempt_that_is_not_submitted(process: Process) -> None:
    process.client.start("e", survey, 3)
    process.work()
    process.client.fail_activity("e", 1, "no")
    with pytest.raises(ActivityNotAwaitedError):
        process.client.complete_activity("e", 1, 8)  # the next attempt waits for its back-off
    process.clock.advance(60_000)
    process.work()
    process.client.complete_activity("e", 1, 9)
    process.work()
    assert process.record().result == "9"
