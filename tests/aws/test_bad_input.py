"""Bad input through every door: a clear answer, nothing poisoned, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from durably.adapters.tokens import HmacTokenSigner
from durably.core.errors import ActivityError, ExecutionFailedError
from durably.core.events import ActivityCompleted
from durably.core.keys import ActivityKey, RunKey
from durably.ports.messages import CallbackDeadline, EventMessage, Outgoing
from durably.ports.tokens import TokenClaims
from tests.aws import programs
from tests.aws.driver import MAPPINGS, Call, Cloud, deployed
from tests.aws.payloads import ACTIVITIES, DELAY, EVENTS, http_event
from tests.aws.programs import calls, seen

GARBAGE = [
    "",
    "{",
    "null",
    "[]",
    '"text"',
    "12",
    "{}",
    '{"id":"x","execution":"x-1","due_ms":0}',
    '{"id":"x","execution":"x-1","due_ms":0,"message":null}',
    '{"id":"x","execution":"x-1","due_ms":0,"message":{"kind":"EventMessage"}}',
    '{"id":"x","execution":"x-1","due_ms":"soon","message":{}}',
    '{"id":"x","execution":"x-1","due_ms":0,"gen":"g","ref":"nothing like a reference"}',
    '{"id":"x","execution":"x-1","due_ms":0,"gen":"g","ref":"' + "0" * 64 + ':12"}',
    '{"Records":[{"eventSource":"aws:s3"}]}',
    "[" * 100_000,
]


def send(cloud: Cloud, queue: str, body: str, *, group: str = "x-1") -> None:
    extra = {"MessageGroupId": group, "MessageDeduplicationId": str(hash(body))} if queue.endswith(".fifo") else {}
    cloud.sqs.send_message(QueueUrl=cloud.url(queue), MessageBody=body, **extra)


def asked(cloud: Cloud, question: str = "q") -> str:
    """A callback's address that somebody waits for."""
    cloud.client.start(f"ask-{question}", programs.asker, question)
    cloud.run(until=lambda: f"{question}/1" in seen)
    return seen[f"{question}/1"]


# --- queues ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [EVENTS, ACTIVITIES, DELAY])
def test_bodies_that_are_no_messages_end_in_the_bucket_and_hinder_nobody(cloud: Cloud, queue: str) -> None:
    bodies = [body for body in GARBAGE if body]
    cloud.client.start("x-1", programs.everything, "q")
    for body in bodies:
        send(cloud, queue, body)
    cloud.run(until=lambda: "q/1" in seen)
    assert cloud.call_back(seen["q/1"], 7)[0] == 200

    assert cloud.result("x-1") == [2, 2, 7, 2, 2]
    cloud.run()
    assert not any(cloud.size(each) for each in MAPPINGS)
    found = cloud.s3.list_objects_v2(Bucket="bucket", Prefix="dead-letters/").get("Contents", [])
    kept = [json.loads(cloud.s3.get_object(Bucket="bucket", Key=each["Key"])["Body"].read()) for each in found]
    assert sorted(each["record"]["body"] for each in kept) == sorted(bodies)
    assert all(each["reason"] for each in kept)


@pytest.mark.parametrize(("code", "left"), [("NoSuchKey", 0), ("AccessDenied", 1)])
def test_a_dead_letter_is_given_up_where_its_body_is_gone_and_kept_where_it_is_forbidden(
    cloud: Cloud, code: str, left: int
) -> None:
    reference = json.dumps({"id": "x", "execution": "x-1", "due_ms": 0, "gen": "g", "ref": f"{'0' * 64}:1"})
    send(cloud, "activities-dead", reference)

    def answer(call: Call) -> None:
        if str(call) == "before s3.GetObject":
            raise ClientError({"Error": {"Code": code}}, "GetObject")

    cloud.hook = answer
    cloud.poll("activities-dead")
    assert cloud.size("activities-dead") == left
    kept = cloud.s3.list_objects_v2(Bucket="bucket", Prefix="dead-letters/").get("Contents", [])
    assert len(kept) == 1 - left


