"""Damaged, foreign, read-only and full files: a clear error, nothing half-applied, and on it goes."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from durably import Handle
from durably.core.errors import ConfigurationError, StorageError
from durably.embedded import Embedded
from tests.e2e.bad_input.parcels import (
    SOON_S,
    SRC,
    doubled,
    embedded,
    eventually,
    everything,
    post,
    url_of,
    urls,
    weighed,
)


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


def child(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=os.environ | {"PYTHONPATH": str(SRC), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


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
        done = child(READ_ONLY, path)
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


FULL = """
import os, resource, sys
from durably import Context, activity, orchestrator
from durably.core.errors import StorageError
from durably.embedded import Embedded

@activity
def double(number: int, label: str) -> int:
    return 2 * number

@orchestrator
async def doubled(ctx: Context, number: int, label: str) -> int:
    return await double(number, label)

with Embedded(sys.argv[1], orchestrators=[doubled], activities=[double]) as runtime:
    assert runtime.client.start("first", doubled, 1, "").result(10) == 2
    room = max(os.path.getsize(sys.argv[1] + suffix) for suffix in ("", "-wal")) + 200_000
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    started = []
    try:
        for number in range(1000):
            started.append(runtime.client.start(f"number-{number}", doubled, number, "x" * 10_000))
    except StorageError as error:
        print(error)
    assert 0 < len(started) < 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert [handle.result(10) for handle in started] == [2 * number for number in range(len(started))]
    assert len(list(runtime.client.list())) == 1 + len(started)
    print("all that was accepted is done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_file_that_the_system_lets_grow_no_further_refuses_starts_and_keeps_those_accepted(path: Path) -> None:
    done = child(FULL, path)
    assert done.returncode == 0, done.stderr
    refusal, end = done.stdout.splitlines()
    assert refusal.startswith(f"{path} cannot be used: ")
    assert end == "all that was accepted is done"


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
