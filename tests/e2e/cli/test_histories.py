"""`durably export` and `durably replay`: what has run, against the code as it is now."""

from __future__ import annotations

import json
import re
import sys

import pytest

from tests.e2e.cli.project import HELLO, ORCHESTRATORS, Project, eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]


@pytest.fixture
def served(project: Project) -> Project:
    """One that completed, one that waits, one that failed; nothing runs any more."""
    dev = project.dev()
    project.run(*HELLO, "--wait", "15")
    project.run("start", "failing", "failing-1")
    project.run("start", "unfortunate", "unfortunate-1")
    eventually(lambda: "retrying" in project.run("show", "unfortunate-1").stdout)
    eventually(lambda: "failed" in project.run("show", "failing-1").stdout)
    dev.ends()
    return project


def test_histories_agree_until_the_code_is_edited(served: Project) -> None:
    exported = json.loads(served.run("export", "hello-1").stdout)
    assert (exported["format"], exported["execution_id"], exported["status"]) == (
        *("durably.history", "hello-1", "completed"),
    )
    assert served.run("export", "hello-1", "--output", "hello.json").stdout == ""
    assert served.run("replay", "hello.json").stdout == "agrees      hello.json  hello  2 events\n"
    agreeing = served.run("replay")
    assert [line.split()[:3] for line in agreeing.stdout.splitlines()] == [
        ["agrees", "unfortunate-1", "unfortunate"],
        ["agrees", "failing-1", "failing"],
        ["agrees", "hello-1", "hello"],
    ]
    assert agreeing.stderr == "3 replayed, 0 of them not as recorded\n"

    served.write("orchestrators/flows.py", ORCHESTRATORS.replace("await greet(person.name)", "await slow(1.0)"))
    diverged = served.run("replay", code=1)
    assert [line.split()[0] for line in diverged.stdout.splitlines() if not line.startswith(" ")] == [
        *("agrees", "agrees", "diverged"),
    ]
    assert re.search(
        r'recorded greet\({"name":"World"}\) at .*\n .*now asks for slow\({"seconds":1.0}\)', diverged.stdout
    )
    assert diverged.stderr == "3 replayed, 1 of them not as recorded\n"

    told = served.json("replay", "hello.json", code=1)
    assert [(one["history"], one["verdict"], one["orchestrator"]) for one in told] == [
        ("hello.json", "diverged", "hello")
    ]
    assert "changed on replay" in told[0]["error"]


def test_executions_are_chosen_and_the_unreadable_and_the_missing_are_told(served: Project) -> None:
    def replayed(*arguments: str, code: int = 0) -> list[tuple[str, str]]:
        return [(one["history"], one["verdict"]) for one in served.json("replay", *arguments, code=code)]

    assert replayed("--status", "running") == [("unfortunate-1", "agrees")]
    assert replayed("--orchestrator", "hello") == [("hello-1", "agrees")]
    assert replayed("--limit", "2") == [("unfortunate-1", "agrees"), ("failing-1", "agrees")]
    assert len(replayed("--since", "1h")) == 3
    assert replayed("--since", "2100-01-01") == []
    assert len(replayed("--since", "2020-01-01T00:00+01:00")) == 3

    (served.directory / "odd.json").write_text("{}")
    assert replayed("odd.json", "none.json", code=1) == [("odd.json", "unreadable"), ("none.json", "unreadable")]
    endless = "while True:\n            pass\n        return await greet("
    served.write("orchestrators/flows.py", ORCHESTRATORS.replace("return await greet(", endless))
    assert replayed("--timeout", "0.5", code=1) == [
        *(("unfortunate-1", "agrees"), ("failing-1", "agrees"), ("hello-1", "stalled")),
    ]
    served.write("orchestrators/flows.py", "")
    assert replayed("--status", "completed", code=1) == [("hello-1", "stalled")]


def test_what_cannot_be_read_or_written_is_refused(served: Project) -> None:
    assert "No execution has the id 'nobody'" in served.refused("export", "nobody")
    assert "cannot be written to no/where.json" in served.refused("export", "hello-1", "--output", "no/where.json")
    assert "no file other.db" in served.refused("replay", "--db", "other.db")
    assert "no file other.db" in served.refused("export", "hello-1", "--db", "other.db")
    assert "neither 90m, 12h, 7d nor a date" in served.run("replay", "--since", "soon", code=2).stderr


COUNTDOWN = """
    from durably import Context, orchestrator
    from activities.work import greet

    @orchestrator
    async def countdown(ctx: Context, left: int) -> str:
        said = await greet(f"{left}")
        return said if left == 0 else await ctx.continue_as_new(left - 1)
"""


def test_all_runs_are_exported_and_the_code_of_today_need_only_agree_with_the_current_one(project: Project) -> None:
    project.write("orchestrators/counting.py", COUNTDOWN)
    dev = project.dev()
    project.run("start", "countdown", "c-1", "--input", '{"left": 2}', "--wait", "15")
    dev.ends()
    project.run("export", "c-1", "--output", "c-1.json")
    exported = json.loads((project.directory / "c-1.json").read_text())
    assert [(run["run"], len(run["turns"]) > 1) for run in exported["runs"]] == [(1, True), (2, True), (3, True)]
    assert project.run("replay", "c-1.json").stdout == "agrees      c-1.json  countdown  6 events\n"

    project.write("orchestrators/counting.py", COUNTDOWN.replace('f"{left}"', 'f"{left}" if left < 2 else "two"'))
    assert project.run("replay").stdout == "agrees      c-1  countdown  2 events\n"
    assert project.run("replay", "c-1.json", code=1).stdout.startswith("diverged    c-1.json")
