"""SQLite: files that cannot be used, each with an error that names the file and the remedy."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from durably.adapters.sqlite import SqliteBackend, schema
from durably.core.errors import ConfigurationError, StorageError
from durably.ports.backend import TurnCommit
from durably.ports.records import Reply
from tests.contract.builders import RUN, turn

SRC = Path(__file__).parents[3] / "src"


def _fill(path: Path, turns: int = 200) -> None:
    with SqliteBackend(path, synchronous="OFF") as backend:
        for first in range(1, turns + 1, 50):
            for number in range(first, first + 50):
                backend.commit([TurnCommit(run=RUN, turn=turn(number, result='"' + "x" * 600 + '"'))])


def _edit(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def _open_and_fail(path: Path) -> str:
    with pytest.raises(StorageError) as caught:
        SqliteBackend(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_a_database_is_refused(path: Path) -> None:
    path.write_bytes(b"id,name\n1,packet\n" * 500)
    assert "not a SQLite database" in _open_and_fail(path)
    assert path.read_bytes() == b"id,name\n1,packet\n" * 500


def test_a_damaged_header_is_refused(path: Path) -> None:
    _fill(path)
    content = bytearray(path.read_bytes())
    content[0:100] = os.urandom(100)
    path.write_bytes(content)
    assert "restore a backup" in _open_and_fail(path)


def test_a_damaged_page_is_an_error_and_not_a_wrong_history(path: Path) -> None:
    _fill(path)
    content = bytearray(path.read_bytes())
    for page in range(15, len(content) // 4096):
        content[page * 4096 : (page + 1) * 4096] = b"\xa7" * 4096
    path.write_bytes(content)
    with SqliteBackend(path) as backend, pytest.raises(StorageError, match=r"durably\.db.*restore a backup"):
        backend.load_turns(RUN)


def test_a_truncated_file_is_an_error(path: Path) -> None:
    _fill(path)
    os.truncate(path, 5000)
    with pytest.raises(StorageError, match=r"durably\.db"), SqliteBackend(path) as backend:
        backend.load_turns(RUN)


def test_a_gap_in_a_history_is_an_error(path: Path) -> None:
    _fill(path, 50)
    _edit(path, "DELETE FROM turns WHERE number = 7")
    with SqliteBackend(path) as backend, pytest.raises(StorageError, match="no gap"):
        backend.load_turns(RUN)


def test_a_file_of_a_newer_schema_is_refused(path: Path) -> None:
    _fill(path, 50)
    _edit(path, f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(ConfigurationError, match="Upgrade durably"):
        SqliteBackend(path)


EARLIER = {
    2: ["DROP INDEX messages_but_tasks"],
    1: ["DROP INDEX messages_but_tasks", "DROP TABLE replies", "ALTER TABLE records DROP COLUMN custom_status"],
}


@pytest.mark.parametrize("version", sorted(EARLIER))
def test_a_file_of_an_earlier_schema_is_brought_up_to_date(path: Path, version: int) -> None:
    _fill(path, 50)
    with sqlite3.connect(path) as connection:
        expected = connection.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall()
    for statement in [*EARLIER[version], f"PRAGMA user_version = {version}"]:
        _edit(path, statement)
    for _ in range(2):
        with SqliteBackend(path) as backend:
            assert len(backend.load_turns(RUN)) == 50
            backend.reply([Reply(run=RUN, request_id="u-1", result="1")])
            assert backend.receive(now_ms=2**50, limit=10, visibility_ms=1, tasks=False) == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT type, name FROM sqlite_master ORDER BY name").fetchall() == expected
        plan = connection.execute(f"EXPLAIN QUERY PLAN {schema.SELECT_DUE_BUT_TASKS}", (1, 1)).fetchall()
        assert "messages_but_tasks" in str(plan)


@pytest.mark.parametrize("statement", ["CREATE TABLE users (id)", "PRAGMA user_version = 1"])
def test_the_database_of_another_program_is_left_alone(path: Path, statement: str) -> None:
    _edit(path, statement)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program"):
        SqliteBackend(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "its directory must exist" in _open_and_fail(tmp_path / "nowhere" / "durably.db")


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    _open_and_fail(tmp_path)


@pytest.mark.parametrize("memory", [":memory:", ""])
def test_a_database_in_memory_is_refused_with_the_alternative(memory: str) -> None:
    with pytest.raises(ConfigurationError, match="MemoryBackend"):
        SqliteBackend(memory)


def test_an_unknown_synchronous_mode_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FULL"):
        SqliteBackend(path, synchronous="fast")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_another_process_that_does_not_let_go_is_named(path: Path) -> None:
    with SqliteBackend(path, busy_timeout_ms=10) as backend:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="busy_timeout_ms"):
            backend.commit([TurnCommit(run=RUN, turn=turn(1))])
        connection.execute("ROLLBACK")
        connection.close()
        assert backend.commit([TurnCommit(run=RUN, turn=turn(1))])[0].status == "stored"


OPEN = """
import os, sys
from durably.adapters.sqlite import SqliteBackend
from durably.core.errors import StorageError
if os.getuid() == 0:  # the superuser may write anything
    os.setgid(65534)
    os.setuid(65534)
try:
    SqliteBackend(sys.argv[1])
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permission bits")
@pytest.mark.parametrize("case", ["file", "directory", "empty directory"])
def test_what_may_not_be_written_is_refused_when_it_is_opened(case: str) -> None:
    # not under tmp_path, whose parents another user may not enter
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp())
    path = directory / "durably.db"
    try:
        directory.chmod(0o755)
        if case != "empty directory":
            _fill(path, 50)
        if case == "file":
            path.chmod(0o444)
            directory.chmod(0o777)
        elif case == "directory":
            path.chmod(0o666)
            directory.chmod(0o555)
        else:
            directory.chmod(0o555)
        environment = os.environ | {"PYTHONPATH": str(SRC), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(path)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        assert str(path) in done.stdout
        assert "allowed" in done.stdout
    finally:
        directory.chmod(0o755)
        shutil.rmtree(directory)
