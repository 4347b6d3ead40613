"""Exported histories: what the document holds, and that today's code is compared with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from durably import Context, Orchestrator, orchestrator
from durably.codec.exports import decode_export, encode_export
from durably.codec.wire import WireError
from durably.core.errors import (
    ClientError,
    MissingDefinitionError,
    NonDeterminismError,
    StorageError,
    TurnLimitError,
    UndecodableError,
)
from durably.testing import Environment, replay
from tests.unit.testing.programs import Order, buy, price, sleepy, stuck

Save = Callable[..., Path]


@pytest.fixture
def save(durably_env: Environment, tmp_path: Path) -> Save:
    """The exported history of an orchestrator's execution, as a file."""

    def saved(definition: Orchestrator[..., Any], *args: Any) -> Path:
        durably_env.start("order-1", definition, *args).result()
        path = tmp_path / "history.json"
        path.write_text(durably_env.export(), encoding="utf-8")
        return path

    return saved


def test_a_history_replays_against_the_code_that_made_it(save: Save) -> None:
    replayed = replay(save(buy, Order("tea")), [sleepy, buy])
    assert (replayed.execution_id, replayed.orchestrator, replayed.events) == ("order-1", "buy", 5)


def test_code_that_asks_for_something_else_is_shown_beside_what_was_recorded(save: Save) -> None:
    @orchestrator(name="buy")
    async def edited(ctx: Context, order: Order, count: int = 1) -> str:
        await price(order.item, count + 1)
        return ""

    with pytest.raises(NonDeterminismError) as diverged:
        replay(save(buy, Order("tea")), edited)
    said = str(diverged.value)
    assert 'history recorded price({"item":"tea","count":1}) at testing/programs.py:' in said
    assert 'the code now asks for price({"item":"tea","count":2}) at testing/test_replaying.py:' in said


def test_a_history_of_an_orchestrator_that_is_gone_says_which_there_are(save: Save) -> None:
    with pytest.raises(MissingDefinitionError, match=r"'buy', which was not given; there are: sleepy, stuck"):
        replay(save(buy, Order("tea")), [stuck, sleepy])


def test_an_orchestrator_is_known_by_its_former_name(save: Save) -> None:
    renamed = orchestrator(name="purchase", aliases=["buy"])(buy.fn)
    assert replay(save(buy, Order("tea")), renamed).events == 5


def test_a_result_that_no_longer_fits_cannot_be_replayed(save: Save) -> None:
    path = save(buy, Order("tea"))
    path.write_text(path.read_text().replace('"result": "3"', '"result": "null"'))
    with pytest.raises(UndecodableError, match="recorded result of price"):
        replay(path, buy)


def test_events_that_wait_for_fixed_code_are_applied_too(save: Save) -> None:
    """As of an execution that is stalled: it is its next turn that matters."""

    @orchestrator(name="sleepy")
    async def endless(ctx: Context, days: float) -> None:
        for _ in count():
            await asyncio.sleep(0)

    path = save(sleepy, 1)
    document = json.loads(path.read_text())
    (run,) = document["runs"]
    path.write_text(json.dumps({**document, "runs": [{**run, "turns": run["turns"][:1]}]}))
    assert run["turns"][0]["kind"] == "deferred"
    assert replay(path, sleepy).events == 1
    with pytest.raises(TurnLimitError):
        replay(path, endless)


def test_a_document_tells_whose_history_it_is_and_comes_back_the_same(save: Save) -> None:
    text = save(buy, Order("Tee für zwei")).read_text()
    document = json.loads(text)
    assert list(document) == [
        *("format", "version", "execution_id", "gen", "orchestrator", "status", "code_version", "runs")
    ]
    assert (document["format"], document["version"]) == ("durably.history", 1)
    assert (document["orchestrator"], document["status"]) == ("buy", "completed")
    assert "Tee für zwei" in text
    assert encode_export(decode_export(text)) == text


def test_a_field_of_a_newer_version_is_ignored(save: Save) -> None:
    path = save(buy, Order("tea"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    assert replay(path, buy).events == 5


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"format": "other"}, ClientError, r'"format": "durably.history"'),
        ({"version": 2}, WireError, "has version 2 of its format, and this durably reads 1"),
        ({"runs": None}, ClientError, "should hold a list as 'runs', got None"),
        ({"runs": [[]]}, ClientError, "should hold a number as 'run', got None"),
        ({"runs": [{"run": 1, "turns": [{"number": 1}]}]}, StorageError, "The stored turn should be JSON as durably"),
    ],
)
def test_a_document_that_is_none_says_what_is_wrong(
    change: dict[str, Any], error: type[Exception], said: str, save: Save
) -> None:
    path = save(buy, Order("tea"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(error, match=said):
        replay(path, buy)


def test_a_file_that_is_no_json_says_so(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("no")
    with pytest.raises(ClientError, match="should be JSON, but"):
        replay(tmp_path / "no.json", buy)


def test_every_run_of_an_execution_is_exported_and_replayed(save: Save) -> None:
    @orchestrator
    async def countdown(ctx: Context, left: int) -> str:
        await price("tea" * left)
        return "done" if left == 0 else await ctx.continue_as_new(left - 1)

    @orchestrator(name="countdown")
    async def other_first_run(ctx: Context, left: int) -> str:
        return await countdown.fn(ctx, left) if left < 2 else ""

    path = save(countdown, 2)
    history = decode_export(path.read_text())
    assert [run.key.run for run in history.runs] == [1, 2, 3]
    assert replay(path, countdown).events == 6
    with pytest.raises(NonDeterminismError, match="the code now asks for return"):
        replay(path, other_first_run)
