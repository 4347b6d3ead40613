"""`durably schedules`: created, seen to run, steered and deleted, in real processes."""

from __future__ import annotations

import sys

import pytest

from durably.cli import main
from tests.e2e.cli.project import Project, eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]
PERSON = '{"person": {"name": "Ada"}}'


def test_a_schedule_runs_is_steered_and_deleted(project: Project) -> None:
    project.dev()
    created = project.run("schedules", "create", "often", "hello", "--every", "1s", "--input", PERSON)
    assert created.stdout == "created often\n"
    eventually(lambda: project.json("schedules", "show", "often")["progress"]["started"] >= 2)
    shown = project.json("schedules", "show", "often")
    started = shown["progress"]["recent"][0]
    assert project.json("result", started["execution_id"], "--wait")["result"] == "Hello, Ada!"
    assert shown["schedule"]["when"] == {"interval": 1.0, "offset": 0.0}
    assert [each["schedule_id"] for each in project.json("schedules", "list")] == ["often"]

    assert project.run("schedules", "pause", "often", "--note", "lunch").stdout == "paused often\n"
    eventually(lambda: "note       lunch" in project.run("schedules", "show", "often").stdout)
    triggered = project.json("schedules", "trigger", "often")["execution_id"]
    eventually(lambda: triggered in project.run("list").stdout)
    project.run("schedules", "backfill", "often", "2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z")
    eventually(lambda: "often/2026-01-01T00:00:02Z" in project.run("list").stdout)
    assert project.run("schedules", "resume", "often").stdout == "resumed often\n"
    eventually(lambda: project.json("schedules", "show", "often")["schedule"]["paused"] is False)

    assert project.run("schedules", "delete", "often").stdout == "deleted often\n"
    eventually(lambda: project.json("schedules", "list") == [])
    assert project.run("schedules", "list").stdout.split() == ["ID", "STATUS", "CREATED"]


def test_what_makes_no_sense_is_refused(project: Project) -> None:
    def refused(*arguments: str) -> str:
        done = project.run("schedules", *arguments, code=1)
        return done.stderr

    assert "There is no file" in refused("list")
    assert "no cron expression" in refused("create", "s", "hello", "--cron", "never", "--input", PERSON)
    assert "is past" in refused("create", "s", "hello", "--at", "2026-01-01T09:00Z", "--input", PERSON)
    assert "No orchestrator is named 'nobody'" in refused("create", "s", "nobody", "--every", "1h")
    assert "person" in refused("create", "s", "hello", "--every", "1h")
    project.run("schedules", "create", "s", "hello", "--cron", "0 9 * * *", "--input", PERSON)
    assert "There is a schedule 's'" in refused("create", "s", "hello", "--every", "1h", "--input", PERSON)
    assert "There is no schedule 't'" in refused("pause", "t")


@pytest.mark.parametrize(
    "arguments",
    [
        ["show"],
        ["create", "s", "hello"],
        ["create", "s", "hello", "--every", "often"],
        ["create", "s", "hello", "--at", "2026-01-01"],
        ["create", "s", "hello", "--every", "1h", "--cron", "0 0 * * *"],
        ["backfill", "s", "yesterday", "today"],
        ["trigger", "s", "--overlap", "odd"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["schedules", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: durably schedules")


@pytest.mark.parametrize("action", ["list", "show", "create", "pause", "resume", "trigger", "backfill", "delete"])
def test_each_action_is_described(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["schedules", action, "--help"])
    assert ended.value.code == 0
    assert f"usage: durably schedules {action} " in capsys.readouterr().out
