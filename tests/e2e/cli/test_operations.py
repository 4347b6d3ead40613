"""The commands that tell an execution something, ask it, or steer it."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.cli.project import Project, eventually

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="signals")]

ACTIVITIES = """
    from pathlib import Path
    from durably import NonRetryableError, activity

    @activity
    def book(what: str) -> str:
        with Path("booked.txt").open("a") as log:
            log.write(what + "\\n")
        if what == "hotel" and not Path("vacant").exists():
            raise NonRetryableError("no vacancy")
        return what.upper()
"""
ORCHESTRATORS = """
    import asyncio
    from durably import Context, Query, Signal, Update, orchestrator
    from activities.booking import book

    GO = Signal[int]("go")
    SEEN = Query[list[int]]("seen")
    ADD = Update[int, int]("add")

    @orchestrator
    async def collect(ctx: Context, wanted: int = 2) -> list[int]:
        seen: list[int] = []
        ctx.on_query(SEEN, lambda: list(seen))

        def add(number: int) -> int:
            if number == 13:
                raise RuntimeError("bad luck")
            seen.append(number)
            return sum(seen)

        def check(number: int) -> None:
            if number < 0:
                raise ValueError("only what is positive")

        ctx.on_update(ADD, add, validate=check)
        while len(seen) < wanted:
            seen.append(await ctx.receive(GO))
            ctx.set_status({"seen": len(seen)})
        return seen

    @orchestrator
    async def parent(ctx: Context) -> list[int]:
        return await collect(1)

    @orchestrator
    async def travel(ctx: Context, by: str = "train") -> list[str]:
        return [await book(by), await book("hotel")]
