"""The examples of docs/testing.md are run as they stand, by pytest, in a directory of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/testing.md"


def test_every_example_passes(tmp_path: Path) -> None:
    program, *tests = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert program.startswith("# orders.py")
    (tmp_path / "orders.py").write_text(program, encoding="utf-8")
    (tmp_path / "test_orders.py").write_text("\n\n".join(tests) + _RECORDS, encoding="utf-8")
    (tmp_path / "tests/histories").mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]

    first, second = (
        subprocess.run(
            [*command, "test_orders.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        for _ in range(2)  # the first one writes the history that the second one replays
    )

    tested = len(re.findall("^def test_", "".join(tests), re.MULTILINE))
    assert f"\n{tested} passed, 1 skipped in" in first.stdout, first.stdout + first.stderr
    assert f"\n{tested + 1} passed in" in second.stdout, second.stdout + second.stderr


_RECORDS = """

def test_records_a_history(durably_env):
    durably_env.mock(charge).returns("receipt-1")
    durably_env.mock(ship).returns("parcel-7")
    durably_env.run(buy, TEA)
    Path("tests/histories/order-1.json").write_text(durably_env.export())
"""
