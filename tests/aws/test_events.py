"""events/: every payload is handled by the function that it is for, as its file in infra/functions makes it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.story import STORIES
from tests.aws.driver import Cloud, deployed
from tests.aws.payloads import EVENTS, REGION, LambdaContext, answer_body

ROOT = Path(__file__).parents[2]
FUNCTIONS = {path.stem: path for path in (ROOT / "infra/functions").glob("*.py")}
FILES = {
    "orchestrator": "orchestrator",
    "activities_hello": "greetings_activities",
    "activities_paralyze": "pokemon_capture_activities",
    "activities_import": "user_onboarding_activities",
    "activities": "routing_activities",
    "timers": "timers",
    "callbacks": "callbacks",
    "api": "api",
    "dead_letters": "dead_letters",
    "sweeper": "sweeper",
    "triggers": "triggers",
}


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "events" / f"{name}.json").read_text())
    return found


def names(prefix: str = "") -> list[str]:
    return sorted(path.stem for path in (ROOT / "events").glob(f"{prefix}*.json") if path.stem not in STORIES)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    from activities.routing import get_route, transmit
    from orchestrators.routing import route_packet

    with deployed([route_packet], [get_route, transmit]) as cloud:
        settings = cloud.settings
        by_queue: dict[str, list[str]] = {}
        for name, queue in settings.activity_queues.items():
            by_queue.setdefault(queue, []).append(name)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("DURABLY_DEPLOYMENT", settings.deployment)
        monkeypatch.setenv("DURABLY_TABLE", settings.table)
        monkeypatch.setenv("DURABLY_BUCKET", settings.bucket)
        monkeypatch.setenv("DURABLY_EVENTS_QUEUE", settings.events_queue)
        monkeypatch.setenv("DURABLY_DELAY_QUEUE", settings.delay_queue)
        monkeypatch.setenv("DURABLY_DELAY_QUEUE_ARN", settings.delay_queue_arn)
        monkeypatch.setenv("DURABLY_DELAY_DEAD_LETTERS_ARN", settings.delay_dead_letters_arn)
        monkeypatch.setenv("DURABLY_ACTIVITY_QUEUES", json.dumps(by_queue))
        monkeypatch.setenv("DURABLY_SCHEDULE_GROUP", settings.schedule_group)
        monkeypatch.setenv("DURABLY_SCHEDULE_ROLE", settings.schedule_role)
        monkeypatch.setenv("DURABLY_TOKEN_SECRET", settings.token_secret)
        monkeypatch.setenv("DURABLY_CALLBACK_URL", settings.callback_url)
        monkeypatch.setenv("USERS_BUCKET", "onboarding")
        yield cloud


def function_of(name: str) -> Callable[..., Any]:
    stem = next(file for prefix, file in FILES.items() if name.startswith(prefix))
    handler: Callable[..., Any] = runpy.run_path(str(FUNCTIONS[stem]))["handler"]
    return handler


def test_every_function_has_events_and_every_event_a_function() -> None:
    assert set(FUNCTIONS) == set(FILES.values())
    for prefix in FILES:
        assert names(prefix), prefix
    assert all(any(name.startswith(prefix) for prefix in FILES) for name in names())


def test_a_function_is_two_statements() -> None:
    for path in FUNCTIONS.values():
        lines = [line for line in path.read_text().splitlines() if line]
        assert lines[-1].startswith("handler = ")
        assert all(line.startswith("from ") for line in lines[:-1])


@pytest.mark.parametrize("name", [name for name in names() if "Records" in event(name)])
def test_messages_for_executions_that_are_gone_are_dealt_with(cloud: Cloud, name: str) -> None:
    assert function_of(name)(event(name), LambdaContext()) == {"batchItemFailures": []}


def test_an_early_message_goes_back_into_its_delay(cloud: Cloud) -> None:
    function_of("timers_early")(event("timers_early"), LambdaContext())
    assert len(cloud.schedules()) == 1


def test_dead_letters_come_back(cloud: Cloud) -> None:
    handler = function_of("dead_letters")
    for name in ("dead_letters_event", "dead_letters_timer"):
        letter = event(name)
        source = letter["Records"][0]["attributes"]["DeadLetterQueueSourceArn"].rpartition(":")[2]
        letter["Records"][0]["attributes"]["DeadLetterQueueSourceArn"] = f"arn:aws:sqs:x:y:{source[8:]}"
        handler(letter, LambdaContext())
        assert cloud.size(source[8:]) == 1


class Api:
    """The function behind the management routes, given what is in events/."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._handler = function_of("api")
        self.asked: set[str] = set()

    def call(self, name: str) -> tuple[int, dict[str, Any]]:
        self.asked.add(f"api_{name}")
        answer = self._handler(event(f"api_{name}"), LambdaContext())
        return answer["statusCode"], answer_body(answer)

    def status_after_turns(self) -> str:
        while self._cloud.poll(EVENTS):  # no activity runs: its services are not there
            pass
        return str(self.call("describe")[1]["status"])


