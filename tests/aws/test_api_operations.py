"""The management routes that tell an execution something, ask it, or steer it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from durably import ActivityError, Context, NonRetryableError, Query, Signal, Update, activity, orchestrator
from durably.aws.openapi import document
from tests.aws.driver import Cloud, deployed
from tests.aws.payloads import DELAY

GO = Signal[int]("go")
SEEN = Query[list[int]]("seen")
STUCK = Query[int]("stuck")
ADD = Update[int, int]("add")
vacant = False


@activity
def book(what: str) -> str:
    if what == "hotel" and not vacant:
        raise NonRetryableError("no vacancy")
    return what.upper()


@orchestrator
async def collect(ctx: Context, wanted: int = 2) -> list[int]:
    seen: list[int] = []
    ctx.on_query(SEEN, lambda: list(seen))
    ctx.on_query(STUCK, for_ever)

    def add(number: int) -> int:
        if number == 13:
            raise RuntimeError("bad luck")
        seen.append(number)
        return sum(seen)

    def check(number: int) -> None:
        if number < 0:
            raise ValueError("only what is positive")

    ctx.on_update(ADD, add, validate=check)
    while len(seen) < wanted:
        seen.append(await ctx.receive(GO))
        ctx.set_status({"seen": len(seen)})
    return seen


def for_ever() -> int:
    while True:
        pass


@orchestrator
async def parent(ctx: Context) -> list[int]:
    return await collect(1)


@orchestrator
async def travel(ctx: Context, by: str = "train") -> list[str]:
    return [await book(by), await book("hotel")]


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with deployed([collect, parent, travel], [book]) as cloud:
        yield cloud


def post(cloud: Cloud, path: str, body: Any = None, *, method: str = "POST") -> tuple[int, dict[str, Any]]:
    return cloud.http("api", method, f"/executions/{path}", {} if body is None else body)


def ask(cloud: Cloud, path: str) -> tuple[int, dict[str, Any]]:
    return cloud.http("api", "GET", f"/executions/{path}")


def test_signals_are_sent_once_and_queries_answered(cloud: Cloud) -> None:
    cloud.client.start("c-1", collect)
    for _ in range(2):
        status, sent = post(cloud, "c-1/signals/go", {"payload": 1, "request_id": "one"})
        assert (status, sent["request_id"]) == (202, "one")
    cloud.run()
    assert ask(cloud, "c-1/queries/seen") == (200, {"execution_id": "c-1", "query": "seen", "answer": [1]})
    assert ask(cloud, "c-1")[1]["custom_status"] == {"seen": 1}
    assert len(post(cloud, "c-1/signals/go", {"payload": 2})[1]["request_id"]) == 26
    assert cloud.result("c-1") == [1, 2]
    assert ask(cloud, "c-1/queries/seen")[1]["answer"] == [1, 2]
    assert post(cloud, "c-1/signals/go", {"payload": 3})[0] == 410


def test_a_signal_starts_the_execution_that_it_is_for(cloud: Cloud) -> None:
    body = {"orchestrator": "collect", "payload": 5, "request_id": "five"}
    status, started = post(cloud, "c-1/signals/go", body, method="PUT")
    assert (status, started["execution_id"], started["orchestrator"]) == (201, "c-1", "collect")
    cloud.clock.advance(1)
    assert post(cloud, "c-1/signals/go", body, method="PUT")[0] == 200
    assert post(cloud, "c-1/signals/go", body | {"payload": 6, "request_id": "six"}, method="PUT")[0] == 200
    assert cloud.result("c-1") == [5, 6]
    assert post(cloud, "c-1/signals/go", body | {"request_id": "seven"}, method="PUT")[0] == 409
    again = body | {"request_id": "eight", "id_reuse": "allow_if_closed"}
    assert post(cloud, "c-1/signals/go", again, method="PUT")[0] == 201


def test_an_update_is_answered_rejected_or_fails(cloud: Cloud) -> None:
    cloud.client.start("c-1", collect, 9)

    def update(number: int, id_: str) -> tuple[int, dict[str, Any]]:
        body = {"payload": number, "request_id": id_, "timeout": 0}
        status, pending = post(cloud, "c-1/updates/add", body)
        assert (status, pending["request_id"]) == (202, id_)
        cloud.run()
        return post(cloud, "c-1/updates/add", body)

    done = {"execution_id": "c-1", "request_id": "a", "outcome": "completed", "result": 4, "failure": None}
    assert update(4, "a") == (200, done)
    status, rejected = update(-4, "b")
    assert (status, rejected["outcome"]) == (422, "rejected")
    assert rejected["message"] == "execution c-1 rejected the update: only what is positive"
    status, failed = update(13, "c")
    assert (status, failed["outcome"], failed["failure"]["type"]) == (422, "failed", "builtins.RuntimeError")
    assert ask(cloud, "c-1/queries/seen")[1]["answer"] == [4]


def test_a_query_that_never_ends_is_ended(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durably.aws.api.LONGEST_WAIT_S", 0.2)
    cloud.client.start("c-1", collect)
    cloud.run()
    status, answer = ask(cloud, "c-1/queries/stuck")
    assert (status, "ran longer" in answer["message"]) == (422, True)
    assert ask(cloud, "c-1/queries/seen")[0] == 200


def test_children_and_odd_ids_are_reached_under_every_route(cloud: Cloud) -> None:
    cloud.client.start("tenant/42:a+b=c@d", parent)
    cloud.run()
    (child,) = ask(cloud, "tenant%2F42%3Aa%2Bb%3Dc%40d")[1]["children"]
    id_ = child["execution_id"]
    assert id_ == "tenant/42:a+b=c@d/1.1"
    path = "tenant%2F42%3Aa%2Bb%3Dc%40d%2F1.1"
    assert ask(cloud, f"{path}/queries/seen")[1]["execution_id"] == id_
    assert post(cloud, f"{path}/updates/add", {"payload": -1, "timeout": 0})[0] == 202
    for operation in ("suspend", "resume"):
        assert post(cloud, f"{path}/{operation}")[0] == 202
        cloud.run()
    assert post(cloud, f"{path}/reset", {"to_event": 1})[1]["execution_id"] == id_
    assert post(cloud, f"{path}/forks", {"execution_id": "other/7"})[0] == 201
    assert post(cloud, f"{path}/signals/go", {"payload": 1})[0] == 202
    cloud.run()
    assert ask(cloud, f"{path}/result")[1]["status"] == "completed"
    assert post(cloud, "other%2F7/cancel")[0] == 202
    cloud.run()
    assert post(cloud, "other%2F7/retry")[0] == 200
    assert post(cloud, "other%2F7/terminate")[0] == 202
    status, _ = post(cloud, "new%2F1/signals/go", {"orchestrator": "collect"}, method="PUT")
    assert status == 201


def test_an_execution_that_failed_is_retried_reset_and_forked(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.client.start("t-1", travel)
    cloud.run()
    assert ask(cloud, "t-1/result")[1]["status"] == "failed"
    assert ask(cloud, "t-1/result")[1]["failure"]["type"] == f"{ActivityError.__module__}.ActivityError"
    monkeypatch.setattr(f"{__name__}.vacant", True)
    status, record = post(cloud, "t-1/retry", {"reason": "there are rooms now"})
    assert (status, record["run"], record["status"]) == (200, 2, "running")
    assert cloud.result("t-1") == ["TRAIN", "HOTEL"]
    assert post(cloud, "t-1/retry")[0] == 409

    status, record = post(cloud, "t-1/reset", {"to_event": 3})
    assert (status, record["run"]) == (200, 3)
    assert cloud.result("t-1") == ["TRAIN", "HOTEL"]
    status, forked = post(cloud, "t-1/forks", {"execution_id": "t-2", "input": {"by": "boat"}})
    assert (status, forked["execution_id"]) == (201, "t-2")
    assert cloud.result("t-2") == ["BOAT", "HOTEL"]
    assert post(cloud, "t-1/reset", {"to_event": 1, "input": {"by": "bus"}})[0] == 200
    assert cloud.result("t-1") == ["BUS", "HOTEL"]


def test_a_reset_ends_the_children_of_the_run_that_it_leaves(cloud: Cloud) -> None:
    cloud.client.start("p", parent)
    cloud.run()
    post(cloud, "p/reset", {"to_event": 1})
    assert cloud.size(DELAY) == 1  # the errand
    cloud.run()
    assert [each["execution_id"] for each in ask(cloud, "p")[1]["children"]] == ["p/1.1"]
    assert post(cloud, "p%2F1.1/signals/go", {"payload": 3})[0] == 202
    assert cloud.result("p") == [3]


@pytest.mark.parametrize(
    ("asked", "body", "status", "said"),
    [
        ("POST nobody/signals/go", {}, 404, "No execution has the id 'nobody'"),
        ("POST nobody/updates/add", {"timeout": 0}, 404, "nobody"),
        ("GET nobody/queries/seen", None, 404, "nobody"),
        ("POST nobody/cancel", {}, 404, "nobody"),
        ("POST nobody/suspend", {}, 404, "nobody"),
        ("POST nobody/resume", {}, 404, "nobody"),
        ("POST nobody/retry", {}, 404, "nobody"),
        ("POST nobody/reset", {"to_event": 1}, 404, "nobody"),
        ("POST nobody/forks", {"execution_id": "x"}, 404, "nobody"),
        ("POST c-1/signals/a%20b", {}, 400, "'a b' cannot name a signal"),
        ("POST c-1/updates/1st", {}, 400, "'1st' cannot name"),
        ("POST c-1/signals/go", {"request_id": 7}, 400, "request_id must be a string, got int"),
        ("POST c-1/signals/go", {"request_id": "x" * 257}, 400, "A request id has at most 256 bytes"),
        ("POST c-1/signals/go", {"payloda": 7}, 400, "Unknown field 'payloda'; there are payload, request_id"),
        ("POST c-1/signals/go", "[1]", 400, "must be a JSON object, got list"),
        ("POST c-1/signals/go", '{"payload": NaN}', 400, "JSON"),
        ("POST c-1/signals/go", {"payload": "x" * 4_300_000}, 413, "bytes"),
        ("PUT c-1/signals/go", {}, 400, "The field orchestrator is missing"),
        ("PUT c-2/signals/go", {"orchestrator": "nobody"}, 404, "No orchestrator is named 'nobody'"),
        ("PUT c-2/signals/go", {"orchestrator": "collect", "input": {"x": 1}}, 400, "x"),
        ("POST c-1/updates/add", {"timeout": 60}, 400, "timeout: Input should be less than or equal to 8"),
        ("POST c-1/updates/add", {"timeout": "long"}, 400, "timeout must be a number, got str"),
        ("GET c-1/queries/total", None, 422, "answers no query 'total'; it answers: seen"),
        ("GET c-1/queries/seen?when=now", None, 400, "Unknown parameter 'when'"),
        ("POST c-1/cancel", {"reason": 1}, 400, "reason must be a string"),
        ("POST c-1/retry", {}, 409, "is running; only what failed"),
        ("POST c-1/reset", {}, 400, "The field to_event is missing"),
        ("POST c-1/reset", {"to_event": "one"}, 400, "to_event must be a whole number, got str"),
        ("POST c-1/reset", {"to_event": 0}, 400, "to_event"),
        ("POST c-1/reset", {"to_event": 99}, 400, "no applied event 99"),
        ("POST c-1/forks", {}, 400, "The field execution_id is missing"),
        ("POST c-1/forks", {"execution_id": "a b"}, 400, "'a b' cannot be an execution id"),
        ("DELETE c-1", None, 409, "is running; only what has ended can be purged"),
        ("DELETE nobody", None, 404, "No execution has the id 'nobody'"),
        ("DELETE a%20b", None, 400, "'a b' cannot be an execution id"),
        ("DELETE c-1?now=true", None, 400, "Unknown parameter 'now'"),
        ("POST c-1/reset", {"to_event": 1, "request_id": "x" * 257}, 400, "A request id has at most 256"),
        ("POST c-1/forks", {"execution_id": "c-1"}, 409, "The id 'c-1' is taken"),
        ("POST c-1/forks", {"execution_id": "x", "input": {"wanted": "all"}}, 400, "wanted"),
    ],
)
def test_bad_requests_get_clear_answers_and_change_nothing(
    cloud: Cloud, asked: str, body: Any, status: int, said: str
) -> None:
    cloud.client.start("c-1", collect)
    cloud.run()
    before = cloud.client.history("c-1")
    method, path = asked.split()
    got, answer = cloud.http("api", method, f"/executions/{path}", body)

    assert (got, said in answer["message"]) == (status, True), answer
    cloud.run()
    assert cloud.client.history("c-1") == before
    assert [record.execution_id for record in cloud.client.list()] == ["c-1"]


def purge(cloud: Cloud, asked: str) -> tuple[int, dict[str, Any]]:
    return cloud.http("api", "DELETE", f"/executions{asked}")


def test_what_was_closed_is_purged_in_bounded_steps(cloud: Cloud) -> None:
    for id_ in ("c-1", "c-2", "c-3"):
        cloud.client.start(id_, collect, 0)
    cloud.client.start("open", collect)
    cloud.run()
    assert purge(cloud, "/c-1") == (200, {"execution_id": "c-1", "status": "purged"})
    assert [purge(cloud, "/c-1")[0], ask(cloud, "c-1")[0]] == [200, 404]
    cloud.clock.advance(1)
    closed_before = f"?closed_before={quote(datetime.fromtimestamp(cloud.clock.ms / 1000, UTC).isoformat())}"
    assert purge(cloud, f"{closed_before}&status=failed") == (200, {"executions": [], "more": False})
    status, would = purge(cloud, f"{closed_before}&dry_run=true&limit=2")
    assert (status, [each["execution_id"] for each in would["executions"]]) == (200, ["c-3", "c-2"])
    assert [ids_of(purge(cloud, f"{closed_before}&limit=1")) for _ in range(3)] == [
        (["c-3"], True),
        (["c-2"], True),
        ([], False),
    ]
    assert [record.execution_id for record in cloud.client.list()] == ["open"]


def ids_of(answer: tuple[int, dict[str, Any]]) -> tuple[list[str], bool]:
    assert answer[0] == 200
    return [each["execution_id"] for each in answer[1]["executions"]], answer[1]["more"]


def test_a_purge_stops_before_the_function_does(cloud: Cloud) -> None:
    for id_ in ("c-1", "c-2"):
        cloud.client.start(id_, collect, 0)
    cloud.run()
    cloud.clock.advance(60)
    cloud.hook = lambda call: cloud.clock.advance(7) if call.operation == "s3.ListObjectsV2" else None
    asked = "?closed_before=2100-01-01T00:00:00Z"
    assert [ids_of(purge(cloud, asked)) for _ in range(2)] == [(["c-2"], True), (["c-1"], True)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "closed_before must be an instant with its time zone"),
        ("?closed_before=2030-01-31", "closed_before must be an instant with its time zone"),
        ("?closed_before=soon", "got 'soon'"),
        ("?closed_before=2030-01-31T00:00:00Z&status=running", "status must be one of completed, failed, cancelled"),
        ("?closed_before=2030-01-31T00:00:00Z&dry_run=yes", "dry_run must be true or false"),
        ("?closed_before=2030-01-31T00:00:00Z&limit=0", "limit must be a whole number from 1"),
        ("?before=2030-01-31T00:00:00Z", "Unknown parameter 'before'"),
    ],
)
def test_a_purge_that_is_not_meant_is_refused(cloud: Cloud, asked: str, said: str) -> None:
    status, answer = purge(cloud, asked)
    assert (status, said in answer["message"]) == (400, True), answer


def test_a_repeated_request_is_carried_out_once(cloud: Cloud) -> None:
    cloud.client.start("c-1", collect)
    cloud.run()
    reset, fork = {"to_event": 1, "request_id": "r"}, {"execution_id": "c-2", "request_id": "f"}
    assert {post(cloud, "c-1/reset", reset)[1]["run"] for _ in range(2)} == {2}
    assert len({post(cloud, "c-1/forks", fork)[1]["gen"] for _ in range(2)}) == 1
    cloud.client.terminate("c-1")
    cloud.run()
    assert {post(cloud, "c-1/retry", {"request_id": "again"})[1]["run"] for _ in range(2)} == {3}
    for path in ("suspend", "resume", "suspend"):
        assert post(cloud, f"c-1/{path}", {"request_id": path})[0] == 202
        cloud.run()
    assert ask(cloud, "c-1")[1]["status"] == "running"


def test_the_api_describes_itself(cloud: Cloud) -> None:
    status, described = cloud.http("api", "GET", "/openapi.json")
    assert (status, described) == (200, json.loads(json.dumps(document())))
    signal = described["paths"]["/executions/{execution_id}/signals/{name}"]
    assert signal.keys() == {"post", "put"}
    assert [parameter["name"] for parameter in signal["post"]["parameters"]] == ["execution_id", "name"]
    form = signal["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = described["components"]["schemas"][form.rpartition("/")[2]]
    assert schema["properties"].keys() == {"payload", "request_id"}
    assert schema["additionalProperties"] is False
