"""What `ctx` answers: the same at every replay."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from durably.core.channels import Query, Signal
from durably.core.context import Context
from durably.core.errors import DefinitionError, PayloadError
from tests.unit.core.conftest import Start
from tests.unit.core.harness import START_MS, Run, ask

START = datetime.fromtimestamp(START_MS / 1000, UTC)


def test_now_is_the_time_of_the_event(start: Start) -> None:
    async def clock(ctx: Context) -> list[str]:
        first = ctx.now()
        await ask(ctx, "a")
        assert first.tzinfo is UTC
        return [first.isoformat(), ctx.now().isoformat()]

    run = start(clock)
    later = START + timedelta(milliseconds=1_234)
    assert run.completed(1, after_ms=1_234) == [f'return ["{START.isoformat()}", "{later.isoformat()}"]']


def test_chance_comes_from_the_seed(start: Start) -> None:
    async def chance(ctx: Context) -> list[Any]:
        before = [ctx.random.random(), str(ctx.uuid4())]
        await ask(ctx, "a", before=before)
        return [ctx.random.random(), str(ctx.uuid4())]

    first, second, other = start(chance, seed=1), start(chance, seed=1), start(chance, seed=2)
    assert first.asked == second.asked != other.asked
    assert first.completed(1) == second.completed(1) != other.completed(1)


def test_uuids_are_random_ones_and_all_different(start: Start) -> None:
    async def many(ctx: Context) -> list[str]:
        return [str(ctx.uuid4()) for _ in range(100)]

    run = start(many)
    texts = run.asked[0].removeprefix("return ").strip('[]"').split('", "')
    assert len(set(texts)) == 100
    assert {UUID(text).version for text in texts} == {4}


def test_info_tells_identity_and_size(start: Start) -> None:
    async def looking(ctx: Context) -> None:
        infos.append(ctx.info)
        await ask(ctx, "a")
        infos.append(ctx.info)

    infos: list[Any] = []
    run = start(looking)
    run.completed(1)
    before, after = infos
    assert (before.execution_id, before.run, before.orchestrator) == ("packet-42", 1, "looking")
    assert (before.started_at, after.started_at) == (START, START)
    assert (before.history_length, after.history_length) == (1, 2)


def test_the_logger_says_everything_once_and_names_the_execution(caplog: pytest.LogCaptureFixture) -> None:
    async def chatty(ctx: Context) -> None:
        ctx.logger.info("before %s", "a", extra={"packet": 7})
        await ask(ctx, "a")
        ctx.logger.info("after a")

    with caplog.at_level(logging.INFO):
        run = Run(chatty)
        replayed = run.replayed()
        assert caplog.messages == ["before a"]
        run.execution.close()
        run.execution = replayed
        run.completed(1)
    assert caplog.messages == ["before a", "after a"]
    record: Any = caplog.records[0]
    assert (record.name, record.execution_id, record.run, record.packet) == (
        "durably.orchestrator.chatty",
        "packet-42",
        1,
        7,
    )


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda ctx: ctx.receive("go"), r'a signal, got \'go\'. Declare it, Signal\[Type\]\("go"\), and pass that'),
        (lambda ctx: ctx.signal("other", "go", 1), "a signal, got"),
        (lambda ctx: ctx.on_query("seen", list), r'Query\[Type\]\("seen"\)'),
        (lambda ctx: ctx.on_update(Signal[int]("go"), int), r"<signal go>. Declare it, Update\[Argument, Result\]"),
        (lambda ctx: ctx.on_query(Query[int]("n"), 5), "must be a plain function, `def` or `lambda`, got 5"),
    ],
)
def test_a_bare_name_or_another_kind_is_refused_where_a_signal_is_meant(
    use: Callable[[Any], object], said: str, start: Start
) -> None:
    refused: list[str] = []

    async def program(ctx: Context) -> None:
        try:
            use(ctx)
        except (TypeError, DefinitionError) as error:
            refused.append(str(error))

    start(program)
    assert re.search(said, refused[0])


def test_arguments_of_a_call_by_name_are_plain_json(start: Start) -> None:
    async def calling(ctx: Context) -> Any:
        return await ctx.call("elsewhere", returns=dict, a=1, b=[None, "x"])

    run = start(calling)
    assert run.asked == ['1 elsewhere {"a": 1, "b": [null, "x"]}']
    assert run.completed(1, {"c": 2}) == ['return {"c": 2}']


def test_a_status_is_small(start: Start) -> None:
    async def boasting(ctx: Context) -> None:
        ctx.set_status("x" * 8_000)
        with pytest.raises(PayloadError, match="at most 8,192 bytes of JSON, got 10,002"):
            ctx.set_status("x" * 10_000)

    assert start(boasting).asked[-1] == "return null"


@pytest.mark.parametrize("wrong", [5, None, b"x", "\ud800"])
@pytest.mark.parametrize("what", ["patch", "signal", "call"])
def test_a_name_that_no_history_can_hold_is_refused_before_it_is_stored(start: Start, what: str, wrong: Any) -> None:
    async def careless(ctx: Context) -> None:
        if what == "patch":
            ctx.patched(wrong)
        elif what == "signal":
            await ctx.signal(wrong, Signal[str]("hello"), "x")
        else:
            await ctx.call(wrong, returns=str)

    (told,) = start(careless).asked
    assert "is text" in told
