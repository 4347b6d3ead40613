"""The commands that start executions, look at them and end them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from durably.cli import main
from tests.e2e.cli.project import HELLO, Project, eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


def test_what_was_started_is_listed_shown_told_and_ended(project: Project) -> None:
    project.dev()
    assert project.run(*HELLO).stdout == "started hello-1\n"
    assert project.run("result", "hello-1", "--wait").stdout == '"Hello, World!"\n'
    project.run("start", "unfortunate", "unfortunate-1")
    eventually(lambda: "retrying" in project.run("show", "unfortunate-1").stdout)

    listed = project.run("list").stdout.splitlines()
    assert re.split(r"\s{2,}", listed[0]) == ["ID", "ORCHESTRATOR", "STATUS", "STARTED", "TOOK", "CUSTOM STATUS"]
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
