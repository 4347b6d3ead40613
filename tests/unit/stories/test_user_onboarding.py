"""The onboarding story piece by piece: CSVs, the activities on real databases, the orchestrator on a clock by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Generator
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import pytest
from moto import mock_aws
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from activities.user_onboarding import (
    DATABASE_URL,
    PATIENTLY,
    ApprovalReport,
    CsvError,
    ImportReport,
    Malformed,
    S3Object,
    User,
    all_users,
    approve_users,
    import_users,
    read_ids,
    read_users,
    remind_approver,
)
from durably import Handle, NonRetryableError, activity
from durably.testing import Environment
from orchestrators.user_onboarding import (
    APPROVED,
    Approval,
    Onboarding,
    OnboardingRequest,
    OnboardingStatus,
    onboard_users,
)
from tests.unit.runtime.harness import Process

EVENTS = Path(__file__).parents[3] / "events"
THREE = "name,dob,city\nAda,1990-01-02,Paris\nBob,1991-02-03,Rome\nCy,1992-03-04,Oslo\n"
ASKED = OnboardingRequest(users=THREE, remind_after=timedelta(days=1), expire_after=timedelta(days=7))
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'users.db'}"
    monkeypatch.setenv(DATABASE_URL, url)
    return url


@pytest.fixture(scope="module")
def postgres() -> Generator[str]:
    initdb, server = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or server is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root
    with TemporaryDirectory(prefix="durably-pg-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": folder}
        made = [initdb, "-D", data, "-U", "durably", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(made, check=True, timeout=60, **quiet)  # type: ignore[call-overload]
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", folder]
        with subprocess.Popen([server, "-D", data, *options], **quiet) as process:  # type: ignore[call-overload]
            try:
                url = f"postgresql+psycopg://durably@/postgres?host={folder}"
                wait_for(url)
                yield url
            finally:
                process.terminate()


def wait_for(url: str) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            query(url, "SELECT 1")
        except OperationalError:
            assert time.monotonic() < give_up_at
            time.sleep(0.1)
        else:
            return


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]
    finally:
        engine.dispose()


# --- CSV ----------------------------------------------------------------------------------------------------------


def test_the_csv_of_the_story_has_four_users_and_two_malformed_rows() -> None:
    users, malformed = read_users((EVENTS / "users.csv").read_text())
    assert [user.name for user in users] == ["Sacha", "Brock", "Oak", "James"]
    assert [row.line for row in malformed] == [3, 6]


def test_a_csv_may_have_a_byte_order_mark_blank_lines_spaces_and_quotes() -> None:
    ada = {"name": "Ada, Countess", "dob": "1990-01-02", "city": "Paris"}
    csv = '\ufeffName, DOB ,city\r\n\r\n"Ada, Countess", 1990-01-02 ,Paris\r\n'
    assert read_users(csv) == ([User.model_validate(ada)], [])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("Ada,1990-01-02", "2 cells instead of 3, name,dob,city"),
        ("Ada,1990-01-02,Paris,France", "4 cells instead of 3, name,dob,city"),
        ("Ada,1990-02-30,Paris", "dob: is not a date, YYYY-MM-DD"),
        ("Ada,02/01/1990,Paris", "dob: is not a date, YYYY-MM-DD"),
        ("Ada,,Paris", "dob: is not a date, YYYY-MM-DD"),
        ("Ada,2990-01-02,Paris", "dob: Date should be in the past"),
        (
            " ,1990-01-02,",
            "name: String should have at least 1 character; city: String should have at least 1 character",
        ),
        (f"{'A' * 201},1990-01-02,Paris", "name: String should have at most 200 characters"),
        ("A\x00da,1990-01-02,Paris", "name: holds characters that cannot be printed"),
    ],
)
def test_a_malformed_row_is_reported_by_its_line_and_the_others_are_read(row: str, problem: str) -> None:
    csv = f'name,dob,city\n"Bob\nby",1991-02-03,Rome\nCy,1992-03-04,Oslo\n{row}\nDi,1993-04-05,Bonn\n'
    users, malformed = read_users(csv)
    assert [user.name for user in users] == ["Cy", "Di"]
    assert malformed == [
        Malformed(line=2, problem="name: holds characters that cannot be printed"),
        Malformed(line=5, problem=problem),
    ]


def test_a_date_without_hyphens_is_a_date_and_no_number_of_seconds() -> None:
    ((user,), _) = read_users("name,dob,city\nAda,19900102,Paris\n")
    assert user.dob == date(1990, 1, 2)


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        ("", "The CSV is empty; its header must be name,dob,city"),
        ("\n\n", "The CSV is empty"),
        ("Ada,1990-01-02,Paris\n", "Line 1 is 'Ada,1990-01-02,Paris'; it must be the header, name,dob,city"),
        ("name,city,dob\n", "it must be the header"),
        ('name,dob,city\nAda,1990-01-02,"Paris\n', "cannot be read from line 2 on"),
    ],
)
def test_a_csv_that_is_wrong_as_a_whole_says_how_it_should_be(csv: str, says: str) -> None:
    with pytest.raises(CsvError, match=says):
        read_users(csv)


def test_an_approval_holds_each_id_once() -> None:
    assert read_ids("id\n3\n 1 \n3\n") == [3, 1]
    assert read_ids((EVENTS / "approved_users.csv").read_text()) == [1, 3, 4]


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        ("", "The CSV is empty; its header must be id"),
        ("1\n2\n", "Line 1 is '1'; it must be the header, id"),
        ("id\n", "names nobody"),
        ("id\n1\nAda\n", "Line 3 is not the id of a user"),
        ("id\n1\n-2\n", "Line 3 is not the id of a user"),
        ("id\n1,2\n", "Line 2 is not the id of a user"),
    ],
)
def test_an_approval_that_is_malformed_approves_nobody(csv: str, says: str) -> None:
    with pytest.raises(CsvError, match=says):
        read_ids(csv)


# --- the activities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["database", pytest.param("postgres", marks=pytest.mark.slow)])
def test_users_are_imported_and_approved_on_sqlite_and_on_postgresql(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url: str = request.getfixturevalue(kind)
    monkeypatch.setenv(DATABASE_URL, url)
    first, second = (import_users.fn("a", THREE + "Di\n") for _ in range(2))
    assert (first.imported, first.rejected, first.malformed[0].line) == (3, 1, 5)
    assert second == first
    assert import_users.fn("b", THREE).imported == 3
    ids = [id_ for id_, *_ in all_users()]
    assert len(ids) == 6
    approved, unknown = [ids[0], ids[2]], sorted([ids[3], 10**10])
    for _ in range(2):
        assert approve_users.fn("a", approved + unknown) == ApprovalReport(approved=approved, unknown=unknown)
    assert [id_ for id_, *_, marked in all_users() if marked] == approved
    assert all_users()[0] == (ids[0], "Ada", date(1990, 1, 2), "Paris", True)


def test_an_import_that_two_run_at_once_happens_once(database: str) -> None:
    import_users.fn("first", THREE)  # makes the tables
    together = threading.Barrier(4)
    reports: list[int] = []

    def run() -> None:
        together.wait(10)
        reports.append(import_users.fn("a", THREE).imported)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert reports == [3, 3, 3, 3]
    assert query(database, "SELECT count(*) FROM users") == [(6,)]


def test_an_import_that_breaks_in_the_middle_leaves_nothing(database: str) -> None:
    import_users.fn("before", THREE)
    engine = create_engine(database)
    with engine.begin() as connection:
        refuse = (
            "CREATE TRIGGER full BEFORE INSERT ON users WHEN NEW.name = 'Cy' BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        connection.execute(text(refuse))
    engine.dispose()
    with pytest.raises(IntegrityError, match="full") as caught:
        import_users.fn("a", THREE)
    assert "Ada" not in str(caught.value)
    assert query(database, "SELECT batch FROM imports") == [("before",)]
    assert query(database, "SELECT count(*) FROM users") == [(3,)]


def test_a_long_report_of_malformed_rows_is_cut_and_counted(database: str) -> None:
    report = import_users.fn("a", "name,dob,city\n" + "Ada\n" * 250)
    assert (report.imported, report.rejected, len(report.malformed)) == (0, 250, 100)


def test_a_csv_is_read_from_s3(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="here")
        s3.put_bucket_versioning(Bucket="here", VersioningConfiguration={"Status": "Enabled"})
        old = s3.put_object(Bucket="here", Key="users.csv", Body=THREE.encode())["VersionId"]
        s3.put_object(Bucket="here", Key="users.csv", Body=b"name,dob,city\n")
        s3.put_object(Bucket="here", Key="latin.csv", Body="name,dob,city\nZoé".encode("latin-1"))
        assert import_users.fn("a", S3Object(bucket="here", key="users.csv", version=old)).imported == 3
        assert import_users.fn("b", S3Object(bucket="here", key="users.csv")).imported == 0
        for key, says in (("none.csv", "s3://here/none.csv does not exist"), ("latin.csv", "is not UTF-8")):
            with pytest.raises(NonRetryableError, match=says):
                import_users.fn("c", S3Object(bucket="here", key=key))
        with pytest.raises(NonRetryableError, match=r"s3://there/users\.csv does not exist"):
            import_users.fn("c", S3Object(bucket="there", key="users.csv"))


def test_without_a_database_the_activity_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_URL, raising=False)
    with pytest.raises(NonRetryableError, match=DATABASE_URL):
        import_users.fn("a", THREE)


def test_activities_are_tried_five_times_each_pause_twice_as_long_up_to_a_minute() -> None:
    assert [each.settings.retry for each in (import_users, approve_users, remind_approver)] == [PATIENTLY] * 3
    assert PATIENTLY.max_attempts == 5
    assert [PATIENTLY.delay_ms(attempt, 0.0) for attempt in (1, 2, 3, 7)] == [1_000, 2_000, 4_000, 60_000]


# --- the orchestrator ---------------------------------------------------------------------------------------------


REMINDED: list[int] = []


@activity(name="remind_approver")
def remind(users: int) -> None:
    REMINDED.append(users)


@activity(name="remind_approver", retry=PATIENTLY)
def remind_nobody(users: int) -> None:
    raise ConnectionError("nobody is there")


@pytest.fixture
def process(database: str) -> Process:
    REMINDED.clear()
    return Process([onboard_users, import_users, approve_users, remind])


def start(process: Process, request: OnboardingRequest = ASKED) -> Handle[Onboarding]:
    handle = process.client.start("e", onboard_users, request)
    process.work()
    return handle


def marked() -> list[int]:
    return [id_ for id_, *_, approved in all_users() if approved]


def test_exactly_those_who_are_approved_are_marked(process: Process) -> None:
    handle = start(process)
    assert handle.describe().custom_status == '"waiting for approval"'
    handle.signal(APPROVED, Approval(ids=[3, 1]))
    process.work()
    assert handle.result(0) == Onboarding(
        status=OnboardingStatus.APPROVED, imported=3, rejected=0, malformed=[], approved=[1, 3]
    )
    assert marked() == [1, 3]
    assert REMINDED == []


def test_the_onboarding_survives_a_crash_at_every_event(durably_env: Environment) -> None:
    durably_env.mock(import_users).returns(ImportReport(imported=3, rejected=0, malformed=[]))
    durably_env.mock(remind_approver)
    durably_env.mock(approve_users).returns(ApprovalReport(approved=[1], unknown=[]))
    assert durably_env.assert_replay_safe(onboard_users, ASKED).status is OnboardingStatus.EXPIRED


def test_ids_of_nobody_and_of_other_imports_are_reported_and_not_marked(process: Process) -> None:
    import_users.fn("of others", THREE)
    handle = start(process)
    handle.signal(APPROVED, Approval(ids=[1, 4, 99]))
    process.work()
    assert (handle.result(0).approved, handle.result(0).unknown) == ([4], [1, 99])
    assert marked() == [4]


def test_an_approval_that_comes_before_the_import_has_ended_is_kept(process: Process) -> None:
    handle = process.client.signal_with_start("e", APPROVED, Approval(ids=[2]), onboard_users, ASKED)
    process.work()
    assert handle.result(0).approved == [2]
    assert process.kinds()[:3] == ["ExecutionStarted", "ActivityScheduled", "SignalReceived"]


def test_two_approvals_that_come_together_both_count(process: Process) -> None:
    handle = process.client.start("e", onboard_users, ASKED)
    for ids in ([1, 98], [1, 2, 99]):
        handle.signal(APPROVED, Approval(ids=ids))
    process.work()
    assert (handle.result(0).approved, handle.result(0).unknown) == ([1, 2], [98, 99])
    assert marked() == [1, 2]


def test_the_approver_is_reminded_once_and_still_has_until_the_end(process: Process) -> None:
    handle = start(process)
    process.clock.advance(DAY_MS)
    process.work()
    assert REMINDED == [3]
    assert handle.describe().custom_status == '"waiting for approval, reminded"'
    process.clock.advance(6 * DAY_MS - 1)
    process.work()
    handle.signal(APPROVED, Approval(ids=[1]))
    process.work()
    result = handle.result(0)
    assert (result.status, result.reminded, result.approved, REMINDED) == ("APPROVED", True, [1], [3])


def test_without_an_approval_the_onboarding_expires(process: Process) -> None:
    handle = start(process)
    process.clock.advance(DAY_MS)
    process.work()
    process.clock.advance(6 * DAY_MS)
    process.work()
    assert handle.result(0) == Onboarding(
        status=OnboardingStatus.EXPIRED, imported=3, rejected=0, malformed=[], reminded=True
    )
    assert marked() == []


def test_an_approver_who_cannot_be_reminded_may_still_approve(database: str) -> None:
    process = Process([onboard_users, import_users, approve_users, remind_nobody])
    handle = start(process)
    process.clock.advance(DAY_MS)
    for pause_s in (0, 1, 2, 4, 8):
        process.clock.advance(pause_s * 1_000)
        process.work()
    assert handle.describe().custom_status == '"waiting for approval, reminded"'
    handle.signal(APPROVED, Approval(ids=[1]))
    process.work()
    assert (handle.result(0).reminded, handle.result(0).approved) == (False, [1])


@pytest.mark.parametrize("rows", ["", "Ada,1990\n"])
def test_where_nobody_was_imported_nobody_waits(process: Process, rows: str) -> None:
    handle = start(process, ASKED.model_copy(update={"users": f"name,dob,city\n{rows}"}))
    assert (handle.result(0).status, handle.result(0).rejected) == ("NOBODY_IMPORTED", rows.count("\n"))


@pytest.mark.parametrize(("users", "says"), [("", "The CSV is empty"), ("id\n1\n", "it must be the header")])
def test_a_csv_that_is_wrong_as_a_whole_fails_the_onboarding_at_once(process: Process, users: str, says: str) -> None:
    start(process, ASKED.model_copy(update={"users": users}))
    failure = process.record().failure
    assert failure is not None
    assert says in failure.message


def test_what_was_imported_is_not_imported_again_when_the_onboarding_is_retried(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = start(process)
    handle.terminate()
    process.work()
    process.client.reset("e", 1)  # before the import
    process.work()
    assert len(all_users()) == 3
    handle.signal(APPROVED, Approval(ids=[2]))
    process.work()
    assert handle.result(0).approved == [2]


@pytest.mark.parametrize(
    "wrong", [{"users": {"bucket": ""}}, {"users": "", "remind_after": "P2D", "expire_after": "P1D"}, {"user": ""}]
)
def test_a_request_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        OnboardingRequest.model_validate(wrong)


def test_the_event_says_where_in_s3_the_csv_lies() -> None:
    request = OnboardingRequest.model_validate_json((EVENTS / "user_onboarding.json").read_bytes())
    assert request.users == S3Object(bucket="onboarding", key="incoming/users.csv")
    assert (request.remind_after, request.expire_after) == (timedelta(days=1), timedelta(days=7))
