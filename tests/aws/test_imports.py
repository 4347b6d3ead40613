"""Cold start is a feature: a function imports only what it needs. Modules are counted, time is a ratio."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TURNS = {"durably.runtime.turn"}
HTTP = {"aws_lambda_powertools.event_handler"}
API = {"durably.aws.api", "durably.client"}
BACKGROUND = {"durably.embedded", "durably.cli", "durably.adapters.sqlite", "durably.adapters.memory", "sqlite3"}
NEVER = BACKGROUND | {"boto3", "moto", "hypothesis", "pytest"}  # of boto3 only botocore is needed

# function: what it must not import, and how many modules it may load besides those of Python itself
BUDGETS: dict[str, tuple[set[str], int]] = {
    "orchestrator": (HTTP | API, 280),
    "routing_activities": (HTTP | API | TURNS, 280),
    "greetings_activities": (HTTP | API | TURNS, 280),
    "pokemon_capture_activities": (HTTP | API | TURNS, 280),
    "user_onboarding_activities": (HTTP | API | TURNS | {"sqlalchemy"}, 280),
    "triggers": (HTTP | TURNS | {"sqlalchemy"}, 310),
    "timers": (HTTP | API | TURNS, 280),
    "dead_letters": (HTTP | API | TURNS, 280),
    "sweeper": (HTTP | API | TURNS, 280),
    "callbacks": (API | TURNS, 310),
    "api": (TURNS, 310),
}
PROGRAM = """
import json, runpy, sys, time
began = time.process_time()
import json, asyncio, logging, urllib.request, http.client, email.message, decimal, dataclasses, typing, pydantic
base_s = time.process_time() - began
before = set(sys.modules)
began = time.process_time()
runpy.run_path(sys.argv[1])["handler"]
took_s = time.process_time() - began
print(json.dumps({"modules": sorted(sys.modules), "new": len(set(sys.modules) - before), "ratio": took_s / base_s}))
"""


def loaded(function: str) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DURABLY_"))}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"infra/functions/{function}.py"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": f"src{os.pathsep}."},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, object] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize("function", BUDGETS)
def test_a_function_imports_only_what_it_needs(function: str) -> None:
    forbidden, most = BUDGETS[function]
    found = loaded(function)
    modules = found["modules"]
    assert isinstance(modules, list)
    intruders = {module for module in modules if module in forbidden | NEVER}
    assert not intruders
    new, ratio = found["new"], found["ratio"]
    assert isinstance(new, int)
    assert isinstance(ratio, float)
    print(f"{function}: {new} modules, {ratio:.2f} times what asyncio, urllib and pydantic take")
    assert new <= most
    assert ratio <= 5
