"""What an orchestrator does to the world is refused while it runs in a test; nobody else is."""

from __future__ import annotations

import asyncio
import glob
import importlib
import linecache
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from durably import Context, ExecutionFailedError, activity, orchestrator
from durably.core.loop import OrchestratorLoop
from durably.testing import Environment

DONE: list[str] = []


def calls(does: Callable[[], object]) -> None:
    does()


@activity
def act(which: str) -> str:
    ACTS[which]()
    return which


@orchestrator
async def acts(ctx: Context, which: str) -> str:
    await asyncio.sleep(1)
    calls(ACTS[which])
    DONE.append(which)
    return which


@orchestrator
async def asks(ctx: Context, which: str) -> str:
    return await act(which)


def connect() -> None:
    with socket.socket() as peer:
        peer.settimeout(1)
        peer.connect(("127.0.0.1", 9))


HERE = Path(__file__)
ACTS: dict[str, Callable[[], object]] = {
    "open": lambda: open(__file__).close(),  # noqa: PTH123  # the built-in is meant
    "read": HERE.read_bytes,
    "list": lambda: glob.glob("*"),  # noqa: PTH207
    "copy": lambda: shutil.copy(HERE, HERE.with_name("never")),
    "socket": connect,
    "request": lambda: urllib.request.urlopen("http://127.0.0.1:9/"),
    "database": lambda: sqlite3.connect(":memory:").close(),
    "process": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
    "shell": lambda: os.system("exit"),
    "thread": lambda: sys.audit("_thread.start_new_thread", str, (), {}),  # as Python does from 3.12 on
    "sleep": lambda: sys.audit("time.sleep", 1),  # as Python does from 3.13 on
}
REFUSED = {
    **dict.fromkeys(("open", "read", "list", "copy"), "DUR004"),
    **dict.fromkeys(("socket", "request", "database"), "DUR005"),
    **dict.fromkeys(("process", "shell"), "DUR006"),
    "thread": "DUR007",
    "sleep": "DUR008",
}


@pytest.mark.parametrize(("which", "code"), REFUSED.items())
def test_what_touches_the_world_is_refused_and_told_with_its_line(
    durably_env: Environment, which: str, code: str
) -> None:
    DONE.clear()
    with pytest.raises(ExecutionFailedError, match=rf"testing/test_guard\.py:\d+ .*`# noqa: {code}` lets") as failed:
        durably_env.run(acts, which)
    assert failed.value.failure.type == "durably.core.errors.NotDurableError"
    assert DONE == []


@pytest.mark.parametrize("which", ["read", "database", "process", "thread"])
def test_an_activity_may_do_anything(durably_env: Environment, which: str) -> None:
    assert durably_env.run(asks, which) == which


def test_a_line_may_be_let_through(durably_env: Environment) -> None:
    @orchestrator
    async def reads(ctx: Context) -> int:
        return len(HERE.read_bytes())  # noqa: DUR004, ASYNC240

    assert durably_env.run(reads) == HERE.stat().st_size


def test_a_line_is_let_through_for_what_it_says(durably_env: Environment) -> None:
    @orchestrator
    async def reads(ctx: Context) -> int:
        return len(HERE.read_bytes())  # noqa: DUR005, ASYNC240

    with pytest.raises(ExecutionFailedError, match="DUR004"):
        durably_env.run(reads)


def test_imports_tracebacks_time_zones_and_logs_are_let_through(
    durably_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads_at_import.py").write_text("from pathlib import Path\n\nTEXT = Path(__file__).read_text()\n")
    monkeypatch.syspath_prepend(tmp_path)
    handler = logging.FileHandler(tmp_path / "log", delay=True)

    @orchestrator
    async def looks(ctx: Context) -> int:
        text: str = importlib.import_module("reads_at_import").TEXT

        ZoneInfo.no_cache("Europe/Berlin")
        linecache.checkcache(__file__)
        linecache.getlines(__file__)
        ctx.logger.warning("read")
        return len(text)

    logger = logging.getLogger("durably.orchestrator.looks")
    logger.addHandler(handler)
    try:
        assert durably_env.run(looks) == (tmp_path / "reads_at_import.py").stat().st_size
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert (tmp_path / "log").read_text() == "read\n"


def test_outside_of_orchestrators_nothing_is_refused(durably_env: Environment) -> None:
    durably_env.run(asks, "open")
    for does in ("open", "database", "thread"):
        ACTS[does]()
    assert not isinstance(asyncio._get_running_loop(), OrchestratorLoop)


def test_it_is_refused_in_other_processes_too(durably_env: Environment) -> None:
    with pytest.raises(ExecutionFailedError, match=r"`# noqa: DUR004` lets"):
        durably_env.assert_replay_safe(acts, "read")
