"""The pytest plugin: its fixture, its price where unused, and messages of rewritten assertions."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from durably.testing import Environment

PASSES_AND_FAILS = """
from durably import Context, activity, orchestrator

@activity
def add(one: int, other: int) -> int:
    return one + other

@orchestrator
async def total(ctx: Context, numbers: list[int]) -> int:
    result = 0
    for number in numbers:
        result = await add(result, number)
    return result

def test_passes(durably_env):
    assert durably_env.run(total, [1, 2, 3]) == 6

def test_fails(durably_env):
    adding = durably_env.mock(add).returns(7)
    assert durably_env.run(total, [1, 2]) == 7
    adding.assert_called_with(7, 3)
"""


def test_it_is_found_by_pytest() -> None:
    (found,) = (point for point in entry_points(group="pytest11") if point.name == "durably")
    assert found.value == "durably.testing.plugin"


def test_it_loads_nothing_until_it_is_used() -> None:
    code = "import sys, durably.testing.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name for name in done.stdout.split() if name.split(".")[0] in ("durably", "pydantic", "boto3")}
    assert loaded == {"durably", "durably.testing", "durably.testing.plugin"}


def test_the_kit_does_without_pytest() -> None:
    code = """
import sys
sys.modules["pytest"] = None
import durably.testing
for name in durably.testing.__all__:
    getattr(durably.testing, name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_its_fixture_and_its_assertions_say_what_differs(tmp_path: Path) -> None:
    (tmp_path / "test_total.py").write_text(PASSES_AND_FAILS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "add was last called with {'one': 7, 'other': 2}, not with {'one': 7, 'other': 3}" in done.stdout
    assert "Differing items" in done.stdout


def test_the_fixture_is_an_environment(durably_env: Environment) -> None:
    assert isinstance(durably_env, Environment)
