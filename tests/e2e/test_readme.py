"""The README's hello world is run as it stands, and prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_hello_world_prints_what_the_readme_says(tmp_path: Path) -> None:
    readme = (_ROOT / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```\s+prints\s+```text\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    program, printed = found.groups()
    (tmp_path / "hello.py").write_text(program)

    run = subprocess.run(
        [sys.executable, "hello.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert run.stderr == ""
    assert run.stdout == printed
