"""Each story as `make story NAME=...` runs it: for real, with its result as one JSON object on the last line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.story import STORIES
from durably.core.events import ActivityScheduled
from durably.embedded import connect

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def story(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo.story", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def test_each_story_has_its_input_its_page_and_its_code() -> None:
    for name in STORIES:
        module = name.removeprefix("packet_")
        for file in (
            f"demo/{name}.py",
            f"events/{name}.json",
            f"docs/{name}.md",
            f"orchestrators/{module}.py",
            f"activities/{module}.py",
        ):
            assert (ROOT / file).is_file(), file


def test_packets_are_routed() -> None:
    result = result_of(story("packet_routing", "--seed=7", "--deadline=3"))
    assert (result["id"], result["status"], result["current_route_provider"]) == ("packet-0001", "DELIVERED", "RouteA")


def test_the_professor_greets_once_his_server_is_up_and_only_then() -> None:
    done = story("greetings")
    assert result_of(done) == {
        "trainer": "Hello Sacha!",
        "pokemon": "Hello Pikachu!",
        "professor": "Hello there! My name is Oak. People call me the Pokemon Professor!",
    }
    down, _, up = done.stderr.partition("his server is up")
    assert down.count("of hello_professor_oak failed") >= 2
    assert "was asked for /hello" not in down
    assert up.count("was asked for /hello") == 1


def test_greetings_that_were_given_are_not_given_again(tmp_path: Path) -> None:
    first, second = (story("greetings", f"--db={tmp_path / 'kept.db'}") for _ in range(2))
    assert result_of(second) == result_of(first)
    assert "asked for /hello" not in second.stderr


def test_greetings_go_on_where_they_were_killed(tmp_path: Path) -> None:
    db = tmp_path / "kept.db"
    command = [sys.executable, "-m", "demo.story", "greetings", f"--db={db}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = iter(process.stderr.readline, "")
        assert any("attempt 1 of hello_professor_oak failed" in line for line in said)
        process.kill()
    result = result_of(story("greetings", f"--db={db}"))
    assert result["professor"].startswith("Hello there!")
    asked = [
        entry.event.name
        for entry in connect(db).history("greetings-0001")
        if isinstance(entry.event, ActivityScheduled)
    ]
    assert asked == ["hello_trainer", "hello_pokemon", "hello_professor_oak"]


def test_the_history_of_an_order_is_drawn_after_each_event() -> None:
    done = story("order")
    result = result_of(done)
    assert (result["item"], result["number"]) == ("a pair of binoculars", 1)
    *tables, last = done.stdout.split("\n\n")
    assert json.loads(last) == result
    lines = [[re.split(r"  +", line) for line in table.splitlines()] for table in tables]
    assert all(table[0] == ["#", "Name", "Attributes", "Executed"] for table in lines)
    started, process = ["1", "ExecutionStarted", "order_item", "x"], ["2", "ActivityScheduled", "Process", "x"]
    confirm = ["4", "ActivityScheduled", "SendConfirmation", "x"]
    processed, confirmed = ["3", "ActivityCompleted", "1"], ["5", "ActivityCompleted", f'"{result["confirmation"]}"']
    assert [table[1:] for table in lines[:4]] == [
        [started, process],
        [started, process, processed],
        [started, process, [*processed, "x"], confirm],
        [started, process, [*processed, "x"], confirm, confirmed],
    ]
    assert lines[4][1:6] == [started, process, [*processed, "x"], confirm, [*confirmed, "x"]]
    assert lines[4][6][:2] == ["6", "ExecutionCompleted"]
    assert len(lines) == 5
    shown = re.findall(r"```text\n(.*?)\n```", (ROOT / "docs/order.md").read_text(), re.DOTALL)
    assert shown == ["\n\n".join(tables[:3])]


def test_users_are_onboarded_after_a_reminder_as_the_page_shows(tmp_path: Path) -> None:
    db = tmp_path / "kept.db"
    done = story("user_onboarding", f"--db={db}")
    result = result_of(done)
    assert (result["status"], result["reminded"], result["approved"]) == ("APPROVED", True, [1, 3, 4])
    assert [row["line"] for row in result["malformed"]] == [3, 6]
    assert done.stderr.index("is reminded: 4 users wait") < done.stderr.index("POST /approvals: 202")
    shown = re.findall(r"```(?:text|json)\n(.*?)\n```", (ROOT / "docs/user_onboarding.md").read_text(), re.DOTALL)
    assert "\n\n".join(shown[1:3]) == done.stdout.strip()
    again = story("user_onboarding", f"--db={db}")
    assert again.stdout == done.stdout
    assert "POST /approvals" not in again.stderr


def test_users_are_onboarded_where_the_approval_comes_first(tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("name,dob,city\nAda,1990-01-02,Paris\n")
    done = story("user_onboarding", "--early", f"--users={users}")
    result = result_of(done)
    assert (result["imported"], result["reminded"], result["approved"], result["unknown"]) == (1, False, [1], [3, 4])


def test_users_whom_nobody_approves_are_onboarded_never() -> None:
    done = story("user_onboarding", "--never")
    assert (result_of(done)["status"], "True" in done.stdout) == ("EXPIRED", False)


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        (b"", "The CSV is empty; its header must be name,dob,city"),
        (b"id\n1\n", "must be the header"),
        (b"\xff", "cannot be read: 'utf-8'"),
    ],
)
def test_a_csv_that_holds_no_users_ends_the_story(tmp_path: Path, csv: bytes, says: str) -> None:
    users = tmp_path / "users.csv"
    users.write_bytes(csv)
    done = story("user_onboarding", f"--users={users}")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert says in done.stderr


def test_onboarding_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    db = tmp_path / "kept.db"
    command = [sys.executable, "-m", "demo.story", "user_onboarding", f"--db={db}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("is reminded: 4 users wait" in line for line in iter(process.stderr.readline, ""))
        process.kill()
    assert result_of(story("user_onboarding", f"--db={db}"))["approved"] == [1, 3, 4]
    imports = [
        entry
        for entry in connect(db).history("user-onboarding")
        if isinstance(entry.event, ActivityScheduled) and entry.event.name == "import_users"
    ]
    assert len(imports) == 1


POKEMON_PAGE = (ROOT / "docs/pokemon_capture.md").read_text()
COMPARISONS = re.findall(r"```text\n(life.*?\n)```", POKEMON_PAGE, re.DOTALL)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), COMPARISONS[0]),
        (("--fail=throw=2",), COMPARISONS[1]),
        (("--fail=throw=5",), COMPARISONS[2]),
        (("--life=saga", "--fail=throw=1", "--fail=restore=9"), COMPARISONS[3]),
    ],
    ids=["once", "twice", "always", "undone in vain"],
)
def test_pokemon_are_captured_in_four_ways_as_the_page_shows(arguments: tuple[str, ...], shown: str) -> None:
    done = story("pokemon_capture", *arguments)
    lives = result_of(done)
    assert done.stdout.startswith(f"{shown}\n{{")
    assert list(lives) == [line.split()[0] for line in shown.splitlines()[1:]]
    for life, line in zip(lives.values(), shown.splitlines()[1:], strict=True):
        assert f"{life['pokemon']['health']} of {life['pokemon']['max_health']} " in line


@pytest.mark.parametrize("life", ["sequential", "choreography", "orchestrator", "saga"])
def test_a_pokemon_that_is_captured_is_left_alone_afterwards(tmp_path: Path, life: str) -> None:
    arguments = ("pokemon_capture", f"--life={life}", "--fail=throw=0", f"--db={tmp_path / 'kept.db'}")
    first, second = result_of(story(*arguments)), result_of(story(*arguments))
    assert first == second
    assert first[life]["pokemon"]["trainer"] == "Sacha"
    assert first[life]["done"] == {"paralyze": 1, "attack": 1, "throw": 1}


@pytest.mark.parametrize("life", ["choreography", "orchestrator", "saga"])
def test_a_capture_goes_on_where_it_was_killed(tmp_path: Path, life: str) -> None:
    arguments = ["pokemon_capture", f"--life={life}", "--fail=throw=0", f"--db={tmp_path / 'kept.db'}"]
    command = [sys.executable, "-m", "demo.story", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(f"mewtwo-{life}: attack" in line for line in iter(process.stderr.readline, ""))
        process.kill()
    assert result_of(story(*arguments))[life]["done"] == {"paralyze": 1, "attack": 1, "throw": 1}


def test_a_step_that_there_is_not_cannot_fail() -> None:
    done = story("pokemon_capture", "--fail=catch=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "STEP is one of paralyze, attack, throw, cure, restore" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("nobody",), ("--help",)])
def test_an_unknown_story_is_answered_with_those_that_exist(arguments: tuple[str, ...]) -> None:
    done = story(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"There are: {', '.join(STORIES)}." in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_says_so_too_with_the_same_exit_code() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "story", "NAME=nobody", f"PY={sys.executable}", "-o", ".venv/.project"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "There is no story 'nobody'. There are:" in done.stderr
