"""The command line on a deployed stack."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.cli import main
from tests.aws import programs
from tests.aws.driver import Cloud
from tests.aws.stacks import STACK, name_stack

FLOWS = """
import asyncio
from durably import Context, Query, Signal, orchestrator

TOTAL = Query[int]("total")

@orchestrator
async def pipeline(ctx: Context, n: int, steps: int = 3) -> int: ...

@orchestrator
async def relay(ctx: Context, left: int, total: int = 0) -> int:
    ctx.on_query(TOTAL, lambda: total)
    return await ctx.receive(Signal[int]("go"))

@orchestrator
async def sleeper(ctx: Context, seconds: float) -> float:
    await asyncio.sleep(seconds{edit})
    return 0.0
"""

Told = Callable[..., tuple[int, Any]]


@pytest.fixture
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    monkeypatch.setattr(sys, "path", [*sys.path])

    def written(edit: str) -> list[str]:
        file = tmp_path / f"flows{len(edit)}.py"
        file.write_text(FLOWS.format(edit=edit))
        return ["--from", str(file)]

    return written


@pytest.fixture
def told(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """What a command on the stack says, as JSON."""
    name_stack(cloud.settings, monkeypatch)

    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--stack", STACK, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else said.err

    return run


def test_executions_are_started_and_looked_at(cloud: Cloud, told: Told, flows: Callable[[str], list[str]]) -> None:
    code, started = told("start", "pipeline", "pipeline-1", "--input", '{"n": 1}', *flows(""))
    assert (code, started["existed"]) == (0, False)
    cloud.run(until=lambda: cloud.closed("pipeline-1"))
    assert told("result", "pipeline-1")[1]["result"] == 8
    assert [each["execution_id"] for each in told("list", "--status", "completed")[1]] == ["pipeline-1"]
    assert told("history", "pipeline-1")[1][-1]["event"] == "ExecutionCompleted"
    assert told("show", "pipeline-1")[1]["result"] == 8
    assert told("cost", "pipeline-1")[1]["steps"] == 3


def test_executions_are_steered(cloud: Cloud, told: Told, flows: Callable[[str], list[str]]) -> None:
    cloud.client.start("relay-1", programs.relay, 2)
    cloud.client.start("account-1", programs.account, 5)
    cloud.run()
    assert told("query", "relay-1", "total", *flows("")) == (0, 0)
    assert told("signal", "relay-1", "go", "1", "--request-id", "one")[0] == 0
    cloud.run(until=lambda: cloud.client.describe("relay-1").run == 2)
    assert told("suspend", "relay-1")[0] == 0
    cloud.run(until=lambda: cloud.status("relay-1") == "suspended")
    assert told("resume", "relay-1")[0] == told("cancel", "relay-1")[0] == 0
    cloud.run(until=lambda: cloud.closed("relay-1"))
    assert told("show", "relay-1")[1]["status"] == "cancelled"

    add = ("update", "account-1", "add", "3", "--request-id", "three", "--timeout", "0")
    code, refused = told(*add)
    assert code == 1
    assert "Are the functions of the stack prod well?" in refused
    cloud.run(until=lambda: cloud.closed("account-1"))
    assert told(*add)[1]["result"] == 6


def test_histories_are_exported_and_replayed(
    cloud: Cloud, told: Told, flows: Callable[[str], list[str]], tmp_path: Path
) -> None:
    cloud.client.start("nap-1", programs.sleeper, 1_200)
    cloud.run(until=lambda: len(cloud.backend.load_turns(cloud.run_of("nap-1"))) == 2)
    file = tmp_path / "nap-1.json"
    assert main(["export", "nap-1", "--stack", STACK, "--output", str(file)]) == 0

    def verdict(*arguments: str) -> tuple[int, str]:
        code, ((said),) = told("replay", *arguments)
        return code, said["verdict"]

    same, other = flows(""), flows(" + 1")
    assert verdict(*same) == verdict("--since", "7d", *same) == verdict(str(file), *same) == (0, "agrees")
    assert verdict(*other) == verdict(str(file), *other) == (1, "diverged")


def test_the_outside_world_is_answered_for(cloud: Cloud, told: Told) -> None:
    cloud.client.start("asker-1", programs.asker, "q")
    cloud.run(until=lambda: "q/1" in programs.seen)
    assert told("heartbeat", "--token", programs.seen["q/1"]) == (0, {"cancelled": False})
    (waiting,) = told("show", "asker-1")[1]["activities"]
    assert told("complete", "asker-1", str(waiting["seq"]), "4")[0] == 0
    cloud.run(until=lambda: cloud.closed("asker-1"))
    assert told("result", "asker-1")[1]["result"] == 4
    assert told("purge", "asker-1", "--yes")[0] == 0
    assert told("list") == (0, [])


def test_schedules_are_created_and_listed(cloud: Cloud, told: Told, flows: Callable[[str], list[str]]) -> None:
    create = ("schedules", "create", "hourly", "pipeline", "--every", "1h", "--input", '{"n": 1}')
    assert told(*create, *flows(""))[0] == 0
    assert [each["schedule_id"] for each in told("schedules", "list")[1]] == ["hourly"]


def test_a_stack_that_is_not_there_is_named(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--stack", "pord"]) == 1
    said = capsys.readouterr().err
    assert "The stack 'pord' cannot be read" in said
    assert "does not exist" in said
    assert "AWS_REGION" in said


def test_a_store_is_a_file_or_a_stack(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--stack", "prod", "--db", "durably.db"])
    assert "not allowed with" in capsys.readouterr().err
