"""What is wrong is refused with an error that says why, nothing of it is stored, and what runs goes on unharmed."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from durably import (
    Activity,
    ActivityError,
    Callback,
    Context,
    ExecutionClosedError,
    ExecutionExistsError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    Handle,
    Orchestrator,
    PayloadError,
    ResultTimeoutError,
    RetryPolicy,
    activity,
    callback_activity,
    orchestrator,
)
from durably.adapters.tokens import HmacTokenSigner
from durably.core.errors import ConfigurationError, InvalidIdError, StorageError, UnknownOrchestratorError
from durably.embedded import Embedded, service

SRC = Path(__file__).parents[2] / "src"
ONCE = RetryPolicy(max_attempts=1)
MEGABYTE = 1024 * 1024
SOON_S = 10.0

urls: dict[str, str] = {}


@dataclass
class Parcel:
    weight: int
    label: str = ""


@activity(retry=ONCE)
def double(number: int) -> int:
    return 2 * number


@activity(retry=ONCE)
def unserialisable() -> Any:
    return threading.Lock()


@activity(retry=ONCE)
def wrong_type() -> int:
    return "seven"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@activity(retry=ONCE)
def huge() -> str:
    return "x" * (10 * MEGABYTE)


@callback_activity
def weigh(callback: Callback[Parcel], key: str) -> None:
    urls[key] = callback.url


@callback_activity(timeout=timedelta(milliseconds=100))
def weigh_soon(callback: Callback[Parcel], key: str) -> None:
    urls[key] = callback.url


@orchestrator
async def doubled(ctx: Context, number: int) -> int:
    return await double(number)


@orchestrator
async def weighed(ctx: Context, key: str) -> int:
    return (await weigh(key)).weight


@orchestrator
async def weighed_late(ctx: Context, key: str) -> str:
    try:
        await weigh_soon(key)
    except ActivityError as error:
        await weigh(f"{key} again")
        return error.failure.message
    return "in time"


@orchestrator
async def told(ctx: Context, which: str) -> str:
    try:
        await {"unserialisable": unserialisable, "wrong type": wrong_type, "huge": huge}[which]()
    except ActivityError as error:
        return str(error.failure)
    return "nothing was wrong"


@orchestrator
async def returns_nonsense(ctx: Context) -> int:
    return "seven"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@orchestrator
async def unregistered(ctx: Context) -> None:
    pass


ORCHESTRATORS: list[Orchestrator[..., Any]] = [doubled, weighed, weighed_late, told, returns_nonsense]
ACTIVITIES: list[Activity[..., Any]] = [double, unserialisable, wrong_type, huge, weigh, weigh_soon]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "durably.db"


def embedded(path: Path, **options: Any) -> Embedded:
    return Embedded(path, orchestrators=ORCHESTRATORS, activities=ACTIVITIES, synchronous="OFF", **options)


@pytest.fixture
def runtime(path: Path) -> Iterator[Embedded]:
    urls.clear()
    with embedded(path) as running:
        yield running


@pytest.fixture
def waiting(runtime: Embedded) -> Handle[int]:
    """An execution that awaits a callback at `urls["parcel"]`, and is to come out of everything unharmed."""
    handle = runtime.client.start("parcel-1", weighed, "parcel")
    url_of("parcel")
    return handle


def url_of(key: str) -> str:
    eventually(lambda: key in urls)
    return urls[key]


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def everything(runtime: Embedded) -> list[Any]:
    """All that is stored, as its reader sees it."""
    client = runtime.client
    return [(record, client.history(record.execution_id)) for record in client.list()]


def post(
    url: str, body: bytes | str = b"", *, headers: dict[str, str] | None = None, length: int | None = -1
) -> tuple[int, str]:
    """Status and message. `length` is what Content-Length says, -1 for the truth, None for none."""
    parts = urlsplit(url)
    raw = body.encode() if isinstance(body, str) else body
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=SOON_S)
    try:
        connection.putrequest("POST", parts.path)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            connection.putheader(name, value)
        if length is not None:
            connection.putheader("Content-Length", str(len(raw) if length == -1 else length))
        connection.endheaders()
        connection.send(raw)
        if length is None:
            assert connection.sock is not None
            connection.sock.shutdown(1)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["message"]
    finally:
        connection.close()


# --- starting ------------------------------------------------------------------------------------------------


def test_an_orchestrator_that_nobody_registered_is_refused(runtime: Embedded) -> None:
    with pytest.raises(UnknownOrchestratorError, match=r"'unregistered'.*knows: doubled,"):
        runtime.client.start("a", unregistered)
    with pytest.raises(UnknownOrchestratorError, match="'nobody'"):
        runtime.client.start_by_name("a", "nobody", "{}")
    assert everything(runtime) == []


@pytest.mark.parametrize("wrong", ["seven", 7.5, None, [7]])
def test_an_argument_of_the_wrong_type_is_refused_with_its_name(runtime: Embedded, wrong: Any) -> None:
    with pytest.raises(PayloadError, match=r"doubled\(\), at number: expected a valid integer"):
        runtime.client.start("a", doubled, wrong)
    assert everything(runtime) == []


def test_arguments_that_do_not_fit_the_signature_are_refused_as_python_does(runtime: Embedded) -> None:
    start: Any = runtime.client.start
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'number'"):
        start("a", doubled)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wight'"):
        start("a", doubled, 1, wight=2)
    assert everything(runtime) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"number": "x"}', '{"nummer": 1}', '{"number": NaN}'])
def test_input_as_text_that_does_not_fit_is_refused(runtime: Embedded, text: str) -> None:
    with pytest.raises(PayloadError, match=r"arguments of doubled\(\)"):
        runtime.client.start_by_name("a", "doubled", text)
    assert everything(runtime) == []


@pytest.mark.parametrize("bad", ["", "with space", "tab\t", "null\0", "naïve", "#record", "a" * 257, 7])
def test_an_id_with_illegal_characters_is_refused(runtime: Embedded, bad: Any) -> None:
    for use in (
        lambda: runtime.client.start(bad, doubled, 1),
        lambda: runtime.client.describe(bad),
        lambda: runtime.client.history(bad),
        lambda: runtime.client.terminate(bad),
        lambda: runtime.client.handle(bad).result(0),
    ):
        with pytest.raises(InvalidIdError, match="A-Z a-z 0-9"):
            use()
    assert everything(runtime) == []


def test_an_id_that_is_taken_is_refused_whether_its_execution_runs_or_has_ended(
    runtime: Embedded, waiting: Handle[int]
) -> None:
    before = everything(runtime)
    with pytest.raises(ExecutionExistsError, match=r"'parcel-1' belongs to .* open execution of weighed"):
        runtime.client.start("parcel-1", doubled, 1)
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200
    assert waiting.result(SOON_S) == 3
    before = everything(runtime)
    with pytest.raises(ExecutionExistsError, match="closed"):
        runtime.client.start("parcel-1", doubled, 1)
    assert everything(runtime) == before


def test_an_input_of_10_mb_is_refused(runtime: Embedded) -> None:
    with pytest.raises(PayloadError, match=r"at most .* bytes"):
        runtime.client.start("a", weighed, "x" * (10 * MEGABYTE))
    assert everything(runtime) == []


def test_an_input_of_10_mb_as_text_is_refused(runtime: Embedded) -> None:
    with pytest.raises(PayloadError, match=r"at most .* bytes"):
        runtime.client.start_by_name("a", "weighed", json.dumps({"key": "x" * (10 * MEGABYTE)}))
    assert everything(runtime) == []


# --- asking for what is not there ------------------------------------------------------------------------------


def test_an_execution_that_does_not_exist_is_said_not_to(runtime: Embedded) -> None:
    client = runtime.client
    uses: list[Callable[[str], object]] = [client.describe, client.history, client.terminate]
    uses.append(lambda id_: client.handle(id_).result(0))
    for use in uses:
        with pytest.raises(ExecutionNotFoundError, match="'nowhere'"):
            use("nowhere")


def test_waiting_for_a_result_ends_in_time_and_harms_nothing(runtime: Embedded, waiting: Handle[int]) -> None:
    before = everything(runtime)
    with pytest.raises(ResultTimeoutError, match=r"parcel-1 did not close within 0\.05 s"):
        waiting.result(0.05)
    assert everything(runtime) == before
    post(urls["parcel"], '{"weight": 4}')
    assert waiting.result(SOON_S) == 4


def test_an_execution_is_terminated_once(runtime: Embedded, waiting: Handle[int]) -> None:
    waiting.terminate("enough")
    with pytest.raises(ExecutionFailedError, match="enough"):
        waiting.result(SOON_S)
    before = everything(runtime)
    with pytest.raises(ExecutionClosedError, match="is terminated; it accepts nothing more"):
        waiting.terminate("more than enough")
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 410
    assert everything(runtime) == before


def test_two_terminations_at_once_are_one(runtime: Embedded, waiting: Handle[int]) -> None:
    waiting.terminate("first")
    with suppress(ExecutionClosedError):  # it may have ended before
        waiting.terminate("second")
    with pytest.raises(ExecutionFailedError, match="first"):
        waiting.result(SOON_S)
    ends = [e for e in runtime.client.history("parcel-1") if e.event.kind == "ExecutionTerminated"]
    assert len(ends) == 1


# --- what activities and orchestrators return --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ("unserialisable", "expected a value that can hold JSON|has no JSON form"),
        ("wrong type", "expected a valid integer, got 'seven'"),
        ("huge", "expected at most .* bytes of JSON, got 10,485,762"),
    ],
)
def test_a_result_that_cannot_be_stored_fails_the_activity_and_says_why(
    runtime: Embedded, which: str, says: str
) -> None:
    handle = runtime.client.start("a", told, which)
    message = handle.result(SOON_S)
    assert message.startswith("durably.core.errors.PayloadError")
    assert re.search(says, message), message
    kinds = [entry.event.kind for entry in runtime.client.history("a")]
    assert kinds == ["ExecutionStarted", "ActivityScheduled", "ActivityFailed", "ExecutionCompleted"]


def test_an_orchestrator_that_returns_what_it_did_not_promise_fails(runtime: Embedded) -> None:
    handle = runtime.client.start("a", returns_nonsense)
    with pytest.raises(ExecutionFailedError, match="expected a valid integer"):
        handle.result(SOON_S)
    assert handle.describe().status == "failed"


# --- callbacks -------------------------------------------------------------------------------------------------


def test_a_token_that_is_malformed_or_forged_is_refused(runtime: Embedded, waiting: Handle[int]) -> None:
    before = everything(runtime)
    base, _, token = urls["parcel"].rpartition("/")
    last = "A" if token[-1] != "A" else "B"
    middle = len(token) // 2
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    claims = service.token_signer(runtime._backend).verify(token)
    foreign = HmacTokenSigner("elsewhere", {"1": runtime._backend.secret("token-key-1")}, "1").sign(claims)
    forged = HmacTokenSigner(runtime._backend.secret("deployment").hex()[:16], {"1": b"0" * 32}, "1").sign(claims)
    wrong = ["x", token[:-1], token[:-1] + last, token + "A", changed, token * 20, "%00", "..", foreign, forged]
    for bad in wrong:
        status, message = post(f"{base}/{bad}", '{"weight": 3}')
        assert (status, message) == (401, "This is not a task token of this deployment."), bad
        assert post(f"{base}/{bad}/failure", "{}")[0] == 401
    assert post(f"{base}/", '{"weight": 3}')[0] == 401
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200
    assert waiting.result(SOON_S) == 3


def test_a_callback_after_its_deadline_is_told_so_and_changes_nothing(runtime: Embedded) -> None:
    handle = runtime.client.start("late-1", weighed_late, "late")
    url_of("late again")
    before = everything(runtime)
    status, message = post(urls["late"], '{"weight": 3}')
    assert status == 410
    assert "deadline has passed" in message
    assert everything(runtime) == before
    assert post(urls["late again"], '{"weight": 1}')[0] == 200
    assert "before its deadline" in handle.result(SOON_S)


def test_a_repeated_callback_is_accepted_and_another_one_is_not(runtime: Embedded, waiting: Handle[int]) -> None:
    assert post(urls["parcel"], '{"weight": 3}') == (200, "The result is recorded.")
    assert waiting.result(SOON_S) == 3
    before = everything(runtime)
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200
    assert post(urls["parcel"], ' {"weight":3} ')[0] == 200
    status, message = post(urls["parcel"], '{"weight": 4}')
    assert status == 409
    assert "it stands" in message
    assert post(f"{urls['parcel']}/failure", '{"message": "broken"}')[0] == 409
    assert everything(runtime) == before


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"weight": ', "not JSON"),
        (b"weight=3", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"weight": NaN}', "NaN is not JSON"),
        (b'{"weight": 1, "label": "\\ud800"}', "not JSON that can be stored"),
        (b"[" * 100_000, "not JSON"),
        (b"", "got nothing|expected"),
        (b"3", "expected"),
        (b'{"label": "x"}', "at weight: expected a value"),
        (b'{"weight": "heavy"}', "at weight: expected a valid integer"),
        (b'{"weight": 3, "label": 5}', "at label: expected a valid string"),
    ],
)
def test_a_callback_whose_body_does_not_fit_is_refused_naming_the_field(
    runtime: Embedded, waiting: Handle[int], body: bytes, says: str
) -> None:
    before = everything(runtime)
    status, message = post(urls["parcel"], body)
    assert status == 400, message
    assert re.search(says, message), message
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200
    assert waiting.result(SOON_S) == 3


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ('{"type": 7}', "type must be a str, got int"),
        ('{"message": null}', "message must be a str"),
        ('{"non_retryable": "no"}', "non_retryable must be a bool"),
        ('{"reason": "x"}', "Unknown field 'reason'"),
    ],
)
def test_a_failure_whose_body_does_not_fit_is_refused_naming_the_field(
    runtime: Embedded, waiting: Handle[int], body: str, says: str
) -> None:
    before = everything(runtime)
    status, message = post(f"{urls['parcel']}/failure", body)
    assert status == 400
    assert says in message
    assert everything(runtime) == before
    assert post(f"{urls['parcel']}/failure", '{"type": "Lost", "message": "off the lorry"}')[0] == 200
    with pytest.raises(ExecutionFailedError, match="Lost: off the lorry"):
        waiting.result(SOON_S)


def test_a_request_that_is_no_callback_is_refused_with_the_right_status(
    runtime: Embedded, waiting: Handle[int]
) -> None:
    before = everything(runtime)
    url, good = urls["parcel"], '{"weight": 3}'
    limit = runtime._runtime.limits.payload_bytes
    assert post(url, good, headers={"Content-Type": "text/plain"})[0] == 415
    assert post(url, good, length=None)[0] == 411
    assert post(url, good, headers={"Content-Length": "many"}, length=None)[0] == 411
    assert post(url, b"x" * (limit + 1))[0] == 413
    assert post(f"{url}/cancel", good) == (404, "A callback has no action 'cancel'; there are none and /failure.")
    assert post(f"{runtime.url}/elsewhere", good)[0] == 404
    assert everything(runtime) == before
    assert post(url, good)[0] == 200
    assert waiting.result(SOON_S) == 3


def test_a_callback_of_10_mb_is_refused_and_its_sender_hears_why(runtime: Embedded, waiting: Handle[int]) -> None:
    before = everything(runtime)
    body = json.dumps({"weight": 3, "label": "x" * (10 * MEGABYTE)})
    status, message = post(urls["parcel"], body)
    assert status == 413
    assert f"{len(body)} bytes, more than" in message
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200
    assert waiting.result(SOON_S) == 3


def test_half_a_callback_is_none(runtime: Embedded, waiting: Handle[int]) -> None:
    before = everything(runtime)
    parts = urlsplit(urls["parcel"])
    with socket.create_connection((parts.hostname, parts.port), timeout=SOON_S) as connection:
        head = f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
        connection.sendall(head.encode() + b'{"weight": 3}')
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 400 " in answer.splitlines()[0]
    assert b"ended after 13 of 18 bytes" in answer
    assert everything(runtime) == before
    assert post(urls["parcel"], '{"weight": 3}')[0] == 200


# --- the file --------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"id,name\n1,packet\n" * 500)
    with pytest.raises(StorageError, match=r"durably\.db.*not a SQLite database"):
        embedded(path)
    assert path.read_bytes() == b"id,name\n1,packet\n" * 500


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        embedded(path)
    assert path.read_bytes() == before


def read_history(path: Path, execution_id: str) -> None:
    runtime = embedded(path)
    try:
        runtime.client.history(execution_id)
    finally:
        runtime.stop()


def test_a_damaged_file_is_an_error_that_says_so_and_not_a_wrong_history(path: Path) -> None:
    urls.clear()
    with embedded(path) as runtime:
        runtime.client.start("parcel-1", weighed, "parcel" + "x" * 20_000)
        eventually(lambda: len(urls) == 1)
    content = bytearray(path.read_bytes())
    for page in range(10, len(content) // 4096):
        content[page * 4096 : (page + 1) * 4096] = b"\xa7" * 4096
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"durably\.db.*(damaged|restore a backup)"):
        read_history(path, "parcel-1")


READ_ONLY = """
import os, sys
from durably.embedded import Embedded
from durably.core.errors import StorageError
if os.getuid() == 0:  # the superuser may write anything
    os.setgid(65534)
    os.setuid(65534)
