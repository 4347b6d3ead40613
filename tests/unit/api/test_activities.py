"""`@activity` and `@callback_activity`: what a declaration is, and what calling it means where."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from durably import Callback, Context, DefinitionError, RetryPolicy, activity, attempt_info, callback_activity
from durably.api.activity import Activity
from durably.api.attempt import AttemptInfo, current_attempt
from durably.codec.payloads import PydanticCodec
from durably.core.commands import Command, ScheduleActivity
from durably.core.events import ExecutionStarted
from durably.core.execution import Execution, Program
from durably.core.keys import RunKey
from durably.core.loop import OrchestratorLoop
from durably.core.options import ActivityOptions

CODEC = PydanticCodec()
SECOND = timedelta(seconds=1)
TWICE = RetryPolicy(max_attempts=2)


@activity
def double(number: int, *, times: int = 1) -> int:
    """Twice the number, or more."""
    return number << times


@activity(name="halve-it", aliases=["halve", "half"], retry=TWICE, timeout=SECOND, schedule_to_start=2 * SECOND)
async def halve(number: int) -> float:
    return number / 2


@callback_activity(timeout=timedelta(minutes=1))
def order(callback: Callback[int], article: str) -> None:
    raise AssertionError("nobody hands a request over here")


def asked(call: Callable[[], Coroutine[Any, Any, Any]]) -> list[Command]:
    """What an orchestrator that makes this call asks for."""

    async def calling(ctx: Context) -> None:
        await call()

    program = Program(
        name="o", start=lambda ctx, _: calling(ctx), arguments=CODEC.arguments(calling, skip=1), result=CODEC.value(Any)
    )
    execution = Execution(RunKey("e", "g", 1), program, CODEC)
    try:
        return execution.apply(ExecutionStarted(orchestrator="o", input="{}", seed=1, python="3.11"))
    finally:
        execution.close()


def scheduled(call: Callable[[], Coroutine[Any, Any, Any]]) -> ScheduleActivity:
    (command,) = asked(call)
    assert isinstance(command, ScheduleActivity), command
    return command


# --- declarations -------------------------------------------------------------------------------------------


def test_a_declaration_knows_its_function() -> None:
    assert (double.name, double.aliases, double.__doc__) == ("double", (), "Twice the number, or more.")
    assert (halve.name, halve.aliases) == ("halve-it", ("halve", "half"))
    assert double.fn(2, times=3) == 16
    assert asyncio.run(halve.fn(3)) == 1.5
    assert repr(halve) == "<activity halve-it>"


class Shop:
    def sell(self, article: str) -> str:
        return f"sold {article}"


def test_a_method_is_refused_until_it_is_bound() -> None:
    with pytest.raises(DefinitionError, match=r"Shop\.sell is a method.*activity\(service\.sell\)"):
        activity(Shop.sell)
    bound = activity(Shop().sell)
    assert bound.name == "sell"
    assert asyncio.run(bound("tea")) == "sold tea"


@pytest.mark.parametrize("name", ["", "1st", "with space", "ä", "a" * 129, "a/b", "a\n"])
def test_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be a persisted name"):
        activity(name=name)(double.fn)
    with pytest.raises(DefinitionError, match="cannot be a persisted name"):
        activity(aliases=["fine", name])(double.fn)


@pytest.mark.parametrize("name", ["a", "_", "A.b-c_9", "a" * 128])
def test_a_name_that_can_be_stored_is_taken(name: str) -> None:
    assert activity(name=name)(double.fn).name == name


def test_one_alias_is_still_a_list() -> None:
    with pytest.raises(DefinitionError, match="aliases must be a sequence of names"):
        activity(aliases="halve")(double.fn)


def test_what_has_no_name_must_be_given_one() -> None:
    for nameless in (lambda: 1, functools.partial(double.fn, 1)):
        with pytest.raises(DefinitionError, match="has no name to persist"):
            activity(nameless)
        assert activity(name="given")(nameless).name == "given"


@pytest.mark.parametrize("option", ["timeout", "schedule_to_start", "schedule_to_close"])
@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(seconds=-1), 5])
def test_a_duration_that_is_none_is_refused(option: str, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=f"{option} must be a positive timedelta"):
        activity(**{option: wrong})(double.fn)
    with pytest.raises(DefinitionError, match=f"{option} must be a positive timedelta"):
        double.options(**{option: wrong})


@pytest.mark.parametrize("option", ["timeout", "schedule_to_start", "schedule_to_close", "heartbeat_timeout"])
def test_a_duration_that_ends_beyond_the_calendar_is_refused(option: str) -> None:
    durations: dict[str, Any] = {option: timedelta.max}
    with pytest.raises(DefinitionError, match=f"{option} is at most 36500 days"):
        activity(**durations)(double.fn)


def test_a_retry_policy_is_none_but_itself() -> None:
    three: Any = 3
    with pytest.raises(
        DefinitionError, match=r"activity double: retry must be a RetryPolicy\(max_attempts=...\), got 3"
    ):
        double.options(retry=three)


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"local=True and at_most_once=True exclude each other"):
        activity(local=True, at_most_once=True)(double.fn)
    with pytest.raises(DefinitionError, match="exclude each other"):
        activity(local=True)(double.fn).options(at_most_once=True)
    with pytest.raises(DefinitionError, match="cannot be local"):
        order.options(local=True)
    with pytest.raises(DefinitionError, match="cannot be at_most_once"):
        order.options(at_most_once=True)


def test_a_callback_activity_must_say_what_its_callback_brings() -> None:
    def untyped(callback, article: str) -> None:  # type: ignore[no-untyped-def]
        """Nothing says what the callback brings."""

    def bare(callback: Callback, article: str) -> None:  # type: ignore[type-arg]
        """The callback brings something."""

    for function in (untyped, bare):
        with pytest.raises(DefinitionError, match=r"must take a Callback\[T\] as its first parameter"):
            callback_activity(function).result_shape(CODEC)


# --- implementations ------------------------------------------------------------------------------------------


def contract() -> Activity[[int], int]:
    @activity
    def resize(pixels: int) -> int:
        raise NotImplementedError

    return resize


def test_a_contract_is_implemented_once() -> None:
    resize = contract()

    @resize.implement
    def really(pixels: int) -> int:
        return pixels // 2

    assert [each.implemented for each in (resize, contract())] == [True, False]
    assert asyncio.run(resize(8)) == 4
    with pytest.raises(DefinitionError, match=r"already has the implementation .*really"):
        resize.implement(really)


def test_an_implementation_serves_every_copy_made_before_and_after() -> None:
    resize = contract()
    before = resize.options(timeout=SECOND)
    before.implement(lambda pixels: pixels + 1)
    after = resize.options(timeout=2 * SECOND)
    assert [asyncio.run(each(1)) for each in (resize, before, after)] == [2, 2, 2]


# --- options --------------------------------------------------------------------------------------------------


def test_options_make_a_copy_and_keep_what_was_not_given() -> None:
    other = halve.options(schedule_to_close=timedelta(hours=1), at_most_once=True)
    assert other is not halve
    assert (other.name, other.fn) == (halve.name, halve.fn)
    assert other.settings == ActivityOptions(
        retry=TWICE,
        start_to_close_ms=1_000,
        schedule_to_start_ms=2_000,
        schedule_to_close_ms=3_600_000,
        at_most_once=True,
    )
    assert halve.settings == ActivityOptions(retry=TWICE, start_to_close_ms=1_000, schedule_to_start_ms=2_000)


def test_options_can_be_taken_back() -> None:
    once = activity(at_most_once=True)(double.fn)
    assert once.options(at_most_once=False).settings == double.settings
    local = activity(local=True)(double.fn)
    assert local.options(local=False).settings == double.settings
    assert local.options(timeout=SECOND).settings.mode == "local"


def test_copies_do_not_share_their_settings() -> None:
    slow, fast = double.options(timeout=5 * SECOND), double.options(timeout=SECOND)
    assert (slow.settings.start_to_close_ms, fast.settings.start_to_close_ms) == (5_000, 1_000)
    assert double.settings == ActivityOptions()


# --- inside an orchestrator -------------------------------------------------------------------------------------


def test_a_call_is_asked_for_with_its_arguments_by_name_and_where_it_was_made() -> None:
    command = scheduled(lambda: double(3, times=2))
    assert (command.seq, command.name, command.input) == (1, "double", '{"number":3,"times":2}')
    assert command.options is None
    assert str(command.site).startswith("api/test_activities.py:")


def test_each_copy_is_asked_for_with_its_own_options() -> None:
    assert scheduled(lambda: halve(3)).options == halve.settings
    assert scheduled(lambda: halve.options(local=True)(3)).options == halve.options(local=True).settings


def test_a_callback_activity_is_called_without_its_callback() -> None:
    command = scheduled(lambda: order("tea"))
    assert (command.name, command.input) == ("order", '{"article":"tea"}')
    assert command.options is not None
    assert (command.options.mode, command.options.start_to_close_ms) == ("callback", 60_000)
    assert command.options.retry == RetryPolicy(max_attempts=1)


def test_arguments_are_taken_at_the_call() -> None:
    @activity
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    async def later() -> None:
        numbers = [1, 2]
        call = total(numbers)
        numbers.append(3)
        await call

    assert scheduled(later).input == '{"numbers":[1,2]}'


def test_what_is_never_awaited_is_never_asked_for() -> None:
    async def forgetful() -> None:
        call = double(1)
        call.close()

    assert [type(command).__name__ for command in asked(forgetful)] == ["CompleteExecution"]


@pytest.mark.filterwarnings("default")
def test_pythons_warning_of_a_forgotten_await_names_the_activity() -> None:
    async def forgetful() -> None:
        double(1)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

    with pytest.warns(RuntimeWarning, match="coroutine 'double' was never awaited"):
        asked(forgetful)
    with pytest.warns(RuntimeWarning, match="coroutine 'double' was never awaited"):
        double(1)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def test_options_given_in_a_loop_are_prepared_once() -> None:
    async def looping() -> None:
        for _ in range(100):
            halve.options(at_most_once=True)(1).close()
        execution = cast(OrchestratorLoop, asyncio.get_running_loop()).owner
        prepared.append(len(cast(Execution, execution).prepared))

    prepared: list[int] = []
    asked(looping)
    assert prepared == [1]


# --- elsewhere --------------------------------------------------------------------------------------------------


def test_outside_an_orchestrator_an_activity_just_runs_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    fresh = activity(name="said-once")(double.fn)

    async def calling() -> int:
        return await fresh(1) + await fresh(2)

    with caplog.at_level(logging.INFO, "durably.activity"):
        assert asyncio.run(calling()) == 6
    assert len([message for message in caplog.messages if "said-once" in message]) == 1


def test_outside_an_orchestrator_a_callback_activity_names_the_remedy() -> None:
    with pytest.raises(DefinitionError, match=r"order\.fn\(callback, \.\.\.\)"):
        asyncio.run(order("tea"))


def test_a_callback_activity_is_unit_tested_with_a_callback_of_ones_own() -> None:
    handed: list[str] = []

    @callback_activity
    def submit(callback: Callback[int], article: str) -> None:
        handed.append(f"{article} to {callback.url}")

    submit.fn(Callback(url="http://here/t", token="t", expires_at=datetime.now(UTC)), "tea")
    assert handed == ["tea to http://here/t"]


def test_only_a_running_activity_knows_its_attempt() -> None:
    context = contextvars.Context()
    with pytest.raises(DefinitionError, match="outside a running activity"):
        context.run(attempt_info)
    info = AttemptInfo(execution_id="e", activity="a", attempt=2, idempotency_key="k")
    context.run(current_attempt.set, info)
    assert context.run(attempt_info) is info
