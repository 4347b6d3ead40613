"""The story that triggers begin: a CSV put into S3, the approver's request, a real SQL database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.cloud.emulator import ROOT
from tests.cloud.stack import Answer, Stack, eventually, request

USERS = (ROOT / "events/users.csv").read_bytes()
EVERYBODY = b"id\n" + b"\n".join(b"%d" % number for number in range(1, 100))


class Told:
    """What S3 tells EventBridge, kept in a queue of the test's own, so that it can be told again."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._sqs, self._events = stack.client("sqs"), stack.client("events")
        self._queue: str = self._sqs.create_queue(QueueName="told")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        self._events.put_rule(Name="told", EventPattern=json.dumps({"source": ["aws.s3"]}))
        self._events.put_targets(Rule="told", Targets=[{"Id": "queue", "Arn": arn}])

    def event(self, name: str) -> str:
        """What was told of the CSV of that name."""

        def look() -> str | None:
            for message in self._sqs.receive_message(QueueUrl=self._queue, WaitTimeSeconds=1).get("Messages", []):
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
                if json.loads(message["Body"])["detail"]["object"]["key"] == f"users/{name}.csv":
                    return str(message["Body"])
            return None

        found = eventually(look, what=f"the event of {name}")
        assert found is not None
        return found

    def again(self, event: str) -> None:
        """Have it delivered twice more, and wait until it is dealt with."""
        for _ in range(2):
            self._sqs.send_message(QueueUrl=self._stack.queue("TriggersQueue"), MessageBody=event)
        eventually(partial(self._is_done, "TriggersQueue"), what="the triggers' queue to be empty")

    def _is_done(self, queue: str) -> bool:
        return self._stack.waiting(queue) == self._stack.waiting(queue, "NotVisible") == 0


@pytest.fixture(scope="module")
def told(routing: Stack) -> Told:
    return Told(routing)


@pytest.fixture
def no_rule(routing: Stack) -> Iterator[None]:
    """S3's events reach nobody for a while."""
    events = routing.client("events")
    bucket = routing.outputs["UsersBucket"]
    (rule,) = (each["Name"] for each in events.list_rules()["Rules"] if bucket in each["EventPattern"])
    events.disable_rule(Name=rule)
    yield
    events.enable_rule(Name=rule)


def put(stack: Stack, name: str) -> None:
    stack.client("s3").put_object(Bucket=stack.outputs["UsersBucket"], Key=f"users/{name}.csv", Body=USERS)


def approve(stack: Stack, name: str, ids: bytes, *, signed: bool = True) -> Answer:
    return request("POST", f"{stack.url}/onboardings/{name}/approvals", ids, signed=signed)


def users(database: Path, name: str) -> dict[str, tuple[int, bool]]:
    """Id and approval of each user of an onboarding."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "SELECT name, id, approved FROM users WHERE batch LIKE ?", [f"user-onboarding:{name}/%"]
        )
        return {who: (id_, bool(approved)) for who, id_, approved in found}


def begun(stack: Stack) -> list[str]:
    answer = request("GET", f"{stack.url}/executions?orchestrator=onboard_users")
    assert answer.status == 200, answer
    return sorted(each["execution_id"] for each in answer.body["executions"])


def asks_for_approval(stack: Stack, execution_id: str) -> bool:
    answer = request("GET", f"{stack.url}/executions/{execution_id}")
    return answer.status == 200 and answer.body["custom_status"] == "waiting for approval"


def test_a_csv_in_s3_is_onboarded_once_it_is_approved(routing: Stack, told: Told, users_database: Path) -> None:
    put(routing, "first")
    eventually(partial(asks_for_approval, routing, "user-onboarding:first"), what="the import")
    imported = users(users_database, "first")
    assert {who: approved for who, (_, approved) in imported.items()} == dict.fromkeys(
        ["Sacha", "Brock", "Oak", "James"], False
    )
    ids = f"id\n{imported['Sacha'][0]}\n{imported['Oak'][0]}\n".encode()
    answer = approve(routing, "first", ids)
    assert (answer.status, answer.body) == (202, {"execution_id": "user-onboarding:first"})
    result = routing.result("user-onboarding:first")
    assert (result["status"], result["imported"], result["rejected"]) == ("APPROVED", 4, 2)
    assert {who for who, (_, approved) in users(users_database, "first").items() if approved} == {"Sacha", "Oak"}

    history, known = routing.history("user-onboarding:first"), begun(routing)
    told.again(told.event("first"))
    assert (routing.history("user-onboarding:first"), begun(routing)) == (history, known)
    assert len(users(users_database, "first")) == 4
    assert approve(routing, "first", ids).status == 409


def test_an_approval_may_come_before_s3_has_told_of_the_csv(
    routing: Stack, told: Told, users_database: Path, no_rule: None
) -> None:
    put(routing, "early bird")
    assert approve(routing, "early%20bird", EVERYBODY).body == {"execution_id": "user-onboarding:early=20bird"}
    result = routing.result("user-onboarding:early=20bird")
    assert (result["status"], len(result["approved"])) == ("APPROVED", 4)
    known = begun(routing)
    told.again(told.event("early bird"))
    assert begun(routing) == known
    assert all(approved for _, approved in users(users_database, "early=20bird").values())


def test_what_is_no_approval_is_refused(routing: Stack) -> None:
    assert approve(routing, "first", b"id\n1\n", signed=False).status == 403
    answer = approve(routing, "nobody", b"name\nOak\n")
    assert (answer.status, "the header, id" in answer.body["message"]) == (400, True)
    assert "user-onboarding:nobody" not in begun(routing)
