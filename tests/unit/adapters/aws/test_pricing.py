"""Pricing an execution from its history, checked against what the meter counted while it ran."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from durably.adapters.aws import costs
from durably.adapters.aws.costs import Functions, Prices, steps_of, usage_of
from durably.adapters.sqlite import SqliteBackend
from durably.cli import main
from durably.core.events import ActivityCompleted, ActivityScheduled, TimerStarted
from durably.core.history import Turn
from durably.core.options import ActivityOptions
from durably.ports.backend import TurnCommit
from durably.ports.records import RecordChange
from tests.contract.aws import Cloud
from tests.contract.builders import RUN, creation, record, turn
from tests.contract.harness import START_MS, ManualClock
from tests.unit.adapters.aws.worker import STEPS, Deploy, one_after_another


def used(*turns: Turn) -> Counter[str]:
    found = usage_of(record(), turns, Functions())
    return Counter({what: round(amount) for what, amount in found.items()})


def step(number: int, *, options: ActivityOptions | None = None, attempt: int = 1, seconds: int = 0) -> list[Turn]:
    scheduled = ActivityScheduled(seq=1, name="act", input="{}", call_site="a.py:3", cause=1, options=options)
    timer = TimerStarted(seq=1, delay_ms=1000 * seconds, due_ms=START_MS, call_site="a.py:3", cause=1)
    ended = ActivityCompleted(seq=1, result="1", attempt=attempt)
    return [
        turn(1, inbound=(), outbound=()),
        turn(number, inbound=(), outbound=(timer if seconds else scheduled,)),
        turn(number + 1, inbound=(ended,), outbound=()),
    ]


def test_an_estimate_is_what_was_billed(made: Cloud, deploy: Deploy) -> None:
    worker = deploy(one_after_another)
    worker.client.start("e", one_after_another, STEPS)
    worker.run()
    found = worker.backend.read_record("e")
    assert found is not None
    bill = made.meter.bill
    estimate = usage_of(found, worker.backend.load_turns(found.key), Functions())
    assert estimate[costs.WRITES] == bill.write_units + bill.index_units
    sent = bill.requests["sqs.SendMessageBatch"]
    polled = 2 * (STEPS + STEPS + 1)  # each of the steps' tasks and turns, and the start, received and deleted
    assert estimate[costs.STANDARD] + estimate[costs.FIFO] == sent + polled
    assert steps_of(worker.backend.load_turns(found.key)) == STEPS


def test_retries_callbacks_and_timers_cost_what_they_cause() -> None:
    plain = used(*step(2))
    retried = used(*step(2, attempt=3)) - plain
    assert (retried[costs.WRITES], retried[costs.STANDARD], retried[costs.INVOCATIONS]) == (2, 6, 2)
    callback = used(*step(2, options=ActivityOptions(mode="callback", start_to_close_ms=10_000))) - plain
    assert (callback[costs.WRITES], callback[costs.CALLBACKS]) == (2, 1)
    assert callback[costs.STANDARD] == 6  # check and deadline
    local = used(*step(2, options=ActivityOptions(mode="local")))
    assert local[costs.STANDARD] == 0
    short, long = used(*step(2, seconds=60)), used(*step(2, seconds=3600))
    assert (short[costs.SCHEDULES], long[costs.SCHEDULES]) == (0, 1)
    assert long[costs.STANDARD] == 2 * short[costs.STANDARD] == 6


def test_every_unit_that_is_counted_has_a_price_and_a_date() -> None:
    prices = Prices.published()
    names = {value for name, value in vars(costs).items() if name.isupper() and isinstance(value, str)}
    assert names == set(prices.per_million)
    assert prices.date >= "2026-11"
    assert prices.region == "us-east-1"
    (line,) = prices.bill(defaultdict(float, {costs.WRITES: 2_000_000}))
    assert (line.units, line.dollars) == (2_000_000, 1.25)


def test_a_million_plain_steps_cost_a_few_dollars() -> None:
    _, asked, ended = step(2)
    again = [dataclasses.replace(asked, number=number, inbound=ended.inbound) for number in range(1, 1001)]
    total = sum(line.dollars for line in Prices.published().bill(usage_of(record(), again, Functions())))
    assert 1 < 1000 * total < 6


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "durably.db"
    with SqliteBackend(path, clock=ManualClock(), synchronous="OFF") as backend:
        backend.create(creation())
        change = RecordChange(status="completed", turn=2, code_version="v1", closed_at_ms=START_MS, result="1")
        backend.commit([TurnCommit(run=RUN, turn=turn(2), change=change)])
    return path


def test_the_command_prints_a_bill(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "packet-42", "--db", str(file)]) == 0
    said = capsys.readouterr().out
    assert "DynamoDB write units" in said
    assert "total" in said
    assert "1 steps; a million like these cost" in said


def test_the_command_prints_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "packet-42", "--db", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["execution_id"] == "packet-42"
    assert said["dollars"] == pytest.approx(sum(line["dollars"] for line in said["lines"]))


def test_longer_activities_cost_more(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dollars: list[float] = []
    for milliseconds in ("10", "1000"):
        main(["cost", "packet-42", "--db", str(file), "--json", "--activity-ms", milliseconds])
        dollars.append(json.loads(capsys.readouterr().out)["dollars"])
    assert dollars[0] < dollars[1]


def test_what_cannot_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "x", "--db", "nowhere.db"]) == 1
    assert "durably: " in capsys.readouterr().err