def test_an_execution_is_told_that_the_task_it_waits_for_is_lost(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.asker, "q" * 300_000)
    cloud.poll(EVENTS)
    (passing,) = cloud.s3.list_objects_v2(Bucket="bucket", Prefix="messages/")["Contents"]
    cloud.s3.delete_object(Bucket="bucket", Key=passing["Key"])
    with pytest.raises(ExecutionFailedError, match=r"is lost: .*messages/.* but it is not there"):
        cloud.result("x-1")
    assert calls["ask"] == 0
    assert cloud.s3.list_objects_v2(Bucket="bucket", Prefix="dead-letters/")["KeyCount"] == 1


@pytest.mark.parametrize(
    ("id_", "told"),
    [
        ("task.3.2", "ActivityFailed(3, 2)"),
        ("completed.3.1", "ActivityFailed(3, 1)"),
        ("deadline.3.1.1700000000000", "ActivityFailed(3, 1)"),
        ("start.3", "ChildFailed(3)"),
        ("returned.3", "ChildFailed(3)"),
        ("signal.3", "SignalFailed(3)"),
        ("fired.3", None),
        ("wake.3.1", None),
    ],
)
def test_whoever_asked_is_told_of_what_is_lost(cloud: Cloud, id_: str, told: str | None) -> None:
    cloud.client.start("x-1", programs.asker, "q")
    run = cloud.run_of("x-1")
    lost = {"execution": "x-1", "due_ms": 0, "gen": run.gen, "ref": f"{'0' * 64}:1:passing"}
    for name in (f"{run.gen}.1.{id_}", f"{run.gen}.signal.1.task.3.2"):  # the second one is a signal's, named by a user
        send(cloud, "activities-dead", json.dumps({"id": name, **lost}))
    cloud.poll("activities-dead")
    events = [body["message"]["event"] for body in cloud.bodies(EVENTS) if body["message"]["kind"] == "EventMessage"]
    numbers = [[str(event[key]) for key in ("seq", "attempt") if key in event] for event in events]
    assert [f"{event['kind']}({', '.join(n)})" for event, n in zip(events, numbers, strict=True)] == [told] * bool(told)


def test_a_message_of_a_newer_version_waits_for_a_newer_worker(cloud: Cloud) -> None:
    newer = '{"id":"x","execution":"x-1","due_ms":0,"message":{"kind":"Telepathy"}}'
    send(cloud, EVENTS, newer)
    for _ in range(200):
        if not cloud.step():
            cloud.clock.advance(30)

    assert [body["message"]["kind"] for queue in MAPPINGS for body in cloud.bodies(queue)] == ["Telepathy"]
    assert not cloud.s3.list_objects_v2(Bucket="bucket").get("Contents")


