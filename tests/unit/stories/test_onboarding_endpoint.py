"""Where users are approved: real HTTP, on a runtime whose clock the test moves."""

from __future__ import annotations

import threading
from collections.abc import Generator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest

from activities.user_onboarding import APPROVER_URL, DATABASE_URL, approve_users, import_users, remind_approver
from demo.onboarding_endpoint import EXECUTION, LONGEST_BODY, Endpoint
from demo.processes import without_proxy
from orchestrators.user_onboarding import OnboardingRequest, OnboardingStatus, onboard_users
from tests.unit.runtime.harness import Process

THREE = "name,dob,city\nAda,1990-01-02,Paris\nBob,1991-02-03,Rome\nCy,1992-03-04,Oslo\n"
ASKED = OnboardingRequest(users=THREE, remind_after=timedelta(days=1), expire_after=timedelta(days=7))
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    monkeypatch.setenv(DATABASE_URL, f"sqlite:///{tmp_path / 'users.db'}")
    return Process([onboard_users, import_users, approve_users, remind_approver])


@pytest.fixture
def endpoint(process: Process, monkeypatch: pytest.MonkeyPatch) -> Generator[Endpoint]:
    for name, value in without_proxy().items():
        monkeypatch.setenv(name, value)
    with Endpoint(process.client, ASKED) as server:
        monkeypatch.setenv(APPROVER_URL, server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def ask(endpoint: Endpoint, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", endpoint.server_port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def approve(endpoint: Endpoint, body: str) -> tuple[int, str]:
    return ask(endpoint, "POST", "/approvals", body.encode())


def start(process: Process) -> None:
    process.client.start(EXECUTION, onboard_users.options(id_reuse="use_existing"), ASKED)
    process.work()


def test_users_are_shown_and_those_approved_are_marked(process: Process, endpoint: Endpoint) -> None:
    start(process)
    assert approve(endpoint, "id\n1\n3\n") == (202, "2 ids are stored")
    process.work()
    status, users = ask(endpoint, "GET", "/users")
    assert status == 200
    assert users.splitlines() == [
        "id,name,dob,city,approved",
        "1,Ada,1990-01-02,Paris,True",
        "2,Bob,1991-02-03,Rome,False",
        "3,Cy,1992-03-04,Oslo,True",
    ]


def test_an_approval_before_everything_else_starts_the_onboarding_and_the_csv_finds_it(
    process: Process, endpoint: Endpoint
) -> None:
    assert approve(endpoint, "id\n2\n")[0] == 202
    start(process)
    result = process.client.handle(EXECUTION, onboard_users).result(0)
    assert (result.status, result.approved) == (OnboardingStatus.APPROVED, [2])


def test_the_same_approval_sent_again_is_one(process: Process, endpoint: Endpoint) -> None:
    assert [approve(endpoint, "id\n2\n")[0] for _ in range(2)] == [202, 202]
    start(process)
    assert process.kinds(EXECUTION).count("SignalReceived") == 1
    assert approve(endpoint, "id\n2\n")[0] == 202  # what started the onboarding; it is stored, and was heard


def test_another_approval_after_the_end_is_told_how_it_ended(process: Process, endpoint: Endpoint) -> None:
    start(process)
    approve(endpoint, "id\n1\n")
    process.work()
    assert approve(endpoint, "id\n2\n") == (409, "the onboarding has ended: APPROVED")
    assert process.client.handle(EXECUTION, onboard_users).result(0).approved == [1]


def test_an_approval_after_the_expiry_is_told_so_and_marks_nobody(process: Process, endpoint: Endpoint) -> None:
    start(process)
    for days in (1, 6):
        process.clock.advance(days * DAY_MS)
        process.work()
    assert approve(endpoint, "id\n1\n") == (409, "the onboarding has ended: EXPIRED")
    assert "True" not in ask(endpoint, "GET", "/users")[1]


def test_an_approval_of_an_onboarding_that_failed_is_told_why(process: Process, endpoint: Endpoint) -> None:
    process.client.start(EXECUTION, onboard_users, ASKED.model_copy(update={"users": ""}))
    process.work()
    status, says = approve(endpoint, "id\n1\n")
    assert status == 409
    assert "The CSV is empty" in says


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "The CSV is empty"),
        (b"name\nAda\n", "it must be the header, id"),
        (b"id\nAda\n", "Line 2 is not the id of a user"),
        (b"id\n\xff\n", "invalid start byte"),
    ],
)
def test_a_malformed_approval_is_refused_and_starts_nothing(
    process: Process, endpoint: Endpoint, body: bytes, says: str
) -> None:
    status, said = ask(endpoint, "POST", "/approvals", body)
    assert status == 400
    assert says in said
    assert list(process.client.list()) == []


def test_the_approver_hears_each_reminder_once(
    process: Process, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    start(process)
    process.clock.advance(DAY_MS)
    process.take_due()
    (task,) = process.tasks()
    process.run(task)
    process.run(task)
    assert capsys.readouterr().err.count("is reminded: 3 users wait in user-onboarding") == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("POST", "/users", b"id\n1\n", 404),
        ("POST", "/reminders", b"{}", 400),
        ("POST", "/approvals", b"1" * (LONGEST_BODY + 1), 413),
    ],
)
def test_what_makes_no_sense_is_refused(
    endpoint: Endpoint, method: str, path: str, body: bytes | None, status: int
) -> None:
    assert ask(endpoint, method, path, body)[0] == status
