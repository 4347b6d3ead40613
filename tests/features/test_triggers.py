"""Triggers: what arrives from outside starts or signals, and its redelivery does nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from durably import Context, Signal, on, orchestrator
from tests.features.places import Place

SAMPLES = Path(__file__).parents[2] / "events/triggers"
APPROVED = Signal[list[str]]("approved")


@on.s3(prefix="users/", suffix=".csv")
@on.s3(prefix="users/", event="Object Created")
@orchestrator
async def import_users(ctx: Context, file: on.S3Object) -> str:
    return file.key


@on.eventbridge(source="shop.*", detail_type="OrderPlaced")
@orchestrator
async def ship(ctx: Context, event: on.EventBridgeEvent) -> str:
    return str(event.detail["order_id"])


@on.sns(topic="orders")
@orchestrator
async def confirm(ctx: Context, message: on.SnsMessage) -> str:
    return f"{message.subject}: {message.message}"


@on.schedule(rule="night*")
@orchestrator
async def clean_up(ctx: Context, tick: on.Tick) -> str:
    return tick.at.isoformat()


@orchestrator
async def take_order(ctx: Context, order_id: str) -> str:
    return order_id


@on.sqs(queue="inbox")
def ordered(message: on.SqsMessage) -> on.Outcome:
    return on.start(take_order, json.loads(message.body)["order_id"])


@orchestrator
async def approval(ctx: Context, batch: str) -> list[str]:
    return [batch, *await ctx.receive(APPROVED), *await ctx.receive(APPROVED)]


@on.http("POST /approvals/{batch}")
def approve(request: on.HttpRequest) -> on.Outcome:
    batch, users = request.parameters["batch"], request.body.split()
    return on.signal_with_start("approval-7", APPROVED, users, approval, batch)


ORCHESTRATORS = (import_users, ship, confirm, clean_up, take_order, approval)
TRIGGERS = (import_users, ship, confirm, clean_up, ordered, approve)
CSV = "users/new users + more.csv"
STARTED: dict[str, list[str]] = {
    "s3": [CSV],
    "s3_sqs": [CSV],
    "s3_eventbridge": [CSV],
    "eventbridge": ["o-17"],
    "sns": ['An order: {"order_id": "o-17"}'],
    "sns_sqs": ['An order: {"order_id": "o-17"}'],
    "sqs": ["o-17", "o-18"],
    "schedule": ["2026-11-21T08:00:00+00:00"],
    "scheduler": ["2026-11-21T08:00:00+00:00"],
}


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", STARTED)
def test_a_trigger_starts_an_execution_and_its_redelivery_starts_nothing_twice(place: Place, name: str) -> None:
    client = place.deploy(*ORCHESTRATORS)
    for _ in range(2):
        place.deliver(sample(name), *TRIGGERS, starts=ORCHESTRATORS)
        place.settle()
    started = [record.execution_id for record in client.list(status="completed")]
    assert sorted(place.result(execution_id) for execution_id in started) == STARTED[name]
    place.deliver(sample(name), *TRIGGERS, starts=ORCHESTRATORS)
    assert [record.execution_id for record in client.list(status="running")] == []


def test_a_request_signals_an_execution_and_starts_it_if_need_be(place: Place) -> None:
    place.deploy(*ORCHESTRATORS)
    first = sample("http")
    other = {**first, "body": "dTk=", "headers": {**first["headers"], "idempotency-key": "another"}}
    for event in (first, first, other):
        answer = place.deliver(event, *TRIGGERS, starts=ORCHESTRATORS)
        assert (answer["statusCode"], json.loads(answer["body"])) == (202, {"execution_id": "approval-7"})
    assert place.result("approval-7") == ["users 7", "u1", "u2", "u3", "u9"]
