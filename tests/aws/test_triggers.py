"""Triggers: every sample in events/triggers becomes one start or signal, however often and by whatever way it comes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from durably import Context, DefinitionError, ExecutionExistsError, ExecutionNotFoundError, Signal, on, orchestrator
from durably.aws.surroundings import Surroundings
from durably.aws.triggers import TriggerHandler, trigger_handler
from durably.core.errors import PayloadError
from tests.aws.driver import Cloud, deployed
from tests.aws.payloads import LambdaContext

SAMPLES = Path(__file__).parents[2] / "events/triggers"
KEY = "users/new users + more.csv"
APPROVED = Signal[list[str]]("approved")


@on.s3(prefix="users/", suffix=".csv")
@on.s3(prefix="users/", event="Object Created")
@orchestrator
async def import_users(ctx: Context, file: on.S3Object) -> str:
    return f"{file.bucket} {file.key} {file.size}"


@on.eventbridge(source="shop.*", detail_type="OrderPlaced")
@orchestrator
async def ship(ctx: Context, event: on.EventBridgeEvent) -> str:
    return str(event.detail["order_id"])


@on.sns(topic="orders")
@orchestrator
async def confirm(ctx: Context, message: on.SnsMessage) -> str:
    return f"{message.subject}: {message.message} {message.attributes}"


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
    return [batch, *(await ctx.receive(APPROVED))]


@on.http("POST /approvals/{batch}")
def approve(request: on.HttpRequest) -> on.Outcome:
    batch, users = request.parameters["batch"], request.body.split()
    return on.signal_with_start("approval-7", APPROVED, users, approval, batch) if users else None


@on.http("POST /approvals/{batch}/signal")
def only_signal(request: on.HttpRequest) -> on.Outcome:
    return on.signal(request.json()["id"], APPROVED, [])


ORCHESTRATORS = (import_users, ship, confirm, clean_up, take_order, approval)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with deployed(ORCHESTRATORS, []) as cloud:
        yield cloud


@pytest.fixture
def handler(cloud: Cloud) -> TriggerHandler:
    given = surroundings_of(cloud)
    triggers = (import_users, ship, confirm, clean_up, ordered, approve, only_signal)
    return trigger_handler(*triggers, starts=[take_order, approval], surroundings=given)


def surroundings_of(cloud: Cloud) -> Surroundings:
    function: Any = cloud.process.handlers["orchestrator"]
    return cast(Surroundings, function._given)


def invoke(function: Callable[..., Any], event: dict[str, Any]) -> Any:
    return function(event, LambdaContext())


def sample(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return found


def results(cloud: Cloud) -> dict[str, list[Any]]:
    cloud.run()
    found: dict[str, list[Any]] = {}
    for record in cloud.client.list():
        found.setdefault(record.orchestrator, []).append(cloud.client.wait(record.execution_id))
    return found


DELIVERED: list[tuple[list[str], dict[str, list[Any]]]] = [
    (["s3"], {"import_users": [f"uploads-123456789012 {KEY} 1024"]}),
    (["s3_sqs"], {"import_users": [f"uploads-123456789012 {KEY} 1024"]}),
    (["s3", "s3_sqs"], {"import_users": [f"uploads-123456789012 {KEY} 1024"]}),
    (["s3_eventbridge"], {"import_users": [f"uploads-123456789012 {KEY} 1024"]}),
    (["eventbridge"], {"ship": ["o-17"]}),
    (["sns"], {"confirm": ["An order: {\"order_id\": \"o-17\"} {'kind': 'order'}"]}),
    (["sns", "sns_sqs"], {"confirm": ["An order: {\"order_id\": \"o-17\"} {'kind': 'order'}"]}),
    (["sqs"], {"take_order": ["o-17", "o-18"]}),
    (["http"], {"approval": [["users 7", "u1", "u2", "u3"]]}),
    (["scheduler"], {"clean_up": ["2026-11-21T08:00:00+00:00"]}),
    (["schedule"], {"clean_up": ["2026-11-21T08:00:00+00:00"]}),
]


def test_every_sample_is_delivered() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == {name for names, _ in DELIVERED for name in names}


@pytest.mark.parametrize(("names", "expected"), DELIVERED)
def test_what_is_delivered_twice_starts_one(
    cloud: Cloud, handler: TriggerHandler, names: list[str], expected: dict[str, list[Any]]
) -> None:
    for name in (*names, *names):
        invoke(handler, sample(name))
    found = results(cloud)
    assert {name: sorted(values, key=str) for name, values in found.items()} == expected
    for name in set(names) - {"http"}:  # what it signals has ended by now
        invoke(handler, sample(name))
    assert results(cloud) == found


CHANGES: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("s3", lambda event: event["Records"][0]["s3"]["object"].update(sequencer="0055AED6DCD90281E6")),
    ("s3", lambda event: event["Records"][0]["s3"]["object"].update(versionId="another")),
    ("s3", lambda event: event["Records"][0].update(eventName="ObjectCreated:Copy")),
    ("eventbridge", lambda event: event.update(id="another")),
    ("sns", lambda event: event["Records"][0]["Sns"].update(MessageId="another")),
    ("schedule", lambda event: event.update(time="2026-11-22T08:00:00Z")),
]


def test_something_else_starts_another_one(cloud: Cloud, handler: TriggerHandler) -> None:
    for name in dict(CHANGES):
        invoke(handler, sample(name))
    known = len(list(cloud.client.list()))
    for number, (name, change) in enumerate(CHANGES, 1):
        other = sample(name)
        change(other)
        for _ in range(2):
            invoke(handler, other)
        assert len(list(cloud.client.list())) == known + number, (name, number)


def test_what_no_trigger_wants_is_let_go(cloud: Cloud, handler: TriggerHandler) -> None:
    picture, removed, test = sample("s3"), sample("s3"), {"Service": "Amazon S3", "Event": "s3:TestEvent"}
    picture["Records"][0]["s3"]["object"]["key"] = "users/me.png"
    removed["Records"][0]["eventName"] = "ObjectRemoved:Delete"
    for event in (picture, removed, test):
        assert invoke(handler, event) is None
    queued = sample("sqs")
    queued["Records"][0].update(body=json.dumps(test), eventSourceARN="arn:aws:sqs:eu-central-1:1:other")
    assert invoke(handler, queued) == {"batchItemFailures": []}
    assert len(list(cloud.client.list())) == 1  # the other message of the batch


def test_a_message_that_cannot_be_dealt_with_comes_back_alone(cloud: Cloud, handler: TriggerHandler) -> None:
    event = sample("sqs")
    event["Records"][0]["body"] = "no order"
    assert invoke(handler, event) == {"batchItemFailures": [{"itemIdentifier": "059f36b4-87a3-44ab-83d2-661975830a7d"}]}
    assert results(cloud) == {"take_order": ["o-18"]}


def test_what_follows_in_its_fifo_queue_waits_for_it(cloud: Cloud, handler: TriggerHandler) -> None:
    event = sample("sqs")
    for record in event["Records"]:
        record["eventSourceARN"] += ".fifo"
        record["attributes"]["MessageGroupId"] = "a"
    handler.triggers.append(on.sqs(queue="inbox.fifo")(ordered.decide))
    event["Records"].append({**copy.deepcopy(event["Records"][1]), "messageId": "third"})
    event["Records"][1]["body"] = "no order"
    failures = invoke(handler, event)["batchItemFailures"]
    assert [each["itemIdentifier"] for each in failures] == ["2e1424d4-f796-459a-8184-9c92662be6da", "third"]
    assert results(cloud) == {"take_order": ["o-17"]}


@pytest.mark.parametrize(
    "body", ['{"Records": "none"}', '{"Records": [7]}', '{"Type": "Notification"}', "[]", "7", "{"]
)
def test_a_message_that_only_looks_like_something_else_is_itself(
    cloud: Cloud, handler: TriggerHandler, body: str
) -> None:
    taken: list[str] = []

    @on.sqs()
    def take(message: on.SqsMessage) -> on.Outcome:
        taken.append(message.body)
        return None

    event = sample("sqs")
    event["Records"] = [{**event["Records"][0], "body": body}]
    given = surroundings_of(cloud)
    assert invoke(trigger_handler(take, surroundings=given), event) == {"batchItemFailures": []}
    assert taken == [body]


# --- HTTP ----------------------------------------------------------------------------------------------------


def call(handler: TriggerHandler, **changes: Any) -> tuple[int, Any]:
    event = {**sample("http"), **changes}
    answer = invoke(handler, event)
    return answer["statusCode"], json.loads(answer["body"]) if "body" in answer else None


def test_a_request_is_answered_with_what_it_came_to(cloud: Cloud, handler: TriggerHandler) -> None:
    assert call(handler) == (202, {"execution_id": "approval-7"})
    assert call(handler, body="") == (204, None)
    status, told = call(handler, routeKey="$default", rawPath="/nowhere")
    assert (status, told["message"]) == (404, "There is no route POST /nowhere.")
    assert call(handler, body="%%")[0] == 400


def test_a_route_is_cut_out_of_a_path_where_no_gateway_did(cloud: Cloud, handler: TriggerHandler) -> None:
    changes = {"routeKey": "$default", "pathParameters": None, "rawPath": "/approvals/users%207", "body": "dTk="}
    assert call(handler, **changes)[0] == 202
    assert results(cloud) == {"approval": [["users 7", "u9"]]}


def test_refusals_of_signals_have_their_statuses(cloud: Cloud, handler: TriggerHandler) -> None:
    def signalled(body: str) -> int:
        path = "/approvals/x/signal"
        return call(handler, routeKey="$default", rawPath=path, body=body, isBase64Encoded=False)[0]

    cloud.client.start("done", take_order, "x")
    cloud.run()
    bodies = ['{"id": "unknown"}', '{"id": "done"}', '{"id": "no id!"}', "no json"]
    assert [signalled(body) for body in bodies] == [404, 410, 400, 400]


# --- misuse --------------------------------------------------------------------------------------------------


def test_what_went_wrong_is_raised_so_that_lambda_tries_again(cloud: Cloud) -> None:
    @on.eventbridge()
    def taken(event: on.EventBridgeEvent) -> on.Outcome:
        return on.start(take_order.options(execution_id="taken"), "o-1")

    @on.eventbridge()
    def missing(event: on.EventBridgeEvent) -> on.Outcome:
        return on.signal("missing", APPROVED, [])

    given = surroundings_of(cloud)
    cloud.client.start("taken", take_order, "x")
    with pytest.raises(ExecutionExistsError):
        invoke(trigger_handler(taken, starts=[take_order], surroundings=given), sample("eventbridge"))
    with pytest.raises(ExecutionNotFoundError):
        invoke(trigger_handler(missing, surroundings=given), sample("eventbridge"))
    with pytest.raises(PayloadError, match="no source that a trigger knows; its keys: a, b"):
        invoke(trigger_handler(missing, surroundings=given), {"a": 1, "b": 2})


def test_what_is_no_trigger_is_refused() -> None:
    async def greedy(ctx: Context, one: str, two: str) -> None: ...

    def idle() -> on.Outcome:
        return None

    with pytest.raises(DefinitionError, match="has no trigger"):
        trigger_handler(take_order)
    with pytest.raises(DefinitionError, match="takes the Context and one argument"):
        on.s3()(orchestrator(greedy))
    with pytest.raises(DefinitionError, match="a trigger's function takes one argument"):
        on.s3()(idle)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(DefinitionError, match="A route has a method and a path"):
        on.http("/approvals")