def test_messages_in_the_wrong_queue_are_sent_to_their_own(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.poll(EVENTS)
    (task,) = cloud.receive(ACTIVITIES)
    cloud.sqs.delete_message(QueueUrl=cloud.url(ACTIVITIES), ReceiptHandle=task["receiptHandle"])
    send(cloud, EVENTS, task["body"])  # a task among the events
    cloud.poll(EVENTS)
    assert cloud.size(ACTIVITIES) == 1
    cloud.poll(ACTIVITIES)
    (event,) = cloud.receive(EVENTS)
    cloud.sqs.delete_message(QueueUrl=cloud.url(EVENTS), ReceiptHandle=event["receiptHandle"])
    send(cloud, ACTIVITIES, event["body"])  # an event among the tasks
    cloud.clock.advance(301)  # beyond the deduplication of the event that was taken away

    assert cloud.result("x-1") == 8


def test_a_deadline_among_the_events_is_not_lost(cloud: Cloud) -> None:
    asked(cloud)
    item = cloud.backend.read_items(cloud.run_of("ask-q"))[0]
    assert item.task is not None
    assert item.deadline_ms is not None
    cloud.sqs.purge_queue(QueueUrl=cloud.url(DELAY))
    cloud.backend.send([Outgoing(CallbackDeadline(task=item.task, deadline_ms=item.deadline_ms), cloud.clock.ms)])
    (deadline,) = cloud.receive(DELAY)
    cloud.sqs.delete_message(QueueUrl=cloud.url(DELAY), ReceiptHandle=deadline["receiptHandle"])
    send(cloud, EVENTS, deadline["body"])
    cloud.run(until=lambda: "q/2" in seen)


def test_messages_for_executions_that_nobody_knows_are_dropped(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    (record,) = cloud.receive(EVENTS)
    stray = json.loads(record["body"].replace("x-1", "never-started"))
    send(cloud, EVENTS, json.dumps(stray), group="never-started")
    cloud.clock.advance(61)

    assert cloud.result("x-1") == 8
    cloud.run()
    assert cloud.backend.read_record("never-started") is None


def test_a_forged_answer_to_a_question_that_nobody_asked_changes_nothing(cloud: Cloud) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    run = cloud.run_of("x-1")
    cloud.backend.send([Outgoing(EventMessage(run=run, event=ActivityCompleted(seq=99, result="1")))])
    assert cloud.result("x-1") == 8


def test_an_activity_without_a_queue_fails_with_the_remedy(cloud: Cloud) -> None:
    cloud.activities = [programs.triple]
    queues = {name: url for name, url in cloud.settings.activity_queues.items() if name != "double"}
    cloud.settings = replace(cloud.settings, activity_queues=queues)
    cloud.restart()
    cloud.client.start("x-1", programs.pipeline, 1)
    cloud.run()

    failure = cloud.client.describe("x-1").failure
    assert failure is not None
    assert failure.type.endswith(ActivityError.__name__)
    assert "No queue is known for the activity 'double'" in str(failure.cause)


# --- callbacks -----------------------------------------------------------------------------------------------------


def forged(cloud: Cloud, url: str) -> dict[str, str]:
    """Tokens that are not this attempt's, by what is wrong with them."""
    token = url.rpartition("/")[2]
    execution = cloud.backend.read_record("ask-q")
    assert execution is not None
    key = ActivityKey(execution.key, 1)
    far = cloud.clock.ms + 10**9
    elsewhere = HmacTokenSigner("another", {"k1": b"0123456789abcdef0123456789abcdef"}, "k1")
    guessed = HmacTokenSigner("test", {"k1": b"a guess of 16 bytes or more"}, "k1")
    claims = TokenClaims(key=key, attempt=1, expires_at_ms=far)
    return {
        "another deployment's": elsewhere.sign(claims),
        "signed with a guessed key": guessed.sign(claims),
        "cut": token[:-3],
        "longer": token + "AAAA",
        "altered": token[:20] + ("A" if token[20] != "A" else "B") + token[21:],
        "text": "hello",
        "huge": "A" * 5000,
        "of an unknown key": HmacTokenSigner("test", {"k9": b"0123456789abcdef0123456789abcdef"}, "k9").sign(claims),
    }


def test_forged_and_foreign_tokens_are_refused_and_the_true_one_still_counts(cloud: Cloud) -> None:
    url = asked(cloud)
    for what, token in forged(cloud, url).items():
        for action in ("", "/failure"):
            status, answer = cloud.call_back(f"https://api.example.com/callbacks/{token}{action}", {"type": "x"})
            assert (status, answer) == (401, {"message": "This is not a task token of this deployment."}), what

    assert cloud.call_back(url, 1)[0] == 200
    assert cloud.result("ask-q") == 1


def test_tokens_of_other_attempts_runs_and_lives_are_gone(cloud: Cloud) -> None:
    asked(cloud)
    run = cloud.run_of("ask-q")
    signer = HmacTokenSigner("test", {"k1": b"0123456789abcdef0123456789abcdef"}, "k1")
    far = cloud.clock.ms + 10**9
    strangers = [
        TokenClaims(key=ActivityKey(run, 1), attempt=2, expires_at_ms=far),
        TokenClaims(key=ActivityKey(run, 2), attempt=1, expires_at_ms=far),
        TokenClaims(key=ActivityKey(RunKey(run.execution_id, "0" * 26, 1), 1), attempt=1, expires_at_ms=far),
        TokenClaims(key=ActivityKey(RunKey(run.execution_id, run.gen, 2), 1), attempt=1, expires_at_ms=far),
        TokenClaims(key=ActivityKey(RunKey("nobody", run.gen, 1), 1), attempt=1, expires_at_ms=far),
        TokenClaims(key=ActivityKey(run, 1), attempt=1, expires_at_ms=cloud.clock.ms - 1),
    ]
    for claims in strangers:
        assert cloud.call_back(f"https://api.example.com/callbacks/{signer.sign(claims)}", 1)[0] == 410


def test_replayed_callbacks_get_true_answers(cloud: Cloud) -> None:
    url = asked(cloud)
    assert cloud.call_back(url, 1)[0] == 200
    assert cloud.call_back(url, 1)[0] == 200  # the same again
    assert cloud.call_back(url, 2)[0] == 409
    assert cloud.call_back(f"{url}/failure", {"type": "Late"})[0] == 409
    assert cloud.result("ask-q") == 1
    assert cloud.call_back(url, 1)[0] == 200  # closed since, and still the same
    assert cloud.call_back(url, 3)[0] == 409


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        ("{", "application/json", 400, "not JSON"),
        ("NaN", "application/json", 400, "NaN"),
        ('"text"', "application/json", 400, "int"),
        ('"\\ud800"', "application/json", 400, "not JSON that can be stored"),
        ("[" * 100_000, "application/json", 400, "not JSON that can be stored"),
        (b"\xff\xfe", "application/json", 400, "not JSON"),
        ("7", "text/plain", 415, "application/json"),
        ("a=7", "application/x-www-form-urlencoded", 415, "application/json"),
        (json.dumps("x" * 4_194_400), "application/json", 413, "more than 4194304"),
    ],
)
def test_bad_callback_bodies_are_refused_and_the_callback_stays_open(
    cloud: Cloud, body: Any, kind: str, status: int, said: str
) -> None:
    url = asked(cloud)
    got, answer = cloud.call_back(url, body, content_type=kind)
    assert got == status, answer
    assert said in answer["message"]

    assert cloud.call_back(url, 7)[0] == 200
    assert cloud.result("ask-q") == 7


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "object"),
        ('{"kind":"x"}', "Unknown field 'kind'"),
        ('{"type":1}', "type must be a str"),
        ("", "not JSON"),
    ],
)
def test_bad_failures_are_refused(cloud: Cloud, body: str, said: str) -> None:
    url = asked(cloud)
    status, answer = cloud.call_back(f"{url}/failure", body)
    assert (status, said in answer["message"]) == (400, True), answer
    assert cloud.call_back(url, 7)[0] == 200


