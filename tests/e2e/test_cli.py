"""The command line as it is typed: real processes, their output and their exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.request import Request, urlopen

import pytest

from durably.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
]

SRC = Path(__file__).parents[2] / "src"
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

    def dev(self, *arguments: str, ready: bool = True) -> Dev:
        log = self.directory / "dev.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "dev", "orchestrators/", "activities/", "--port", "0", *arguments],
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


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with ExitStack() as stack:
        yield Project(tmp_path, stack)


# --- durably dev -------------------------------------------------------------------------------------------------


def test_dev_says_what_it_runs_and_the_command_it_proposes_works(project: Project) -> None:
    dev = project.dev()
    dev.says("  try ")
    assert re.search(r"callbacks arrive at http://127\.0\.0\.1:\d+\n", dev.said)
    assert "orchestrators  asking, failing, hello, sleepy, unfortunate\n" in dev.said
    assert "activities     ask, greet, slow, unlucky\n" in dev.said
    proposed = re.findall(r"try +durably (.*)\n", dev.said)[0]
    assert project.run(*shlex.split(proposed)).stdout == '"Hello, name!"\n'
    dev.says("durably.orchestrator.hello [hello-1]: greeting name")
    assert "Traceback" not in dev.said
    assert dev.ends() == 0
    assert sorted(path.name for path in project.directory.iterdir() if "durably" in path.name) == [
        "durably.db",
        "durably.db-owners",
    ]
    assert not list((project.directory / "durably.db-owners").iterdir())


def test_dev_takes_up_what_is_edited_and_what_it_imports(project: Project) -> None:
    dev = project.dev()
    port = re.findall(r":(\d+)\n", dev.said)
    project.write("activities/work.py", ACTIVITIES.replace("}!", "}?"))
    dev.says("activities/work.py changed, reloading")
    dev.says("durably serves", times=2)
    assert project.run(*HELLO, "--wait", "10").stdout == '"Hello, World?"\n'
    project.write("texts.py", 'GREETING = "Jello"\n')
    dev.says("texts.py changed, reloading")
    dev.says("durably serves", times=3)
    done = project.run("start", "hello", "hello-2", "--input", '{"person": {"name": "World"}}', "--wait", "10")
    assert done.stdout == '"Jello, World?"\n'
    assert re.findall(r":(\d+)\n", dev.said) == port * 3
    assert dev.ends() == 0


def test_dev_shows_what_cannot_be_imported_and_waits_for_it_to_be_mended(project: Project) -> None:
    project.write("activities/work.py", ACTIVITIES + "    def (\n")
    dev = project.dev(ready=False)
    dev.says("waiting for a change")
    assert "SyntaxError: invalid syntax" in dev.said
    assert re.search(r"cannot be imported: SyntaxError: invalid syntax \(activities/work\.py:\d+\)", dev.said)
    assert "discovery.py" not in dev.said
    project.write("activities/work.py", ACTIVITIES + "    import nowhere\n")
    dev.says("waiting for a change", times=2)
    assert "ModuleNotFoundError: No module named 'nowhere'" in dev.said
    project.write(
        "activities/work.py", ACTIVITIES + "    activity(name='greet')(len)\n    echo = activity(name='greet')(len)"
    )
    dev.says("waiting for a change", times=3)
    assert "share the persisted name 'greet'" in dev.said
    project.write("activities/work.py", ACTIVITIES)
    dev.says("durably serves")
    assert project.run(*HELLO, "--wait", "10").stdout == '"Hello, World!"\n'
    assert dev.ends(signal.SIGINT) == 0


@pytest.mark.parametrize("how", ["told to end", "reload", "no reload"])
def test_dev_finishes_what_runs_and_runs_it_once(project: Project, how: str) -> None:
    dev = project.dev(*(["--no-reload"] if how == "no reload" else []))
    project.run("start", "sleepy", "sleepy-1", "--input", '{"seconds": 1.0}')
    log = project.directory / "log.txt"
    eventually(log.exists)
    if how == "reload":
        project.write("texts.py", 'GREETING = "Goodbye"\n')
        dev.says("durably serves", times=2)
    else:
        assert dev.ends() == 0
    assert log.read_text() == "began\nended\n"
    assert project.run("result", "sleepy-1").stdout == '"slept"\n'


def test_a_worker_that_is_killed_is_replaced_and_what_it_ran_runs_again(project: Project) -> None:
    dev = project.dev()
    project.run("start", "sleepy", "sleepy-1", "--input", '{"seconds": 0.8}')
    log = project.directory / "log.txt"
    eventually(log.exists)
    os.kill(dev.worker(), signal.SIGKILL)
    dev.says("the worker was killed by SIGKILL")
    assert project.run("result", "sleepy-1", "--wait", "10").stdout == '"slept"\n'
    assert log.read_text() == "began\nbegan\nended\n"


def test_a_worker_does_not_outlive_its_supervisor(project: Project) -> None:
    dev = project.dev()
    worker = dev.worker()
    dev.process.kill()
    dev.process.wait()

    def gone() -> bool:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{worker}/stat").exists() and ") Z " in Path(f"/proc/{worker}/stat").read_text()

    eventually(gone)


def test_a_callback_url_stays_valid_across_reloads(project: Project) -> None:
    dev = project.dev()
    project.run("start", "asking", "asking-1")
    url = project.directory / "url.txt"
    eventually(url.exists)
    shown = project.json("show", "asking-1")
    assert shown["activities"][0]["state"] == "open"
    project.write("texts.py", 'GREETING = "Goodbye"\n')
    dev.says("durably serves", times=2)
    request = Request(url.read_text(), data=b'"answer"', headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=PATIENCE_S) as response:
        assert response.status == 200
    assert project.run("result", "asking-1", "--wait", "10").stdout == '"answer"\n'


def test_dev_refuses_what_cannot_work(project: Project) -> None:
    assert "nowhere does not exist" in project.refused("dev", "nowhere")
    project.write("empty/nothing.py", "")
    project.write("junk.db", "this is no database, " * 100)
    done = project.run("dev", "orchestrators", "--db", "junk.db", "--port", "0", code=1)
    assert "junk.db cannot be used: file is not a database" in done.stderr
    dev = project.dev()
    port = re.findall(r":(\d+)\n", dev.said)[0]
    done = project.run("dev", "orchestrators", "--db", "other.db", "--port", port, code=1)
    assert "cannot listen on" in done.stderr
    assert "Choose another port" in done.stderr


# --- starting and looking ----------------------------------------------------------------------------------------


def test_what_was_started_is_listed_shown_told_and_ended(project: Project) -> None:
    project.dev()
    assert project.run(*HELLO).stdout == "started hello-1\n"
    assert project.run("result", "hello-1", "--wait").stdout == '"Hello, World!"\n'
    project.run("start", "unfortunate", "unfortunate-1")
    eventually(lambda: "retrying" in project.run("show", "unfortunate-1").stdout)

    listed = project.run("list").stdout.splitlines()
    assert re.split(r"\s{2,}", listed[0]) == ["ID", "ORCHESTRATOR", "STATUS", "STARTED", "TOOK"]
    assert [line.split()[:3] for line in listed[1:]] == [
        ["unfortunate-1", "unfortunate", "running"],
        ["hello-1", "hello", "completed"],
    ]
    assert [one["execution_id"] for one in project.json("list", "--status", "running")] == ["unfortunate-1"]
    assert [one["execution_id"] for one in project.json("list", "--orchestrator", "hello")] == ["hello-1"]
    assert [one["execution_id"] for one in project.json("list", "--limit", "1")] == ["unfortunate-1"]
    assert project.json("list", "--status", "failed") == []

    shown = project.run("show", "unfortunate-1").stdout
    assert "waits for     unlucky (#1): attempt 2, retrying; called at orchestrators/flows.py:" in shown
    assert "attempt 1 failed: ConnectionError: no luck" in shown
    assert re.search(r"waits until .* \(in (1 h|59 min|60 min).*#2\)", shown)
    described = project.json("show", "unfortunate-1")
    assert described["activities"][0]["last_failure"]["type"] == "builtins.ConnectionError"
    assert described["timers"][0]["seq"] == 2

    told = project.run("history", "hello-1").stdout.splitlines()
    assert [line.split()[0] for line in told] == ["#", "1", "2", "3", "4"]
    assert 'input={"person":{"name":"World"}}' in told[1]
    assert [(one["number"], one["event"], one["applied"]) for one in project.json("history", "hello-1")] == [
        (1, "ExecutionStarted", True),
        (2, "ActivityScheduled", True),
        (3, "ActivityCompleted", True),
        (4, "ExecutionCompleted", True),
    ]
    assert project.json("history", "hello-1")[0]["attributes"]["input"] == {"person": {"name": "World"}}
    assert project.json("result", "hello-1") == {
        "execution_id": "hello-1",
        "status": "completed",
        "result": "Hello, World!",
        "failure": None,
    }

    assert project.run("terminate", "unfortunate-1", "--reason", "enough").stdout == "unfortunate-1 is terminated\n"
    assert project.json("show", "unfortunate-1")["failure"]["message"] == "enough"
    assert "is terminated; it accepts nothing more" in project.refused("terminate", "unfortunate-1")
    assert "did not complete: durably.Terminated: enough" in project.refused("result", "unfortunate-1")


def test_input_comes_from_an_argument_a_file_or_standard_input(project: Project) -> None:
    project.dev()
    project.write("input.json", '{"person": {"name": "File"}}\n')
    wait = ("--wait", "10")
    assert project.run("start", "hello", "a", "--input-file", "input.json", *wait).stdout == '"Hello, File!"\n'
    done = project.run("start", "hello", "b", "--input-file", "-", *wait, stdin='{"person": {"name": "Pipe"}}')
    assert done.stdout == '"Hello, Pipe!"\n'
    assert done.stderr == "started b\n"


def test_a_failure_is_told_on_standard_error_and_by_the_exit_code(project: Project) -> None:
    project.dev()
    done = project.run("start", "failing", "failing-1", "--wait", "10", code=1)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "started failing-1",
        "durably: execution failing-1 did not complete: ValueError: as planned",
    ]
    answer = project.json("result", "failing-1", code=1)
    assert (answer["status"], answer["failure"]["type"]) == ("failed", "builtins.ValueError")
    shown = project.run("show", "failing-1").stdout
    assert 'raise ValueError("as planned")' in shown


def test_without_a_runtime_things_are_stored_and_waiting_says_what_is_missing(project: Project) -> None:
    assert project.run(*HELLO).stdout == "started hello-1\n"
    assert project.json("list")[0]["status"] == "running"
    refusal = project.refused("result", "hello-1", "--wait", "0.1")
    assert "did not close within 0.1 s. Is `durably dev` running on durably.db?" in refusal
    assert "is running. Wait for its end with --wait." in project.refused("result", "hello-1")
    told = project.run("terminate", "hello-1").stdout
    assert told == "hello-1 will be terminated as soon as a runtime serves durably.db\n"
    dev = project.dev()
    eventually(lambda: project.json("list")[0]["status"] == "terminated")
    assert dev.ends() == 0


def test_starting_refuses_what_does_not_fit_and_stores_nothing(project: Project) -> None:
    cases = {
        "No orchestrator in orchestrators, activities is named 'nobody'; there are: asking, ": ("nobody", "a"),
        "expected a value, the field is required": ("hello", "a"),
        "at person.name: expected a valid string, got 5": ("hello", "a", "--input", '{"person": {"name": 5}}'),
        "at persona: expected no such name": ("hello", "a", "--input", '{"person": {"name": "x"}, "persona": 1}'),
        "'a b' cannot be an execution id": ("asking", "a b"),
    }
    for says, arguments in cases.items():
        assert says in project.refused("start", *arguments)
    project.write("orchestrators/broken.py", "1 / 0\n")
    assert "orchestrators/broken.py cannot be imported: ZeroDivisionError" in project.refused("start", "hello", "a")
    (project.directory / "orchestrators" / "broken.py").unlink()
    assert project.json("list") == []


def test_input_that_is_no_object_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.directory)
    cases = {
        "The input is not JSON": ("--input", "{person: World}"),
        "must be a JSON object by parameter name": ("--input", '"World"'),
        "cannot be read from nowhere.json": ("--input-file", "nowhere.json"),
        "nowhere does not exist": ("--from", "nowhere"),
    }
    for says, arguments in cases.items():
        assert main(["start", "hello", "a", *arguments]) == 1
        assert says in capsys.readouterr().err
    assert not Path("durably.db").exists()


def test_an_id_that_is_taken_is_refused_unless_reuse_is_asked_for(project: Project) -> None:
    project.run(*HELLO, "--request-id", "r-1")
    assert "The id 'hello-1' is taken: hello, running." in project.refused(*HELLO)
    assert "is taken" in project.refused(*HELLO, "--id-reuse", "allow_if_closed")
    assert project.run(*HELLO, "--id-reuse", "use_existing").stdout == "hello-1 exists already, running\n"
    assert project.run(*HELLO, "--request-id", "r-1").stdout == "hello-1 exists already, running\n"
    assert project.json(*HELLO, "--id-reuse", "use_existing")["existed"] is True
    assert len(project.json("list")) == 1


def test_looking_makes_no_database(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    missing = project.directory / "nowhere.db"
    before = sorted(project.directory.iterdir())
    for command in ("list", "show x", "history x", "result x", "terminate x"):
        assert main([*command.split(), "--db", str(missing)]) == 1
        assert f"durably: There is no file {missing}. Name the one" in capsys.readouterr().err
    assert sorted(project.directory.iterdir()) == before


def test_the_database_may_be_named_in_the_environment(project: Project) -> None:
    project.environment = {**project.environment, "DURABLY_DB": "elsewhere.db"}
    project.run(*HELLO)
    assert (project.directory / "elsewhere.db").exists()
    assert len(project.json("list")) == 1
    assert "No execution has the id 'hello-2'." in project.refused("show", "hello-2")


# --- usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [[], ["nothing"], ["dev"], ["start", "hello"], ["list", "--limit", "0"], ["list", "--status", "odd"], ["show"]],
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
