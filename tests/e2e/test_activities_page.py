"""The examples of docs/activities.md are run as they stand, by pytest, in a directory of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/activities.md"


def test_every_example_passes(tmp_path: Path) -> None:
    shopping, program, tests = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "lines.py").write_text(program, encoding="utf-8")
    (tmp_path / "test_lines.py").write_text(tests, encoding="utf-8")
    (tmp_path / "shopping.py").write_text(shopping, encoding="utf-8")
    (tmp_path / "test_shopping.py").write_text(_SHOPPING, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "\n2 passed in" in done.stdout, done.stdout + done.stderr


_SHOPPING = """
from shopping import BOOKS, shopping


def test_tea_is_bought_instead(durably_env):
    bag = durably_env.assert_replay_safe(shopping, ["milk", "coffee"])
    assert bag == ["a packet of milk", "a packet of tea"]
    assert list(BOOKS.values()) == ["milk", "tea"]
"""