def test_a_body_that_api_gateway_encoded_is_decoded(cloud: Cloud) -> None:
    url = asked(cloud)
    path = url.removeprefix("https://api.example.com")
    assert cloud.http("callbacks", "POST", path, b"7", encoded=True)[0] == 200
    event = {"body": "%%%", "isBase64Encoded": True}
    refused = cloud.invoke("callbacks", {**_callback_event(cloud, path), **event})
    assert refused["statusCode"] == 400


def _callback_event(cloud: Cloud, path: str) -> dict[str, Any]:
    return http_event("POST", path, "7", "application/json")


def test_a_store_that_refuses_answers_503_and_nothing_is_half_done(cloud: Cloud) -> None:
    url = asked(cloud)

    def refuse(call: object) -> None:
        if str(call) == "before dynamodb.PutItem":
            raise EndpointConnectionError(endpoint_url="https://dynamodb")

    cloud.hook = refuse
    status, answer = cloud.call_back(url, 7)
    assert status == 503, answer
    cloud.hook = None
    assert cloud.call_back(url, 7)[0] == 200
    assert cloud.result("ask-q") == 7


# --- management ------------------------------------------------------------------------------------------------------

START = {"execution_id": "x-1", "orchestrator": "pipeline", "input": {"n": 1}}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("{", 400, "not JSON"),
        ("[]", 400, "must be a JSON object, got list"),
        ({}, 400, "execution_id is missing"),
        ({"execution_id": "x-1"}, 400, "orchestrator is missing"),
        (START | {"orchestrator": "nobody"}, 404, "No orchestrator is named 'nobody'"),
        (START | {"execution_id": "a b"}, 400, "cannot be an execution id"),
        (START | {"execution_id": "x#y"}, 400, "cannot be an execution id"),
        (START | {"execution_id": "x" * 257}, 400, "cannot be an execution id"),
        (START | {"execution_id": 7}, 400, "execution_id must be a string"),
        (START | {"input": [1]}, 400, "input must be an object"),
        (START | {"input": {}}, 400, "n"),
        (START | {"input": {"n": "one"}}, 400, "n"),
        (START | {"input": {"n": 1, "m": 2}}, 400, "m"),
        (START | {"input": {"n": float("nan")}}, 400, "JSON"),
        (START | {"id_reuse": "always"}, 400, "id_reuse must be one of"),
        (START | {"color": "red"}, 400, "Unknown field 'color'"),
        ('{"execution_id": "x-1", "orchestrator": "pipeline", "input": {"n": "\\ud800"}}', 400, "JSON"),
    ],
)
def test_bad_starts_are_refused_and_start_nothing(cloud: Cloud, body: Any, status: int, said: str) -> None:
    got, answer = cloud.http("api", "POST", "/executions", body)

    assert (got, said in answer["message"]) == (status, True), answer
    assert not list(cloud.client.list())
    assert not any(cloud.size(queue) for queue in MAPPINGS)