try:
    Embedded(sys.argv[1])
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits")
def test_a_read_only_file_is_refused_and_left_alone() -> None:
    directory = Path(tempfile.mkdtemp())  # not under tmp_path, whose parents another user may not enter
    path = directory / "durably.db"
    try:
        with embedded(path) as runtime:
            assert runtime.client.start("a", doubled, 2).result(SOON_S) == 4
        before = path.read_bytes()
        path.chmod(0o444)
        directory.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(path)],
            env=os.environ | {"PYTHONPATH": str(SRC), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        assert "durably.db cannot be used" in done.stdout
        assert "read-only" in done.stdout
        assert path.read_bytes() == before
    finally:
        directory.chmod(0o755)
        shutil.rmtree(directory)


def test_a_full_disk_refuses_starts_and_callbacks_and_works_again_once_there_is_room(
    runtime: Embedded, waiting: Handle[int]
) -> None:
    writer = runtime._backend._committer
    with writer.connection_lock:
        (pages,) = writer.connection.execute("PRAGMA page_count").fetchone()
        writer.connection.execute(f"PRAGMA max_page_count = {pages}")
    before = everything(runtime)
    with pytest.raises(StorageError, match=r"full: free some space"):
        runtime.client.start("b", weighed, "x" * 100_000)
    status, message = post(urls["parcel"], json.dumps({"weight": 3, "label": "x" * 100_000}))
    assert status == 503
    assert "could not be stored" in message
    assert everything(runtime) == before
    with writer.connection_lock:
        writer.connection.execute("PRAGMA max_page_count = 1000000")
    assert post(urls["parcel"], json.dumps({"weight": 3, "label": "x" * 100_000}))[0] == 200
    assert waiting.result(SOON_S) == 3
    assert runtime.client.start("b", doubled, 4).result(SOON_S) == 8


def test_a_disk_that_fills_up_while_an_execution_runs_costs_it_only_time(runtime: Embedded) -> None:
    handle = runtime.client.start("parcel-1", weighed, "parcel")
    url_of("parcel")
    writer = runtime._backend._committer
    assert post(urls["parcel"], json.dumps({"weight": 3}))[0] == 200
    handle.result(SOON_S)
    with writer.connection_lock:
        (pages,) = writer.connection.execute("PRAGMA page_count").fetchone()
        writer.connection.execute(f"PRAGMA max_page_count = {pages + 12}")
    started: list[Handle[int]] = []
    with suppress(StorageError):
        for number in range(1000):
            started.append(runtime.client.start(f"number-{number}", doubled, number))  # noqa: PERF401  # it ends early
    assert len(started) < 1000
    with writer.connection_lock:
        writer.connection.execute("PRAGMA max_page_count = 1000000")
    assert [one.result(SOON_S) for one in started] == [2 * number for number in range(len(started))]
