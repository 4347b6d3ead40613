"""What is posted and is no callback gets a true answer, and changes nothing."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from durably import ExecutionFailedError, Handle
from durably.adapters.tokens import HmacTokenSigner
from durably.embedded import Embedded, service
from tests.e2e.bad_input.parcels import (
    MEGABYTE,
    SOON_S,
    embedded,
    everything,
    post,
    url_of,
    urls,
    weighed,
    weighed_late,
)


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


def test_a_token_of_another_file_is_no_token_here(runtime: Embedded, waiting: Handle[int], tmp_path: Path) -> None:
    with embedded(tmp_path / "other.db") as other:
        other.client.start("parcel-1", weighed, "elsewhere")
        foreign = url_of("elsewhere").removeprefix(other.url)
        before = everything(runtime), everything(other)
        assert post(f"{runtime.url}{foreign}", '{"weight": 3}')[0] == 401
        assert post(f"{other.url}{urls['parcel'].removeprefix(runtime.url)}", '{"weight": 3}')[0] == 401
        assert (everything(runtime), everything(other)) == before


def test_a_token_of_an_earlier_life_changes_nothing_in_the_next(runtime: Embedded, waiting: Handle[int]) -> None:
    old = urls.pop("parcel")
    assert post(old, '{"weight": 3}')[0] == 200
    assert waiting.result(SOON_S) == 3
    again = runtime.client.start("parcel-1", weighed.options(id_reuse="allow_if_closed"), "parcel")
    new = url_of("parcel")
    assert new != old
    before = everything(runtime)
    assert post(old, '{"weight": 3}')[0] == 410
    assert post(f"{old}/failure", "{}")[0] == 410
    assert everything(runtime) == before
    assert post(new, '{"weight": 5}')[0] == 200
    assert again.result(SOON_S) == 5


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
    assert post(f"{url}/cancel", good) == (
        404,
        "A callback has no action 'cancel'; there are none, /failure and /heartbeat.",
    )
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
