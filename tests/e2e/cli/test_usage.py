"""How the command line is used, and what it says when it is used wrongly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from durably.cli import main
from durably.cli.arguments import STATUSES
from durably.cli.operations import OPERATIONS
from durably.ports.records import LISTED
from tests.e2e.cli.project import COMMAND, HELLO, PATIENCE_S, SRC, Project

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["dev", "--port", "x"],
        ["complete", "a", "x", "1"],
        ["start", "hello"],
        ["list", "--limit", "0"],
        ["list", "--status", "odd"],
        ["show"],
        ["signal", "a", "approved"],
        ["update", "a", "add", "1", "--timeout", "soon"],
        ["reset", "a"],
        ["reset", "a", "--to-event", "0"],
        ["fork", "a"],
        ["purge"],
        ["purge", "a", "--closed-before", "1d"],
        ["purge", "--closed-before", "yesterday"],
        ["purge", "--closed-before", "1d", "--status", "running"],
        ["heartbeat"],
        ["heartbeat", "a", "b"],
        ["heartbeat", "a", "1", "--token", "t"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_how_it_is_right(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: durably")
    assert "invalid _" not in said.err  # argparse would say the name of our function


def test_dev_where_nothing_lies_says_what_it_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dev"]) == 1
    assert "There is no orchestrators/ and no activities/ here." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_status_can_be_listed() -> None:
    assert STATUSES == LISTED


@pytest.mark.parametrize(
    "command", ["dev", "start", "list", "show", "history", "result", "export", "replay", "lint", *OPERATIONS]
)
def test_each_command_is_listed_and_described(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], [command, "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    listed, described = capsys.readouterr().out.split(f"usage: durably {command} ")
    assert f"\n    {command} " in listed
    assert re.search(r"\n\n[A-Z][^.]+\.", described)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"durably \d+\.\d+\.\d+, Python 3\.\d+\.\S+\n", capsys.readouterr().out)


def test_help_loads_nothing_that_it_does_not_need() -> None:
    code = "import sys, durably.cli.arguments; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    loaded = set(done.stdout.split())
    assert {name for name in loaded if name.split(".")[0] == "durably"} == {
        "durably",
        "durably.cli",
        "durably.cli.arguments",
    }
    assert not loaded & {"pydantic", "sqlite3", "asyncio", "logging"}


def test_a_reader_that_has_seen_enough_is_no_error(project: Project) -> None:
    project.run(*HELLO)
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [*COMMAND, "list"],
            cwd=project.directory,
            env=project.environment,
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
