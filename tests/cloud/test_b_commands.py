"""The command line on a deployed stack, as its operator calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.cloud.emulator import CREDENTIALS, ROOT, surroundings
from tests.cloud.stack import Stack

PROJECT = ROOT / "tests" / "cloud" / "project"


def durably(stack: Stack, *arguments: str) -> Any:
    """What a command on the stack says."""
    done = subprocess.run(
        [sys.executable, "-m", "durably.cli", *arguments, "--stack", stack.deployment.stack, "--json"],
        check=False,
        cwd=PROJECT,
        env=surroundings() | CREDENTIALS | {"AWS_ENDPOINT_URL": stack.emulator.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_executions_are_started_and_replayed_by_name_of_the_stack(stories: Stack) -> None:
    ended = durably(stories, "start", "sums", "by-command", "--input", '{"count": 3}', "--wait", "60")
    assert (ended["status"], ended["result"]) == ("completed", 6)
    assert "by-command" in [each["execution_id"] for each in durably(stories, "list", "--status", "completed")]
    verdicts = durably(stories, "replay", "--since", "1h", "--orchestrator", "sums")
    assert {"by-command"} <= {each["history"] for each in verdicts if each["verdict"] == "agrees"}