def test_what_the_api_is_asked_for_is_carried_out_and_shown(cloud: Cloud) -> None:
    api = Api(cloud)
    status, started = api.call("start")
    assert status in (200, 201), started
    assert api.call("start") == (200, started) or status == 200  # the same request again
    status, listed = api.call("list")
    assert (status, [each["execution_id"] for each in listed["executions"]]) == (200, ["packet-0001"])
    status, described = api.call("describe")
    assert (status, described["status"], described["orchestrator"]) == (200, "running", "route_packet")
    status, history = api.call("history")
    assert (status, history["events"][0]["event"], history["after"]) == (200, "ExecutionStarted", None)
    assert api.call("result")[1]["result"] is None
    _talk(api)
    for answer in ("complete", "fail", "heartbeat"):
        status, refusal = api.call(f"{answer}_activity")
        assert (status, "awaits no callback" in refusal["message"]) == (404, True)
    _steer(api)
    assert api.call("openapi")[1]["openapi"] == "3.1.0"
    assert api.asked == set(names("api"))


def _talk(api: Api) -> None:
    assert api.call("signal")[0] == 202
    assert api.status_after_turns() == "running"
    assert api.call("signal_with_start") == (200, api.call("list")[1]["executions"][0])
    assert api.call("update")[0] == 202
    assert api.status_after_turns() == "running"
    status, refusal = api.call("update")  # asked again, for its reply
    assert (status, refusal["outcome"]) == (422, "rejected")
    status, refusal = api.call("query")
    assert (status, "answers no query 'progress'" in refusal["message"]) == (422, True)


def _steer(api: Api) -> None:
    assert [api.call("suspend")[0], api.status_after_turns()] == [202, "suspended"]
    assert [api.call("resume")[0], api.status_after_turns()] == [202, "running"]
    assert [api.call("retry")[0], api.call("fork")[0]] == [409, 201]
    assert len({api.call("fork")[1]["gen"] for _ in range(2)}) == 1  # the same request again
    assert (api.call("reset")[1]["run"], api.call("describe")[1]["run"]) == (2, 2)
    assert [api.call("cancel")[0], api.status_after_turns()] == [202, "cancelled"]
    assert [api.call("retry")[1]["run"], api.call("terminate")[0]] == [3, 202]
    assert [api.call("purge")[0], api.status_after_turns()] == [409, "terminated"]
    assert [api.call("purge_closed"), api.call("purge")[0]] == [(200, {"executions": [], "more": False}), 200]
    assert [api.call("purge")[0], api.call("describe")[0]] == [200, 404]


@pytest.mark.parametrize("name", names("callbacks"))
def test_a_token_of_another_deployment_is_refused(cloud: Cloud, name: str) -> None:
    assert function_of(name)(event(name), LambdaContext())["statusCode"] == 401


def test_a_csv_and_its_approval_come_to_one_onboarding(cloud: Cloud) -> None:
    handler = function_of("triggers")
    users, approval = event("triggers_users"), event("triggers_approval")
    for payload in (approval, users, users, approval):
        answer = handler(payload, LambdaContext())
        assert answer == {"batchItemFailures": []} or answer["statusCode"] == 202, answer
    assert [record.execution_id for record in cloud.client.list()] == ["user-onboarding:users"]
    status = handler({**approval, "body": "name\nOak\n"}, LambdaContext())["statusCode"]
    assert status == 400


def test_an_approval_needs_to_know_where_csvs_are(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USERS_BUCKET")
    with pytest.raises(LookupError, match="USERS_BUCKET must name the users' bucket"):
        function_of("triggers")(event("triggers_approval"), LambdaContext())


def test_a_sweep_of_nothing_wakes_nobody(cloud: Cloud) -> None:
    assert function_of("sweeper")(event("sweeper"), LambdaContext()) == {"looked_at": 0, "woken": 0, "stalled": 0}


def test_a_function_without_its_environment_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from durably.core.errors import ConfigurationError

    monkeypatch.delenv("DURABLY_TABLE", raising=False)
    with pytest.raises(ConfigurationError, match="DURABLY_TABLE"):
        function_of("sweeper")(event("sweeper"), LambdaContext())