"""


@pytest.fixture
def talks(project: Project) -> Project:
    project.write("activities/booking.py", ACTIVITIES)
    project.write("orchestrators/talks.py", ORCHESTRATORS)
    return project


def booked(project: Project) -> list[str]:
    return (project.directory / "booked.txt").read_text().split()


def test_an_execution_is_told_and_asked_and_answers(talks: Project) -> None:
    talks.dev()
    talks.run("start", "collect", "c-1", "--input", '{"wanted": 4}')
    assert talks.run("signal", "c-1", "go", "1", "--request-id", "one").stdout == "sent go to c-1\n"
    sent = talks.json("signal", "c-1", "go", "1", "--request-id", "one")
    assert sent == {"execution_id": "c-1", "signal": "go", "request_id": "one"}
    eventually(lambda: talks.json("query", "c-1", "seen") == [1])
    assert talks.run("update", "c-1", "add", "5", "--request-id", "five").stdout == "6\n"
    assert talks.json("update", "c-1", "add", "5", "--request-id", "five") == {
        "execution_id": "c-1",
        "request_id": "five",
        "outcome": "completed",
        "result": 6,
        "failure": None,
    }
    assert talks.run("query", "c-1", "seen").stdout == "[1, 5]\n"

    assert "rejected the update: only what is positive" in talks.refused("update", "c-1", "add", "-1")
    refusal = talks.json("update", "c-1", "add", "-1", code=1)
    assert (refusal["outcome"], refusal["failure"]["message"]) == ("rejected", "only what is positive")
    assert "failed the update: RuntimeError: bad luck" in talks.refused("update", "c-1", "add", "13")
    assert "has no handler of the update 'sub' (now); it handles: add" in talks.refused("update", "c-1", "sub", "1")
    assert "answers no query 'sum'; it answers: seen" in talks.refused("query", "c-1", "sum")
    assert "The payload is not JSON" in talks.refused("signal", "c-1", "go", "{")
    assert "'a b' cannot name a signal" in talks.refused("signal", "c-1", "a b", "1")
    assert "No execution has the id 'c-2'" in talks.refused("signal", "c-2", "go", "1")

    shown = talks.run("show", "c-1").stdout
    assert 'custom status {"seen":1}' in shown
    assert "waits for     a signal or an update\n" in shown
    assert '{"seen":1}' in talks.run("list").stdout
    assert talks.json("list")[0]["custom_status"] == {"seen": 1}
    talks.run("signal", "c-1", "go", "7")
    talks.run("signal", "c-1", "go", "9")
    assert talks.run("result", "c-1", "--wait", "10").stdout == "[1, 5, 7, 9]\n"
    assert talks.json("query", "c-1", "seen") == [1, 5, 7, 9]
    for refused in (("signal", "c-1", "go", "1"), ("update", "c-1", "add", "1"), ("cancel", "c-1"), ("resume", "c-1")):
        assert "is completed; it accepts nothing more" in talks.refused(*refused)
    told = talks.run("history", "c-1").stdout
    assert "name=go payload=1 request_id=one" in told
    assert "UpdateCompleted" in told


def test_a_child_is_shown_and_reached_under_its_own_id(talks: Project) -> None:
    talks.dev()
    talks.run("start", "parent", "p-1")
    eventually(lambda: "waits for     collect p-1/1.1 (#1): child" in talks.run("show", "p-1").stdout)
    eventually(lambda: len(talks.json("list")) == 2)
    assert talks.json("show", "p-1")["children"][0]["execution_id"] == "p-1/1.1"
    talks.run("signal", "p-1/1.1", "go", "3")
    assert talks.run("result", "p-1", "--wait", "10").stdout == "[3]\n"
    assert talks.json("query", "p-1/1.1", "seen") == [3]


def test_an_execution_is_suspended_resumed_and_cancelled(talks: Project) -> None:
    talks.dev()
    talks.run("start", "collect", "c-1")
    assert talks.run("suspend", "c-1").stdout == "c-1 is suspended\n"
    assert [one["execution_id"] for one in talks.json("list", "--status", "suspended")] == ["c-1"]
    talks.run("signal", "c-1", "go", "1")
    assert talks.json("query", "c-1", "seen") == []
    assert talks.run("resume", "c-1").stdout == "c-1 is running\n"
    eventually(lambda: talks.json("query", "c-1", "seen") == [1])
    assert talks.run("cancel", "c-1", "--reason", "enough").stdout == "c-1 is cancelled\n"
    assert talks.json("show", "c-1")["failure"]["message"] == "enough"
    assert [one["execution_id"] for one in talks.json("list", "--status", "cancelled")] == ["c-1"]


def test_an_execution_that_failed_is_retried_reset_and_forked(talks: Project) -> None:
    talks.dev()
    talks.run("start", "travel", "t-1", "--wait", "10", code=1)
    assert booked(talks) == ["train", "hotel"]
    (talks.directory / "vacant").touch()

    for _ in range(2):
        assert talks.run("retry", "t-1", "--request-id", "rooms").stdout == "t-1 goes on in run 2\n"
    assert talks.run("result", "t-1", "--wait", "10").stdout == '["TRAIN", "HOTEL"]\n'
    assert booked(talks) == ["train", "hotel", "hotel"]
    assert "only what failed, was cancelled or terminated can be retried" in talks.refused("retry", "t-1")
    assert "has no applied event 99" in talks.refused("reset", "t-1", "--to-event", "99")

    assert talks.run("reset", "t-1", "--to-event", "1").stdout == "t-1 goes on in run 3, from event 1\n"
    talks.run("result", "t-1", "--wait", "10")
    assert booked(talks)[3:] == ["train", "hotel"]
    assert talks.json("show", "t-1")["run"] == 3
    assert "completed (run 3)" in talks.run("list").stdout

    for _ in range(2):
        assert talks.run("fork", "t-1", "t-2", "--request-id", "f").stdout == "t-2 started from t-1, event 1\n"
    forked = talks.json("fork", "t-1", "t-3", "--input", '{"by": "boat"}')
    assert (forked["execution_id"], forked["orchestrator"]) == ("t-3", "travel")
    assert talks.run("result", "t-3", "--wait", "10").stdout == '["BOAT", "HOTEL"]\n'
    assert "at car: expected no such name" in talks.refused("fork", "t-1", "t-4", "--input", '{"car": 1}')
    assert "The id 't-2' is taken" in talks.refused("fork", "t-1", "t-2")

    talks.run("reset", "t-3", "--to-event", "1", "--input", '{"by": "bus"}')
    assert talks.run("result", "t-3", "--wait", "10").stdout == '["BUS", "HOTEL"]\n'


def test_without_a_runtime_it_is_stored_and_said_so(talks: Project) -> None:
    talks.run("start", "collect", "c-1")
    shown = talks.run("show", "c-1").stdout
    assert "1 event received in 1 turn, 1 not applied yet\n" in shown
    assert "waits for     its next turn\n" in shown
    assert talks.run("suspend", "c-1").stdout == "c-1 will be suspended as soon as a runtime serves durably.db\n"
    again = talks.run("suspend", "c-1", "--request-id", "s").stdout
    assert again.endswith("durably.db, unless it was under this request id before\n")
    assert talks.run("cancel", "c-1").stdout == "c-1 is asked to cancel itself\n"
    refusal = talks.refused("update", "c-1", "add", "1", "--request-id", "r", "--timeout", "0.1")
    assert "Is `durably dev` running on durably.db? Ask for the reply again with --request-id r." in refusal
    assert json.loads(talks.run("list", "--json").stdout)[0]["status"] == "running"


def test_a_callback_activity_is_answered_by_its_number(project: Project) -> None:
    project.dev()
    for id_ in ("a-1", "a-2"):
        project.run("start", "asking", id_)
        eventually(lambda id_=id_: [one["state"] for one in project.json("show", id_)["activities"]] == ["open"])  # type: ignore[misc]
    assert "The result is not JSON" in project.refused("complete", "a-1", "1", "yes")
    assert "awaits no callback" in project.refused("complete", "a-1", "2", '"yes"')
    assert project.run("complete", "a-1", "1", '"yes"').stdout == "completed activity 1 of a-1\n"
    assert project.run("result", "a-1", "--wait", "10").stdout == '"yes"\n'
    assert "Another result was recorded" in project.refused("complete", "a-1", "1", '"no"')
    assert project.json("fail", "a-2", "1", "sold out") == {"execution_id": "a-2", "activity": 1, "outcome": "failed"}
    assert "sold out" in project.run("result", "a-2", "--wait", "10", code=1).stderr


def test_a_callback_activity_is_kept_alive_and_shown(project: Project) -> None:
    project.dev()
    project.run("start", "asking", "a-1")
    eventually(lambda: [one["state"] for one in project.json("show", "a-1")["activities"]] == ["open"])
    url = (project.directory / "url.txt").read_text()
    assert project.run("heartbeat", "a-1", "1").stdout == "recorded; it is still waited for\n"
    assert project.json("heartbeat", "--token", url, "--details", '{"miles": 12}') == {"cancelled": False}
    shown = project.json("show", "a-1")["activities"][0]
    assert (shown["attempt"], shown["heartbeat_details"]) == (1, {"miles": 12})
    assert datetime.fromisoformat(shown["heartbeat_at"]) <= datetime.now(UTC)
    lines = r"attempt 1, open; called at .*\n +last heartbeat .* \(.* s ago\): {\"miles\":12}\n"
    assert re.search(lines, project.run("show", "a-1").stdout)
    assert "Which activity of a-1?" in project.refused("heartbeat", "a-1", code=2)
    assert "awaits no callback" in project.refused("heartbeat", "a-1", "7")
    assert "The details is not JSON" in project.refused("heartbeat", "a-1", "1", "--details", "{")
    for token in ("nonsense", f"{url[:-1]}{'A' if url[-1] != 'A' else 'B'}"):
        assert "This is no token" in project.refused("heartbeat", "--token", token)
    token = url.rpartition("/")[2]
    project.run("complete", "a-1", "1", '"yes"')
    assert "moved on" in project.refused("heartbeat", "--token", token)


def test_what_has_ended_is_purged_after_a_look(talks: Project) -> None:
    talks.dev()
    for id_ in ("c-1", "c-2", "c-3"):
        talks.run("start", "collect", id_, "--input", '{"wanted": 0}', "--wait", "10")
    talks.run("start", "collect", "open")
    assert "is running; only what has ended can be purged" in talks.refused("purge", "open", "--yes")
    assert "No execution has the id 'nobody'" in talks.refused("purge", "nobody", "--yes")
    assert "Leave them out" in talks.refused("purge", "c-1", "--status", "failed")

    looked = talks.run("purge", "c-1")
    assert looked.stdout.startswith("would purge c-1  collect, completed ")
    assert looked.stderr == "nothing is deleted yet: --yes does it\n"
    assert len(talks.json("list")) == 4
    for _ in range(2):  # the second time it is gone already
        assert talks.run("purge", "c-1", "--yes").stdout.startswith("purged c-1  collect, ")
    assert "It was purged." in talks.refused("show", "c-1")

    closed_before = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    would = talks.json("purge", "--closed-before", closed_before)
    assert (would["purged"], [one["execution_id"] for one in would["executions"]]) == (False, ["c-3", "c-2"])
    first = talks.run("purge", "--closed-before", closed_before, "--limit", "1", "--yes")
    assert (first.stdout[:10], first.stderr) == ("purged c-3", "that is the --limit of 1; there may be more\n")
    rest = talks.json("purge", "--closed-before", closed_before, "--status", "completed", "--yes")
    assert (rest["purged"], [one["execution_id"] for one in rest["executions"]]) == (True, ["c-2"])
    nothing = talks.run("purge", "--closed-before", "0m", "--orchestrator", "collect", "--yes")
    assert (nothing.stdout, nothing.stderr) == ("", "there is nothing to purge\n")
    assert [one["execution_id"] for one in talks.json("list")] == ["open"]
