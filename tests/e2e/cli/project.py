"""A user's directory, and the commands typed in it: real processes, their output and their exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any

SRC = Path(__file__).parents[3] / "src"
COMMAND = [sys.executable, "-P", "-m", "durably.cli"]
PATIENCE_S = 15.0

ACTIVITIES = """
    import time
    from datetime import timedelta
    from pathlib import Path
    from durably import Callback, RetryPolicy, activity, callback_activity
    from texts import GREETING

    @activity
    def greet(name: str) -> str:
        return f"{GREETING}, {name}!"

    @activity
    def slow(seconds: float) -> str:
        with Path("log.txt").open("a") as log:
            log.write("began\\n")
        time.sleep(seconds)
        with Path("log.txt").open("a") as log:
            log.write("ended\\n")
        return "slept"

    @activity(retry=RetryPolicy(max_attempts=3, initial_interval=timedelta(minutes=5)))
    def unlucky() -> None:
        raise ConnectionError("no luck")

    @callback_activity
    def ask(callback: Callback[str]) -> None:
        Path("url.txt.new").write_text(callback.url)
        Path("url.txt.new").rename("url.txt")
"""
ORCHESTRATORS = """
    import asyncio
    from dataclasses import dataclass
    from durably import Context, orchestrator
    from activities.work import ask, greet, slow, unlucky

    @dataclass
    class Person:
        name: str

    @orchestrator
    async def hello(ctx: Context, person: Person) -> str:
        ctx.logger.info("greeting %s", person.name)
        return await greet(person.name)

    @orchestrator
    async def sleepy(ctx: Context, seconds: float) -> str:
        return await slow(seconds)

    @orchestrator
    async def unfortunate(ctx: Context) -> None:
        await asyncio.gather(unlucky(), asyncio.sleep(3600))

    @orchestrator
    async def asking(ctx: Context) -> str:
        return await ask()

    @orchestrator
    async def failing(ctx: Context) -> None:
        raise ValueError("as planned")
"""
HELLO = ("start", "hello", "hello-1", "--input", '{"person": {"name": "World"}}')


class Dev:
    """A running `durably dev` and what it printed."""

    def __init__(self, project: Project, process: subprocess.Popen[bytes], log: Path) -> None:
        self.project = project
        self.process = process
        self.log = log

    @property
    def said(self) -> str:
        return self.log.read_text()

    def says(self, text: str, times: int = 1) -> None:
        def said() -> bool:
            assert self.process.poll() is None or text in self.said, self.said
            return self.said.count(text) >= times

        eventually(said, lambda: f"{text!r} was not said {times} times:\n{self.said}")

    def ends(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def worker(self) -> int:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        )
        return int(found.stdout.split()[0])


class Project:
    """A user's directory, and commands typed in it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.directory = directory
        self._stack = stack
        self.environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DURABLY")},
            "PYTHONPATH": str(SRC),
        }
        self.write("texts.py", 'GREETING = "Hello"\n')
        self.write("activities/work.py", ACTIVITIES)
        self.write("orchestrators/flows.py", ORCHESTRATORS)

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text))

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.directory,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 2,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def refused(self, *arguments: str, code: int = 1) -> str:
        """The one line that says why."""
        done = self.run(*arguments, code=code)
        assert done.stdout == ""
        assert done.stderr.startswith("durably: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    def dev(self, *arguments: str, paths: Sequence[str] = ("orchestrators/", "activities/"), ready: bool = True) -> Dev:
        log = self.directory / "dev.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "dev", *paths, "--port", "0", *arguments],
                cwd=self.directory,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        dev = Dev(self, process, log)
        self._stack.callback(stop, process)
        if ready:
            dev.says("durably serves")
        return dev


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def eventually(condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "it did not happen") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