def test_starts_of_the_wrong_kind_or_size_are_refused(cloud: Cloud) -> None:
    assert cloud.http("api", "POST", "/executions", START, "text/plain")[0] == 415
    huge = START | {"orchestrator": "asker", "input": {"question": "x" * 4_300_000}}
    assert cloud.http("api", "POST", "/executions", huge)[0] == 413
    assert not list(cloud.client.list())


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/executions/nobody", 404, "No execution has the id 'nobody'"),
        ("GET", "/executions/nobody/result", 404, "nobody"),
        ("GET", "/executions/nobody/history", 404, "nobody"),
        ("POST", "/executions/nobody/terminate", 404, "nobody"),
        ("GET", "/executions/a%20b", 400, "cannot be an execution id"),
        ("GET", "/executions?limit=0", 400, "limit must be a whole number from 1 to 1000"),
        ("GET", "/executions?limit=many", 400, "limit"),
        ("GET", "/executions?limit=99999999999999999999", 400, "limit"),
        ("GET", "/executions?cursor=rubbish", 400, "cursor"),
        ("GET", "/executions?status=odd", 400, "status must be one of"),
        ("GET", "/executions?colour=red", 400, "Unknown parameter 'colour'"),
        ("GET", "/executions/x-1/history?after=-1", 400, "after"),
        ("PATCH", "/executions/x-1", 404, "Not found"),
        ("GET", "/nothing", 404, "Not found"),
    ],
)
def test_bad_requests_get_clear_answers(cloud: Cloud, method: str, path: str, status: int, said: str) -> None:
    cloud.client.start("x-1", programs.pipeline, 1)
    got, answer = cloud.http("api", method, path)

    assert (got, said in answer["message"]) == (status, True), answer


def test_an_id_that_is_taken_or_closed_is_told_apart(cloud: Cloud) -> None:
    assert cloud.http("api", "POST", "/executions", START | {"request_id": "r"})[0] == 201
    cloud.clock.advance(1)
    assert cloud.http("api", "POST", "/executions", START | {"request_id": "r"})[0] == 200  # the same start again
    assert cloud.http("api", "POST", "/executions", START)[0] == 409
    assert cloud.result("x-1") == 8
    assert cloud.http("api", "POST", "/executions/x-1/terminate", {})[0] == 410
    assert cloud.http("api", "POST", "/executions", START | {"id_reuse": "allow_if_closed"})[0] == 201


def test_a_payload_too_large_to_travel_fails_the_activity_that_made_it() -> None:
    from durably import activity

    @activity
    def double(n: int) -> int:
        return 2 * n

    @activity(name="triple")
    def bloated(n: int) -> str:
        calls["bloated"] += 1
        return "x" * 5_000_000

    programs.reset()
    with deployed([programs.mixed], [double, bloated]) as cloud:
        cloud.client.start("x-1", programs.mixed, 1)
        cloud.run(until=lambda: cloud.closed("x-1"))
        failure = cloud.client.describe("x-1").failure
        assert failure is not None
        assert "at most 4,194,304 bytes" in str(failure.cause)
        assert calls["bloated"] == 1


def test_an_event_that_is_no_batch_is_an_error_of_who_invokes(cloud: Cloud) -> None:
    handlers: list[Callable[..., Any]] = [cloud.process.handlers[name] for name in ("orchestrator", "activities")]
    for handler in handlers:
        with pytest.raises(KeyError, match="Records"):
            handler({"hello": "world"}, None)
