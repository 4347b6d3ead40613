"""Callbacks: the item of the activity alone arbitrates, and whoever calls back is told the truth (promise P7)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from durably import ActivityError, Callback, Context, Failure, RetryPolicy, callback_activity, orchestrator
from durably.adapters.tokens import HmacTokenSigner
from durably.core.errors import ActivityNotAwaitedError
from durably.ports.messages import ActivityTask, CallbackDeadline, Delivery
from durably.runtime.attempt import Attempt, attempt_raised, open_attempt
from durably.runtime.callbacks import callback_deadline, complete_callback, fail_callback
from durably.runtime.runtime import Limits
from tests.unit.runtime.harness import LEASE_MS, Process

HANDED: list[Callback[int]] = []
BROKEN: list[Exception] = []
MINUTE_MS = 60_000
REFUSED = Failure(type="shop.Refused", message="sold out")


@callback_activity(timeout=timedelta(minutes=1), retry=RetryPolicy(max_attempts=2, jitter=False))
def order(callback: Callback[int], article: str) -> None:
    HANDED.append(callback)
    if BROKEN:
        raise BROKEN.pop()


@callback_activity
def patient(callback: Callback[int]) -> None:
    HANDED.append(callback)


@orchestrator
async def shop(ctx: Context, article: str = "tea") -> Any:
    try:
        return await order(article)
    except ActivityError as error:
        return [error.type.rpartition(".")[2], error.attempt]


@orchestrator
async def forever(ctx: Context) -> int:
    return await patient()


@orchestrator
async def again(ctx: Context, run: int = 1) -> int:
    asking = asyncio.create_task(patient())
    await asyncio.sleep(1)
    if run == 1:
        await ctx.continue_as_new(2)
    return await asking


@pytest.fixture
def process() -> Process:
    HANDED.clear()
    BROKEN.clear()
    return Process([shop, forever, again, order, patient], limits=Limits(payload_bytes=100))


def submitted(process: Process) -> str:
    """Start a shop and submit its order; the token."""
    process.client.start("e", shop)
    process.work()
    return HANDED[-1].token


def verdict(process: Process, token: str, payload: Any) -> str:
    return complete_callback(process.runtime, token, json.dumps(payload)).verdict


def test_a_callback_completes_its_activity(process: Process) -> None:
    token = submitted(process)
    assert HANDED[0].url == f"http://here/callbacks/{token}"
    assert verdict(process, token, 7) == "accepted"
    process.work()
    assert process.record().result == "7"


def test_the_same_callback_again_is_accepted_and_another_one_is_not(process: Process) -> None:
    token = submitted(process)
    for payload, expected in ((7, "accepted"), (7, "accepted"), (8, "conflict"), (7, "accepted")):
        assert verdict(process, token, payload) == expected
    assert fail_callback(process.runtime, token, REFUSED).verdict == "conflict"
    process.work()
    assert process.record().result == "7"
    assert process.kinds().count("ActivityCompleted") == 1
    assert (verdict(process, token, 7), verdict(process, token, 8)) == ("accepted", "conflict")


def test_a_repetition_sends_again_what_a_crash_lost(process: Process) -> None:
    token = submitted(process)
    verdict(process, token, 7)
    process.backend.acknowledge([delivery.receipt for delivery in process.receive()])
    process.work()
    assert not process.record().closed
    verdict(process, token, 7)
    process.work()
    assert process.record().result == "7"


def test_a_check_that_is_left_behind_sends_again_what_a_crash_lost(process: Process) -> None:
    token = submitted(process)
    verdict(process, token, 7)
    process.backend.acknowledge([delivery.receipt for delivery in process.receive()])
    process.clock.advance(2 * MINUTE_MS)
    process.work()
    assert process.record().result == "7"


def test_a_failure_is_retried_with_a_fresh_token(process: Process) -> None:
    first = submitted(process)
    assert fail_callback(process.runtime, first, REFUSED).verdict == "accepted"
    process.clock.advance(1_000)
    process.work()
    second = HANDED[-1].token
    assert second != first
    assert verdict(process, first, 7) == "conflict"
    assert fail_callback(process.runtime, second, REFUSED).verdict == "accepted"
    process.work()
    assert process.record().result == '["Refused",2]'
    assert fail_callback(process.runtime, second, REFUSED).verdict == "accepted"


def test_a_failure_that_is_told_again_is_accepted_again_whatever_it_led_to(process: Process) -> None:
    def tell(token: str) -> list[str]:
        other = Failure(type="shop.Refused", message="closed")
        answers = [fail_callback(process.runtime, token, failure).verdict for failure in (REFUSED, other)]
        return [*answers, verdict(process, token, 7)]

    first = submitted(process)
    assert tell(first) == ["accepted", "conflict", "conflict"]
    assert tell(first) == ["accepted", "conflict", "conflict"]  # the next attempt is on its way
    process.clock.advance(1_000)
    process.work()
    assert tell(first) == ["accepted", "conflict", "conflict"]  # it is open
    assert len(HANDED) == 2
    process.clock.advance(MINUTE_MS)
    process.work()
    assert process.record().result == '["ActivityTimeoutError",2]'
    assert tell(first) == ["accepted", "conflict", "conflict"]  # it has failed
    assert tell(HANDED[1].token) == ["gone", "gone", "gone"]
    assert process.kinds().count("ActivityFailed") == 1


def test_a_failure_that_came_before_the_one_told_last_has_been_left_behind(process: Process) -> None:
    first = submitted(process)
    fail_callback(process.runtime, first, REFUSED)
    process.clock.advance(1_000)
    process.work()
    assert verdict(process, HANDED[-1].token, 7) == "accepted"
    assert fail_callback(process.runtime, first, REFUSED).verdict == "gone"


def test_a_failure_that_must_not_be_retried_is_not(process: Process) -> None:
    token = submitted(process)
    fail_callback(process.runtime, token, Failure(type="shop.Refused", message="", non_retryable=True))
    process.work()
    assert process.record().result == '["Refused",1]'


def test_a_deadline_that_passes_gives_the_next_attempt_a_fresh_token_and_then_fails(process: Process) -> None:
    first = submitted(process)
    process.clock.advance(MINUTE_MS)
    assert verdict(process, first, 7) == "gone"
    process.work()
    process.clock.advance(1_000)
    process.work()
    second = HANDED[-1].token
    assert second != first
    assert verdict(process, first, 7) == "gone"
    process.clock.advance(MINUTE_MS)
    process.work()
    assert process.record().result == '["ActivityTimeoutError",2]'
    assert verdict(process, second, 7) == "gone"


def test_a_callback_in_the_last_moment_counts_and_its_deadline_changes_nothing(process: Process) -> None:
    token = submitted(process)
    process.clock.advance(MINUTE_MS - 1)
    assert verdict(process, token, 7) == "accepted"
    process.clock.advance(MINUTE_MS)
    process.work()
    assert process.record().result == "7"
    assert process.queued(CallbackDeadline) == []


def test_without_a_deadline_a_callback_is_awaited_for_ever(process: Process) -> None:
    process.client.start("e", forever)
    process.work()
    process.clock.advance(100 * 365 * 24 * 3600 * 1000)
    process.work()
    assert verdict(process, HANDED[0].token, 7) == "accepted"
    process.work()
    assert process.record().result == "7"


def test_a_submission_delivered_again_keeps_its_token(process: Process) -> None:
    process.client.start("e", shop)
    process.take_due()
    (task,) = process.tasks()
    process.run(task)
    process.clock.advance(LEASE_MS // 2)
    process.run(task)
    assert len(HANDED) == 2
    assert HANDED[0] == HANDED[1]


def test_a_submission_that_fails_is_retried_and_its_token_dies(process: Process) -> None:
    BROKEN.append(OSError("no line"))
    first = submitted(process)
    assert verdict(process, first, 7) == "gone"
    process.clock.advance(1_000)
    process.work()
    assert verdict(process, HANDED[-1].token, 7) == "accepted"


def test_a_callback_may_overtake_its_submission(process: Process) -> None:
    process.client.start("e", shop)
    process.take_due()
    (task,) = process.tasks()
    opened = open_attempt(process.runtime, task)
    assert isinstance(opened, Attempt)
    opened.call()
    assert verdict(process, HANDED[0].token, 7) == "accepted"
    assert attempt_raised(process.runtime, opened, OSError("the line broke after the request was through")) is None
    process.work()
    assert process.record().result == "7"


@pytest.mark.parametrize("payload", ['"seven"', "{", "", "null", "[7]"])
def test_a_payload_that_does_not_fit_is_refused_and_leaves_the_callback_open(process: Process, payload: str) -> None:
    token = submitted(process)
    answer = complete_callback(process.runtime, token, payload)
    assert answer.verdict == "invalid"
    assert answer.message
    assert verdict(process, token, 7) == "accepted"


def test_a_payload_that_is_too_large_is_refused_with_the_limit(process: Process) -> None:
    token = submitted(process)
    answer = complete_callback(process.runtime, token, '"' + "ü" * 50 + '"')
    assert answer.verdict == "too large"
    assert "102 bytes, more than 100" in answer.message


def test_a_token_of_another_deployment_or_none_is_refused(process: Process) -> None:
    token = submitted(process)
    claims = process.runtime.signer.verify(token)
    foreign = HmacTokenSigner("elsewhere", {"k": b"0123456789abcdef"}, "k").sign(claims)
    for forged in (foreign, "", "x", token[:-1], token[::-1], token + "A"):
        assert verdict(process, forged, 7) == "unauthorised"
        assert fail_callback(process.runtime, forged, REFUSED).verdict == "unauthorised"
    assert verdict(process, token, 7) == "accepted"


def test_a_token_dies_with_its_execution_and_is_worth_nothing_in_the_next_life(process: Process) -> None:
    token = submitted(process)
    process.client.terminate("e")
    process.work()
    assert verdict(process, token, 7) == "gone"
    process.client.start("e", shop.options(id_reuse="allow_if_closed"))
    process.work()
    assert verdict(process, token, 7) == "gone"
    assert verdict(process, HANDED[-1].token, 7) == "accepted"


def test_the_deadline_of_an_opener_that_died_does_not_end_the_callback_early(process: Process) -> None:
    token = submitted(process)
    ((message, _),) = process.backend.messages()
    assert isinstance(message, CallbackDeadline)
    earlier = replace(message, deadline_ms=message.deadline_ms - 1)
    callback_deadline(process.runtime, Delivery(earlier, "of the earlier message"))
    assert verdict(process, token, 7) == "accepted"


def test_a_submission_that_was_sent_again_and_broke_off_is_made_once_more(process: Process) -> None:
    """Its item is there already, which on a first delivery says that another task is under way."""
    process.client.start("e", shop)
    process.take_due()
    (task,) = process.tasks()
    assert isinstance(task.message, ActivityTask)
    task = replace(task, message=replace(task.message, again=True))
    assert isinstance(open_attempt(process.runtime, task), Attempt)  # the response to this write was lost
    assert isinstance(open_attempt(process.runtime, task.once_more), Attempt)
    assert open_attempt(process.runtime, task) is None


def test_a_submission_that_is_delivered_again_sends_its_deadline_again(process: Process) -> None:
    process.client.start("e", shop)
    process.take_due()
    (task,) = process.tasks()
    open_attempt(process.runtime, task)
    process.clock.advance(MINUTE_MS)
    lost = [delivery for delivery in process.receive() if isinstance(delivery.message, CallbackDeadline)]
    process.backend.acknowledge([delivery.receipt for delivery in lost])
    process.clock.advance(LEASE_MS)
    process.work()
    process.clock.advance(1_000)
    process.work()
    assert HANDED[-1].token != HANDED[0].token  # the second attempt's


# --- without the token ------------------------------------------------------------------------------------------------


def test_a_key_of_an_earlier_run_is_not_taken_for_the_activity_of_the_same_number(process: Process) -> None:
    process.client.start("e", again)
    process.work()
    process.clock.advance(1_000)
    process.work()
    gen = process.record().gen
    with pytest.raises(ActivityNotAwaitedError, match="run 2, awaits no callback"):
        process.client.complete_activity("e", f"{gen}.1.2", 7)
    process.client.complete_activity("e", f"{gen}.2.2", 8)
    process.clock.advance(1_000)
    process.work()
    assert process.record().result == "8"


def test_a_key_is_good_for_the_run_that_a_reset_began(process: Process) -> None:
    process.client.start("e", forever)
    process.work()
    process.client.reset("e", 1)
    process.work()
    record = process.record()
    assert record.run == 2
    process.client.complete_activity("e", f"{record.gen}.1.1", 9)
    process.work()
    assert process.record().result == "9"
