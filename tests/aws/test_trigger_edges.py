"""Payloads of triggers as the world sends them: catch-all routes, names that recur, keys of every script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest

from durably import Context, Signal, on, orchestrator
from durably.aws.triggers import TriggerHandler, trigger_handler
from tests.aws.driver import Cloud, deployed
from tests.aws.test_triggers import call, invoke, results, sample, surroundings_of

NOTE = Signal[str]("note")


@on.s3(event="*")
@orchestrator
async def keep(ctx: Context, file: on.S3Object) -> str:
    return file.key


@on.schedule()
@orchestrator
async def tick(ctx: Context, at: on.Tick) -> str:
    return at.rule


@orchestrator
async def greet(ctx: Context, who: str) -> str:
    return who


@orchestrator
async def listen(ctx: Context) -> list[str]:
    return [await ctx.receive(NOTE), await ctx.receive(NOTE)]


@on.sqs()
def queued(message: on.SqsMessage) -> on.Outcome:
    return on.start(greet, message.body[:20])


@on.http("POST /greetings/{who}")
def greeting(request: on.HttpRequest) -> on.Outcome:
    return on.start(greet, request.parameters["who"])


@on.http("POST /")
def root(request: on.HttpRequest) -> on.Outcome:
    return on.start(greet, "root")


@on.http("POST /json")
def structured(request: on.HttpRequest) -> on.Outcome:
    return on.start(greet, str(request.json())[:20])


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with deployed([keep, tick, greet, listen], []) as cloud:
        yield cloud


@pytest.fixture
def handler(cloud: Cloud) -> TriggerHandler:
    triggers = (keep, tick, queued, greeting, root, structured)
    return trigger_handler(*triggers, starts=[greet], surroundings=surroundings_of(cloud))


def test_a_catch_all_route_leads_where_its_path_does(cloud: Cloud, handler: TriggerHandler) -> None:
    changes = {"routeKey": "ANY /{proxy+}", "rawPath": "/greetings/ada", "pathParameters": {"proxy": "greetings/ada"}}
    assert call(handler, **changes)[0] == 202
    assert results(cloud) == {"greet": ["ada"]}


def test_the_root_is_a_path(cloud: Cloud, handler: TriggerHandler) -> None:
    assert call(handler, routeKey="$default", rawPath="/", pathParameters=None)[0] == 202
    assert call(handler, routeKey="POST /", rawPath="/", pathParameters=None)[0] == 202
    assert results(cloud) == {"greet": ["root"]}


def test_a_stage_is_no_part_of_the_path(cloud: Cloud, handler: TriggerHandler) -> None:
    context = {**sample("http")["requestContext"], "stage": "greet"}
    changes: dict[str, Any] = {"routeKey": "$default", "pathParameters": None, "requestContext": context}
    assert call(handler, **changes, rawPath="/greet/greetings/ada")[0] == 202
    assert call(handler, **changes, rawPath="/greetings/ada")[0] == 202  # a domain of one's own
    assert results(cloud) == {"greet": ["ada"]}


def test_json_nested_too_deeply_is_a_bad_request(handler: TriggerHandler) -> None:
    deep = "[" * 100_000
    assert call(handler, routeKey="$default", rawPath="/json", body=deep, isBase64Encoded=False)[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"detail-type": "mine", "source": "me"}',
        '{"Records": [{"eventSource": "aws:s3"}]}',
    ],
)
def test_a_message_that_looks_like_something_else_is_itself(cloud: Cloud, handler: TriggerHandler, body: str) -> None:
    event = sample("sqs")
    event["Records"] = [{**event["Records"][0], "body": body}]
    assert invoke(handler, event) == {"batchItemFailures": []}
    assert results(cloud) == {"greet": [body[:20]]}


def test_schedules_of_one_name_in_two_groups_are_two(cloud: Cloud, handler: TriggerHandler) -> None:
    for group in ("default", "default", "other"):
        event = sample("scheduler")
        event["resources"] = [f"arn:aws:scheduler:eu-central-1:123456789012:schedule/{group}/nightly"]
        invoke(handler, event)
    assert results(cloud) == {"tick": ["nightly", "nightly"]}


def test_what_s3_tells_without_a_sequencer_is_told_by_its_time(cloud: Cloud, handler: TriggerHandler) -> None:
    for moment in ("2026-11-21T08:00:00.000Z", "2026-11-21T08:00:00.000Z", "2026-11-21T09:00:00.000Z"):
        event = sample("s3")
        record = event["Records"][0]
        record.update(eventName="ObjectTagging:Put", eventTime=moment)
        record["s3"]["object"].pop("sequencer")
        invoke(handler, event)
    assert len(results(cloud)["keep"]) == 2


KEYS = [
    "a+b c.csv",
    "100%.csv",
    "%2B.csv",
    "ä/ö ü/日本.csv",
    "a//b/../c",
    "q?x=1&y#z",
    "e\u0301",
    "\u00e9",
    "tab\there",
    "x" * 1024,
    "new\nline",
]


def test_a_key_is_what_it_was(cloud: Cloud, handler: TriggerHandler) -> None:
    for key in KEYS:
        event = sample("s3")
        event["Records"][0]["s3"]["object"]["key"] = quote_plus(key)
        invoke(handler, event)
        bus = sample("s3_eventbridge")
        bus["detail"]["object"]["key"] = key
        invoke(handler, bus)
    assert sorted(results(cloud)["keep"]) == sorted([*KEYS, *KEYS])


def test_two_triggers_that_want_different_things_get_both(cloud: Cloud) -> None:
    @on.s3()
    def one(file: on.S3Object) -> on.Outcome:
        return on.start(greet, "one")

    @on.s3()
    def two(file: on.S3Object) -> on.Outcome:
        return on.start(greet, "two")

    @on.s3(suffix=".csv")
    def two_as_well(file: on.S3Object) -> on.Outcome:
        return on.start(greet, "two")

    @on.s3()
    def begin(file: on.S3Object) -> on.Outcome:
        return on.signal_with_start("listener", NOTE, "one", listen)

    @on.s3()
    def go_on(file: on.S3Object) -> on.Outcome:
        return on.signal("listener", NOTE, "two")

    triggers = (one, two, two_as_well, begin, go_on)
    handler = trigger_handler(*triggers, starts=[greet, listen], surroundings=surroundings_of(cloud))
    for _ in range(2):
        invoke(handler, sample("s3"))
    found = results(cloud)
    assert sorted(found.pop("greet")) == ["one", "two"]
    assert found == {"listen": [["one", "two"]]}
